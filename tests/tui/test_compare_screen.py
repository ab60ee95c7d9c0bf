"""The Compare screen, driven by keys over real traces."""

import importlib.util
from pathlib import Path

import pytest

from tui.app import make_app
from tui.screens.compare import CompareScreen
from tui.screens.runs import RunsScreen


def beside(name):
    path = Path(__file__).parent / "golden" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tui_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scenes, tables, driver = beside("scenes"), beside("neuron_scenes"), beside("driver")
drive, press = driver.drive, driver.press
SIZES = {"80x24": driver.SMALL, "140x40": driver.LARGE}
TUNED_RUN = "20261119-080000-eval-77bb"


def write_tuned(folder, **columns):
    return scenes.write_trace(
        folder / "traces" / f"tuned-{len(columns)}.h5",
        steered=False,
        run_id=TUNED_RUN,
        policy=(tables.TUNED, tables.TUNED_PATH),
        created_utc="2026-11-19T08:00:00Z",
        moved=0.5,
        **columns,
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A steered run, and a fine-tuned policy in the same scenes."""
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_tuned(Path())
        scenes.recorded(Path())
    return folder


@pytest.fixture
def recorded(template, monkeypatch):
    """The same folder for every test that only reads."""
    monkeypatch.chdir(template)
    return Path()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder."""
    monkeypatch.chdir(tmp_path)
    return Path()


def app_over(folder):
    return make_app(folder, clock=lambda: scenes.NOW)


def text(pilot):
    return driver.screen_text(pilot.app)


def cursor_row(pilot):
    return next(line for line in text(pilot).splitlines() if line.startswith("▸"))


@pytest.mark.parametrize("size", SIZES)
def test_golden_compare(recorded, size):
    async def steps(pilot):
        await press(pilot, "c")
        driver.check(pilot.app, f"compare-pairs-{size}")
        await press(pilot, "escape", "space", "j", "space", "c", "]")
        driver.check(pilot.app, f"compare-neurons-{size}")
        await press(pilot, "]")
        driver.check(pilot.app, f"compare-config-{size}")

    drive(app_over(recorded), steps, SIZES[size])


@pytest.mark.parametrize("key", ["c", "5"])
def test_one_run_is_its_baseline_beside_what_is_steered(recorded, key):
    async def steps(pilot):
        await press(pilot, key)
        shown = text(pilot).splitlines()
        assert "A 11-20 09:30 1f9c  baseline" in shown[1]
        assert "B 11-20 09:30 1f9c  fast α=8" in shown[2]
        assert "lift" in cursor_row(pilot) and "4/6 .67" in cursor_row(pilot)
        assert "3/6 .50" in cursor_row(pilot)
        assert "+.109 [+.093,+.129]" in cursor_row(pilot)  # as in the preview of the run
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, RunsScreen)

    drive(app_over(recorded), steps)


def test_two_marked_runs_are_a_and_b(recorded):
    async def steps(pilot):
        await press(pilot, "j", "space", "k", "space")
        marks = [line.split()[:2] for line in text(pilot).splitlines()[2:4]]
        assert marks == [["▸", "B"], ["A", "○"]]
        await press(pilot, "c")
        shown = text(pilot).splitlines()
        assert "A 11-19 08:00 77bb  baseline  goal/000040@c0dec0de" in shown[1]
        assert "B 11-20 09:30 1f9c  baseline  smolvla-tabletop@5f3a5f3a" in shown[2]
        await press(pilot, "o")
        assert "A 11-20 09:30 1f9c" in text(pilot).splitlines()[1]
        await press(pilot, "b")
        assert "both the policy" not in text(pilot)
        await press(pilot, "b")
        assert "B 11-20 09:30 1f9c  fast α=8" in text(pilot).splitlines()[2]

    drive(app_over(recorded), steps)


def test_marks_come_off_and_a_third_takes_the_place_of_the_first(recorded):
    async def steps(pilot):
        await press(pilot, "space", "space")
        assert pilot.app.screen.marked == []
        screen = pilot.app.screen
        screen.marked = ["x", "y"]
        screen.action_mark()
        assert len(screen.marked) == 1  # x and y are no runs here: they were forgotten

    drive(app_over(recorded), steps)


def test_what_else_differs_is_a_sentence(here):
    scenes.recorded(here)
    write_tuned(here, likelihood="flow_noise")

    async def steps(pilot):
        await press(pilot, "space", "j", "space", "c")
        assert "the sampler differs, too (flow_sde in A" in text(pilot)

    drive(app_over(here), steps, driver.LARGE)


def test_runs_without_common_scenes_say_so_in_one_line(here):
    scenes.recorded(here)
    write_tuned(here, pair_key="elsewhere", scene_seed=900)

    async def steps(pilot):
        await press(pilot, "space", "j", "space", "c")
        assert "no common scenes (A: lift 100-105; B: lift 900): " in text(pilot)
        assert "record both with the same --task and --seed" in text(pilot)
        await press(pilot, "]")  # distributions can be compared all the same
        assert "vlm.0.ffn_act" in text(pilot)

    drive(app_over(here), steps, driver.LARGE)


def test_nothing_to_compare_says_how_to_choose(here):
    async def steps(pilot):
        await press(pilot, "5", *"]ab", "o", "]", "G")
        assert "mark two runs with space in Runs, then c" in text(pilot)

    drive(app_over(here), steps)


def test_the_screen_is_there_once(recorded):
    async def steps(pilot):
        await press(pilot, "5", "5", "4", "5")
        assert isinstance(pilot.app.screen, CompareScreen)
        assert len(pilot.app.screen_stack) == 2

    drive(app_over(recorded), steps)


HOSTILE = "[bold red]x[/]\x1b[2J\x1b]0;owned\x07\u202e\n[@click=app.quit]y[/]"


def test_nothing_from_a_file_reaches_the_terminal_raw(here):
    evil = {"run_id": HOSTILE, "task_name": HOSTILE, "policy": (scenes.SHA, HOSTILE)}
    scenes.write_trace(here / "traces" / "a\x1b[2J.h5", steered=False, **evil)
    scenes.write_trace(
        here / "traces" / "b.h5", steered=scenes.fast(name=HOSTILE), likelihood=HOSTILE, **evil
    )

    async def steps(pilot):
        await press(pilot, "c")
        for _ in range(3):
            shown = text(pilot)
            assert not set("\x1b\x07\u202e") & set(shown)
            assert "[bold red]x[/]" in shown
            await press(pilot, "]", "j")

    drive(app_over(here), steps, driver.LARGE)

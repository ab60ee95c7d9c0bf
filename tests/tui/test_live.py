"""The Live screen, the places and the palette, driven by keys over real logs."""

import gc
import importlib.util
import json
from pathlib import Path

import pytest
from textual._styles_cache import StylesCache

from tui.app import make_app
from tui.data.machine import Load
from tui.screens.choice import ChoiceScreen
from tui.screens.episode import EpisodeScreen
from tui.screens.live import LiveScreen
from tui.screens.rollouts import RolloutsScreen
from tui.screens.runs import RunsScreen
from tui.widgets.keys import KeyLine
from tui.widgets.table import Table


def beside(name):
    path = Path(__file__).parent / "golden" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tui_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scenes, driver = beside("scenes"), beside("driver")
drive, press, read_again, settle = driver.drive, driver.press, driver.read_again, driver.settle
SIZES = {"80x24": driver.SMALL, "140x40": driver.LARGE}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Relative paths, and a machine whose load does not change."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tui.data.machine.Machine.look", lambda self: Load(2, 88.0, 6.1, 24.7))
    return Path()


@pytest.fixture
def run(here):
    return scenes.training(here)


def app_over(folder):
    return make_app(folder, clock=lambda: scenes.NOW)


def text(pilot):
    return driver.screen_text(pilot.app)


def said(pilot):
    return pilot.app.screen.query_one(KeyLine)._message


@pytest.mark.parametrize("size", SIZES)
def test_golden_live(here, run, size):
    async def steps(pilot):
        driver.check(pilot.app, f"live-{size}")

    drive(app_over(here), steps, SIZES[size])


@pytest.mark.parametrize("size", SIZES)
def test_golden_of_an_update_that_is_over(here, run, size):
    async def steps(pilot):
        await press(pilot, "left_square_bracket", "left_square_bracket")
        driver.check(pilot.app, f"live-earlier-{size}")

    drive(app_over(here), steps, SIZES[size])


@pytest.mark.parametrize("size", SIZES)
def test_golden_runs_with_a_training(here, run, size):
    async def steps(pilot):
        await press(pilot, "1")
        driver.check(pilot.app, f"runs-training-{size}")

    drive(app_over(here), steps, SIZES[size])


def test_a_running_training_is_shown_first(here, run):
    async def steps(pilot):
        assert isinstance(pilot.app.screen, LiveScreen)
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, RunsScreen)
        await read_again(pilot)
        assert isinstance(pilot.app.screen, RunsScreen)  # once is enough
        await press(pilot, "enter")
        assert isinstance(pilot.app.screen, LiveScreen)

    drive(app_over(here), steps)


def test_a_training_that_is_over_is_not(here):
    scenes.TrainingRun(here).trained(2).emit("run_end", status="finished")

    async def steps(pilot):
        assert isinstance(pilot.app.screen, RunsScreen)
        await press(pilot, "2")
        assert "finished" in text(pilot)

    drive(app_over(here), steps)


def test_groups_fill_while_they_are_played(here, run):
    async def steps(pilot):
        assert "1/7" not in text(pilot)
        await press(pilot, "j")
        row = pilot.app.screen.query_one("#groups", Table).row
        assert row.cells[2] == ("✗✗✗✗✗✗··", "")
        run.emit("episode", update=14, group=1, member=6, task_id=1, success=False, **{"return": 0})
        run.emit("episode", update=14, group=1, member=7, task_id=1, success=False, **{"return": 0})
        await read_again(pilot)
        row = pilot.app.screen.query_one("#groups", Table).row
        assert (row.key, row.cells[2], row.cells[5]) == (1, ("✗✗✗✗✗✗✗✗", "bad"), ("DEAD", "bad"))
        assert "47/64" in text(pilot)

    drive(app_over(here), steps)


def test_an_alert_leads_to_its_update(here, run):
    async def steps(pilot):
        assert "1 WARN (!)" in text(pilot)
        await press(pilot, "left_square_bracket", "exclamation_mark")
        assert "grad_norm 12.5 > 8 x median" in text(pilot)
        assert "last checkpoint: 10" in text(pilot)
        await press(pilot, "enter")
        assert "at update 14 of 14" in text(pilot)
        assert "groups of update 14" in text(pilot)
        await press(pilot, "left_square_bracket")
        assert "at update 13 of 14" in text(pilot)
        assert "WARN" not in text(pilot).splitlines()[0]
        await press(pilot, "right_square_bracket", "right_square_bracket")
        assert "update 15/60" in text(pilot)

    drive(app_over(here), steps)


def test_the_first_update_is_the_end(here, run):
    async def steps(pilot):
        for _ in range(16):
            await press(pilot, "left_square_bracket")
        assert "at update 1 of 14" in text(pilot)
        assert said(pilot)[0] == " the first update"
        await press(pilot, "f")
        assert "update 15/60" in text(pilot)

    drive(app_over(here), steps)


def test_no_alert_is_said(here):
    scenes.TrainingRun(here, t=scenes.NOW - 100).trained(1)

    async def steps(pilot):
        await press(pilot, "2", "exclamation_mark")
        assert "no alert so far" in text(pilot)
        await press(pilot, "enter")
        assert isinstance(pilot.app.screen, LiveScreen)

    drive(app_over(here), steps)


def test_a_metric_takes_the_place_of_success(here, run):
    async def steps(pilot):
        await press(pilot, "m")
        assert "TRL frac_reward_zero_std" in text(pilot)
        while pilot.app.screen.query_one(Table).row.key != "train/actor/grad_norm":
            await press(pilot, "j")
        await press(pilot, "enter")
        assert "train/actor/grad_norm, linear" in text(pilot)
        assert "12.0┤" in text(pilot) or "12.5┤" in text(pilot) or "13.0┤" in text(pilot)
        await press(pilot, "v")
        assert "train/actor/grad_norm, log" in text(pilot)
        await press(pilot, "v", "m", "g", "enter")
        assert "success, 95 % intervals" in text(pilot)

    drive(app_over(here), steps, driver.LARGE)


def test_pause_stops_drawing_until_it_is_pressed_again(here, run):
    async def steps(pilot):
        await press(pilot, "space")
        before = text(pilot)
        assert "paused" in before
        run.update(16)
        await read_again(pilot)
        assert text(pilot) == before
        await press(pilot, "space")
        assert "update 16: success" in text(pilot)

    drive(app_over(here), steps)


def test_why_a_group_cannot_be_opened(here, run):
    async def steps(pilot):
        await press(pilot, "enter")
        assert "keeps no episodes" in said(pilot)[0]

    drive(app_over(here), steps)


def test_a_kept_group_opens(here):
    run = scenes.TrainingRun(here, t=scenes.NOW - 200, traces=4)
    folder = here / "runs" / run.run_id / "traces"
    folder.mkdir(parents=True)
    scenes.write_trace(folder / "update-000000.h5", steered=False, run_id=run.run_id)
    run.trained(3)

    async def steps(pilot):
        await press(pilot, "2", "left_square_bracket", "enter")
        assert said(pilot)[0] == " kept are updates 1, 5, 9 …: the one before is 1"
        await press(pilot, "left_square_bracket", "enter")
        assert isinstance(pilot.app.screen, RolloutsScreen)
        assert "update 1 > group 0" in text(pilot)
        assert len(pilot.app.screen.table._rows) == 6  # what the trace holds of group 0
        await press(pilot, "enter")
        assert isinstance(pilot.app.screen, EpisodeScreen)
        await press(pilot, "escape", "escape")
        assert isinstance(pilot.app.screen, LiveScreen)
        await press(pilot, "j", "enter")
        assert "not there or cannot be read" in said(pilot)[0]

    drive(app_over(here), steps)


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ({"type": "run_end", "status": "failed", "reason": "NaN\x1b[2J"}, "NaN\\x1b[2J"),
        ({"type": "heartbeat", "after": -300}, "silent: nothing for 5m"),
        ({"type": "heartbeat", "after": -900}, "crashed: it ended without"),
    ],
)
def test_a_run_that_stopped_says_so(here, end, says):
    run = scenes.TrainingRun(here, t=scenes.NOW - 2000).trained(2).rollout(3, episodes=9)
    after = end.pop("after", -1)
    run.emit(end.pop("type"), after=scenes.NOW + after - run.t, **end)

    async def steps(pilot):
        await press(pilot, "2")
        assert says in text(pilot)
        assert "\x1b" not in text(pilot)

    drive(app_over(here), steps)


# Places and the palette


def test_keys_go_to_every_place(here, run):
    async def steps(pilot):
        await press(pilot, "3")
        assert isinstance(pilot.app.screen, RolloutsScreen)
        assert pilot.app.screen.run_shown.run_id == run.run_id
        await press(pilot, "2")
        assert isinstance(pilot.app.screen, LiveScreen)
        assert len(pilot.app.screen_stack) == 2
        await press(pilot, "1")
        assert isinstance(pilot.app.screen, RunsScreen)
        assert len(pilot.app.screen_stack) == 1

    drive(app_over(here), steps)


def test_a_place_with_nothing_to_show_says_so(here):
    async def steps(pilot):
        await press(pilot, "2")
        assert "vla-trace train begins one" in said(pilot)[0]
        await press(pilot, "3")
        assert "vla-trace record makes one" in said(pilot)[0]

    drive(app_over(here), steps)


def test_the_palette_finds_a_command_by_its_words(here, run):
    async def steps(pilot):
        await press(pilot, "colon")
        assert isinstance(pilot.app.screen, ChoiceScreen)
        await press(pilot, *"logarithmic")
        assert pilot.app.screen.query_one(Table).place == (1, 1)
        await press(pilot, "enter")
        assert isinstance(pilot.app.screen, LiveScreen)
        assert "smoothed" in text(pilot)
        await press(pilot, "ctrl+p", *"screen", "space", *"runs", "enter")
        assert isinstance(pilot.app.screen, RunsScreen)

    drive(app_over(here), steps)


def test_letters_of_the_palette_are_no_keys(here, run):
    async def steps(pilot):
        await press(pilot, "colon", *"jq1")
        assert isinstance(pilot.app.screen, ChoiceScreen)
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, LiveScreen)

    drive(app_over(here), steps)


# What it costs


def test_nothing_is_repainted_when_nothing_changed(here):
    scenes.TrainingRun(here, t=scenes.NOW - 900).trained(12).emit("run_end", status="finished")

    async def steps(pilot):
        await press(pilot, "2")
        painted = []
        for widget in pilot.app.screen.walk_children():
            widget.refresh = lambda *args, widget=widget, **how: painted.append(widget.id)
        await read_again(pilot)
        pilot.app.screen.paint()
        assert painted == []

    drive(app_over(here), steps, driver.LARGE)


def test_while_no_file_changes_a_run_in_progress_is_painted_once_a_minute(here, run):
    now = [scenes.NOW]

    async def steps(pilot):
        painted = []
        for widget in pilot.app.screen.walk_children():
            for name in ("refresh", "refresh_line"):
                setattr(widget, name, lambda *_, id=widget.id, **how: painted.append(id))
        for seconds, what in ((50, ""), (61, "title"), (119, ""), (122, "title")):
            now[0] = scenes.NOW + seconds
            await read_again(pilot)
            assert what in painted if what else not painted
            painted.clear()

    drive(make_app(here, clock=lambda: now[0]), steps, driver.LARGE)


def test_looks_at_a_slow_folder_are_rarer_until_something_changes(here, run):
    async def steps(pilot):
        app, looks = pilot.app, []
        app._library.poll = lambda now: looks.append(now) or app.runs
        app.post_message(app.Read(app.runs, 0, took_s=0.02))
        await pilot.pause()
        app._look_again()
        assert looks == []
        app.post_message(app.Read(app.runs[:0], 0, took_s=0.02))
        await pilot.pause()
        app._look_again()
        await settle(pilot)
        assert len(looks) == 1

    drive(app_over(here), steps, driver.LARGE)


def test_a_new_update_repaints_only_some_cells_of_the_chart(here, run):
    async def steps(pilot):
        chart, regions = pilot.app.screen.query_one("#chart"), []
        chart.refresh = lambda *args, **how: regions.extend(args or [None])
        run.update(15)
        await read_again(pilot)
        assert regions
        assert None not in regions
        cells = sum(region.width * region.height for region in regions)
        assert cells < 0.2 * chart.size.area

    drive(app_over(here), steps, driver.LARGE)


def test_hostile_logs_are_drawn(here):
    """Whatever stands in a log, the screen stays, and nothing of it reaches the terminal raw."""
    evil = "\x1b]0;owned\x07\n[bold]x"
    odd_config = {"updates": "many", "group_size": evil}
    log = scenes.TrainingRun(here, "evil", scenes.NOW - 90, **odd_config)
    odd = [None, evil, -1, 2**70, [], {}, True, float("nan"), float("-inf"), 0.5]
    for value in odd:
        log.emit("phase", name=value, update=value, total=value, done=value)
        log.emit("episode", update=value, group=value, member=value, success=value, task_id=value)
        log.emit("episode", update=3, group=1, member=1, task_name=value, **{"return": value})
        log.emit("group", update=value, group=1, advantages=[value], accepted=value, reason=value)
        log.emit("step", update=value, metrics={evil: value, "train/actor/approx_kl": value})
        log.emit("step", update=5, metrics=value)
        log.emit("eval", update=value, n=value, metrics={"eval/success_once": value})
        log.emit("alert", level=value, rule=value, message=value, value=value)
        log.emit("checkpoint", update=value, path=value)
        log.emit("shard", path=value)
    log.emit("step", update=6, metrics={evil: 1.0, "env/success_once": 7, "rollout/episodes": 3})
    with log.log.path.open("a") as file:
        file.write(json.dumps({"t": "soon", "type": "step"}) + "\n")
        file.write('{"t": 1e999, "type": "step"}\n[1]\n')

    async def steps(pilot):
        await press(pilot, "2")
        assert isinstance(pilot.app.screen, LiveScreen)
        for key in (
            "m",
            "escape",
            "exclamation_mark",
            "enter",
            "v",
            "left_square_bracket",
            "enter",
        ):
            await press(pilot, key)
            assert "\x1b" not in text(pilot)
            assert "\x07" not in text(pilot)

    drive(app_over(here), steps, driver.LARGE)


def test_lines_of_a_screen_that_was_left_are_let_go(here, run):
    def kept():
        gc.collect()
        return sum(type(one) is StylesCache for one in gc.get_objects())

    async def steps(pilot):
        await press(pilot, "1", "2", "3", "1")
        before = kept()
        await press(pilot, *"232323", "1")
        assert kept() <= before

    drive(app_over(here), steps)

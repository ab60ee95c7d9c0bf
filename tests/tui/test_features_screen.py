"""The list of features in the Neurons place, driven by keys over real tables and traces."""

import importlib.util
import shutil
import sys
import time
from pathlib import Path

import pytest

from traces.intervention import Intervention
from tui import cli
from tui.app import make_app
from tui.screens.choice import ChoiceScreen
from tui.screens.episode import EpisodeScreen
from tui.screens.features import FeaturesScreen
from tui.screens.neurons import NeuronsScreen
from tui.screens.recorder import RecorderScreen
from tui.screens.runs import RunsScreen


def beside(name):
    path = Path(__file__).parent / "golden" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tui_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scenes, made, driver = beside("scenes"), beside("feature_scenes"), beside("driver")
drive, press, read_again = driver.drive, driver.press, driver.read_again
SIZES = {"80x24": driver.SMALL, "140x40": driver.LARGE}
HERE = [f"{scenes.RUN}/u00000/g0000/a00/m{number:03d}" for number in (2, 5, 0)]
TOP = (*made.peaks(0, [*HERE, "gone/u00000"]), *made.peaks(2, HERE))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, and a cache of our own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path()


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A run, and two autoencoders of its policy: one described, one not."""
    folder = tmp_path_factory.mktemp("described")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        scenes.recorded(Path())
        made.describe(made.write_autoencoder(policy_sha256=scenes.SHA), TOP)
        made.write_autoencoder(made.FOLDER.with_name("seed1"), scenes.SHA)
    return folder


@pytest.fixture
def described(template, monkeypatch):
    """The same folder for every test that only reads."""
    monkeypatch.chdir(template)
    monkeypatch.setenv("XDG_CACHE_HOME", str(template / "cache"))
    return Path()


@pytest.fixture
def own(template, tmp_path, monkeypatch):
    """A copy, for those that write."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path()


def app_over(folder):
    return make_app(folder, clock=lambda: scenes.NOW)


def text(pilot):
    return driver.screen_text(pilot.app)


def shown(pilot):
    """Numbers of the visible features."""
    firsts = [line[2:].split()[:1] for line in text(pilot).splitlines()[2:-2]]
    return [int(first[0]) for first in firsts if first and first[0].isdigit()]


async def filtered(pilot, words):
    """As if the words were typed, in one go."""
    pilot.app.screen.query_one("#filter").value = words
    await driver.settle(pilot)


@pytest.mark.parametrize("size", SIZES)
def test_golden_features(described, size):
    async def steps(pilot):
        await press(pilot, "4", "f", "s")
        driver.check(pilot.app, f"features-{size}")
        await press(pilot, "enter")
        driver.check(pilot.app, f"feature-card-{size}")

    drive(app_over(described), steps, SIZES[size])


def test_f_goes_to_the_features_and_back_and_4_stays(described):
    async def steps(pilot):
        await press(pilot, "4", "f")
        assert isinstance(pilot.app.screen, FeaturesScreen)
        await press(pilot, "j", "4")
        assert isinstance(pilot.app.screen, FeaturesScreen)
        await press(pilot, "1", "4", "f", "f")
        assert isinstance(pilot.app.screen, NeuronsScreen)
        await press(pilot, "f")
        assert pilot.app.screen.table.place == (2, 6)  # where it was
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, RunsScreen)

    drive(app_over(described), steps)


def test_filter_and_order(described):
    async def steps(pilot):
        await press(pilot, "4", "f", "slash", *"signal", "colon", *"speed", "enter")
        assert shown(pilot) == [0, 2]
        assert "filter: signal:speed" in text(pilot)
        await press(pilot, "s")
        assert "r, 95 % ▼" in text(pilot)
        await press(pilot, "S")
        assert shown(pilot) == [2, 0]
        await press(pilot, "escape", "s")
        assert shown(pilot)[:3] == [1, 0, 2]  # by p, the smallest first
        await filtered(pilot, "colour:red label:silent")
        assert shown(pilot) == [made.SILENT] and "unknown column 'colour'" in text(pilot)

    drive(app_over(described), steps)


def test_enter_goes_from_the_card_to_the_step_where_it_peaks(described):
    async def steps(pilot):
        await press(pilot, "4", "f", "enter")
        card = text(pilot)
        assert "feature 0  general" in card and "active in 6 of 6 episodes" in card
        assert "speed           +.61 [+.51,+.71]  +.30  .0020   6" in card
        assert "time            +.90" in card
        assert "it peaks highest in (enter opens one)" in card
        await press(pilot, "enter")
        assert isinstance(pilot.app.screen, ChoiceScreen)
        assert "baseline #2" in text(pilot) and "not here" in text(pilot)
        await press(pilot, "j", "enter")
        assert isinstance(pilot.app.screen, EpisodeScreen)
        assert "baseline #5" in text(pilot).splitlines()[0]
        assert "17/79" in text(pilot)  # its step
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, FeaturesScreen)
        await press(pilot, "enter", *"jjj", "enter")
        assert "the trace of that episode is not in this folder" in text(pilot)
        await press(pilot, "escape")
        assert "feature ▲" in text(pilot)

    drive(app_over(described), steps)


def test_a_feature_is_saved_as_sae_steer_writes_it(own, capsys):
    async def steps(pilot):
        await press(pilot, "4", "f", "j", "j", "w")
        assert "feature 2, way (add, project_out, set or scale) and dose" in text(pilot)
        await press(pilot, "enter")
        assert "saved interventions/feature-2-a1.json; R records with it" in text(pilot)
        await press(pilot, "w", "x", "enter")
        assert "such as: add 1" in text(pilot)
        await press(pilot, *["backspace"] * 6, *"push 2", "enter")
        assert "way to steer 'push'" in text(pilot)
        await press(pilot, "escape", "j", "w", "enter")  # the silent one
        assert "active in no recorded episode" in text(pilot)
        assert len(list(Path("interventions").iterdir())) == 1

    drive(app_over(own), steps)
    assert cli.run(["sae", "steer", str(made.FOLDER), "--feature", "2"]) == 0
    expected = Intervention.from_json(capsys.readouterr().out)
    assert Intervention.from_json(Path("interventions/feature-2-a1.json").read_text()) == expected


def test_a_steered_recording_is_started_and_shown(own, tmp_path, monkeypatch):
    program = tmp_path / "bin" / "vla-trace"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$*"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    apart = importlib.import_module("tui.data.apart")
    monkeypatch.setattr(apart.sys, "executable", str(program.with_name("python")))
    program.with_name("python").symlink_to(REAL_PYTHON)

    async def steps(pilot):
        await press(pilot, "4", "f", "R", "enter")
        assert "vla-trace record --intervention interventions/feature-0-a1.json" in text(pilot)
        await press(pilot, "enter")
        screen = pilot.app.screen
        assert isinstance(screen, RecorderScreen)
        for _ in range(500):
            if screen._recorder.code is not None:
                break
            time.sleep(0.02)
        await read_again(pilot)
        said = "record --intervention interventions/feature-0-a1.json --policy models/smolvla"
        assert said in text(pilot)
        await press(pilot, "escape")
        assert "○ finished" in text(pilot).splitlines()[0]

    drive(app_over(own), steps, driver.LARGE)


def test_what_is_described_meanwhile_appears(here):
    async def steps(pilot):
        await press(pilot, "4", "f")
        assert "no sparse autoencoder is here yet" in text(pilot)
        assert "vla-trace sae train traces/*.h5 --site vlm.2.resid_post" in text(pilot)
        assert "vla-trace sae features sae/vlm.2.resid_post/seed0 --traces" in text(pilot)
        await press(pilot, *"jkGgsSwRoyx[]", "enter")
        made.write_autoencoder()
        await read_again(pilot)
        assert "no sparse autoencoder was described yet" in text(pilot)
        assert f"vla-trace sae features {made.FOLDER} --traces" in text(pilot)
        made.describe()
        await read_again(pilot)
        assert pilot.app.screen.table.place == (1, 6)
        made.describe(features=made.FEATURES[:4])
        await read_again(pilot)
        assert pilot.app.screen.table.place == (1, 4)

    drive(app_over(here), steps, driver.LARGE)


def test_every_described_autoencoder_is_a_source(own):
    made.describe(made.FOLDER.with_name("seed1"), features=made.FEATURES[:2])

    async def steps(pilot):
        await press(pilot, "4", "f")
        assert "seed0 1 of 2 [ ]" in text(pilot).splitlines()[0]
        await press(pilot, "]")
        assert "seed1 2 of 2" in text(pilot).splitlines()[0] and shown(pilot) == [0, 1]
        await press(pilot, "]", "[")
        assert "seed1" in text(pilot).splitlines()[0]
        shutil.rmtree(made.FOLDER.with_name("seed1"))
        await read_again(pilot)
        assert "seed0" in text(pilot).splitlines()[0] and len(shown(pilot)) == 6

    drive(app_over(own), steps)


def test_damaged_tables_are_a_sentence(here):
    made.describe(made.write_autoencoder())
    (made.FOLDER / "features_signals.parquet").write_bytes(b"nothing")

    async def steps(pilot):
        await press(pilot, "4", "f")
        assert "these features cannot be read; describe them again" in text(pilot)
        made.describe()
        await read_again(pilot)
        assert len(shown(pilot)) == 6

    drive(app_over(here), steps, driver.LARGE)


def test_the_rows_shown_are_exported_in_their_order(own):
    async def steps(pilot):
        await press(pilot, "4", "f")
        await filtered(pilot, "label:general")
        await press(pilot, "S", "x")

    drive(app_over(own), steps)
    (table,) = Path("exports").glob("features-*.csv")
    lines = table.read_text().splitlines()
    assert lines[0].startswith("feature,label,coverage,onsets,mean_peak,signal,r,low,high,p,")
    assert [line.split(",")[0] for line in lines[1:]] == ["2", "0"]


HOSTILE = "[bold red]x[/]\x1b[2J\x1b]0;owned\x07\u202e\n[@click=app.quit]y[/]"


def test_nothing_from_a_table_reaches_the_terminal_raw(here):
    scenes.write_trace(Path("traces/a.h5"), steered=False, numbers=[0], uid=f"{HOSTILE}/m000")
    folder = made.write_autoencoder(Path("sae/a\x1b[2Jb"))
    names = [HOSTILE, *list(made.SIGNALS)[1:]]
    rows = [(HOSTILE, *rest) for _, *rest in made.FEATURES]
    top = made.peaks(0, [f"{HOSTILE}/m000", HOSTILE], task=HOSTILE)
    made.describe(folder, top, rows, names)

    async def steps(pilot):
        for keys in ((), ("enter",), ("escape",), ("w", "enter"), ("y",), ("R",)):
            await press(pilot, *keys) if keys else await press(pilot, "4", "f")
            seen = text(pilot)
            assert not set("\x1b\x07\u202e") & set(seen)
            assert "[bold red]x[/]" in seen

    drive(app_over(here), steps, driver.LARGE)


REAL_PYTHON = sys.executable


def test_features_that_the_command_described_are_shown(here):
    """From traces to the screen, without tables of our own."""
    trace = scenes.write_trace(Path("traces/base.h5"), steered=False)
    folder = made.write_autoencoder(Path("sae/vlm.1.ffn_act/seed0"), kind="ffn_act", width=16)
    assert cli.run(["sae", "features", str(folder), "--traces", str(trace)]) == 0

    async def steps(pilot):
        await press(pilot, "4", "f")
        assert "vlm.1.ffn_act/seed0" in text(pilot) and len(shown(pilot)) == 6
        await press(pilot, "enter", "enter")
        await press(pilot, "enter")
        assert isinstance(pilot.app.screen, EpisodeScreen)

    drive(app_over(here), steps, driver.LARGE)

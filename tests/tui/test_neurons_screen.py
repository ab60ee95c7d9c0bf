"""The Neurons screen, driven by keys over real tables and real traces."""

import importlib.util
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from traces.intervention import Intervention
from tui.app import make_app
from tui.commands.record import _from_file
from tui.screens.neurons import NeuronsScreen
from tui.screens.recorder import RecorderScreen
from tui.screens.runs import RunsScreen


def beside(name):
    path = Path(__file__).parent / "golden" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tui_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scenes, tables, driver = beside("scenes"), beside("neuron_scenes"), beside("driver")
drive, press, read_again = driver.drive, driver.press, driver.read_again
SIZES = {"80x24": driver.SMALL, "140x40": driver.LARGE}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, and a cache of our own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path()


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A steered run, its policy's neurons, and a fine-tuned policy that played once."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        tables.write_table(scenes.SHA, layers=3)
        scenes.write_trace(
            Path("traces/tuned.h5"),
            steered=False,
            run_id="20261119-080000-eval-77bb",
            policy=(tables.TUNED, tables.TUNED_PATH),
            created_utc="2026-11-19T08:00:00Z",
            moved=0.5,
        )
        scenes.recorded(Path())
    return folder


@pytest.fixture
def recorded(template, monkeypatch):
    """The same folder for every test that only reads; what is analysed once stays known."""
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


def cursor_row(pilot):
    return next(line for line in text(pilot).splitlines() if line.startswith("▸"))


def shown_neurons(pilot):
    """(layer, neuron) of the visible rows."""
    lines = [line[2:].replace("✓ in", "").replace("✗ out", "") for line in text(pilot).splitlines()]
    split = [line.split() for line in lines]
    return [(int(a), int(b)) for a, b, *_ in (s for s in split if len(s) > 4) if (a + b).isdigit()]


async def filtered(pilot, words):
    """As if the words were typed, in one go."""
    pilot.app.screen.query_one("#filter").value = words
    await driver.settle(pilot)


@pytest.mark.parametrize("size", SIZES)
def test_golden_neurons(recorded, size):
    async def steps(pilot):
        await press(pilot, "4", "s", "j", "a", "j", "d")
        driver.check(pilot.app, f"neurons-{size}")
        await press(pilot, "enter")
        if size == "80x24":
            driver.check(pilot.app, "neuron-card-80x24")

    drive(app_over(recorded), steps, SIZES[size])


def test_every_neuron_is_listed_with_what_it_writes(recorded):
    async def steps(pilot):
        await press(pilot, "4")
        assert pilot.app.screen.table.place == (1, 48)
        assert "quick rapid swift" in cursor_row(pilot)
        assert " yes " in cursor_row(pilot) and "n/a" in cursor_row(pilot)
        await press(pilot, "G")
        assert pilot.app.screen.table.place == (48, 48)
        assert " no " in cursor_row(pilot)  # the last layer

    drive(app_over(recorded), steps)


def test_the_effect_is_that_of_its_cluster(recorded):
    async def steps(pilot):
        await press(pilot, "4")
        await filtered(pilot, "effect>0")
        assert shown_neurons(pilot) == [(1, 3), (1, 5), (1, 8), (1, 13)]
        assert "+.109 [+.093,+.129]" in cursor_row(pilot)  # as in the preview of the run
        await press(pilot, "enter")
        shown = text(pilot)
        assert "fast α=8, 4 neurons, success 3/6" in shown
        assert "+0.109 [+0.093, +0.129] 6 pairs p .0312" in shown

    drive(app_over(recorded), steps)


def test_a_neuron_without_steering_says_so(recorded):
    async def steps(pilot):
        await press(pilot, "4", "enter")
        assert "n/a: not steered" in text(pilot)

    drive(app_over(recorded), steps)


def test_the_card_shows_the_shift_to_the_fine_tuned_policy(recorded):
    async def steps(pilot):
        await press(pilot, "4", "enter")
        shown = text(pilot)
        assert "smolvla-tabletop@5f3a5f3a to goal/000040@c0dec0de" in shown
        assert "on-policy, 6 episodes" in shown
        assert "d +0." in shown
        assert "goal/000040@c0dec0de, " in shown  # its histogram

    drive(app_over(recorded), steps, driver.LARGE)


def test_a_filter_is_typed_kept_and_cleared(recorded):
    async def steps(pilot):
        await press(pilot, "4", "slash", *"conc", "equals_sign", *"up", "enter")
        assert "unknown column 'conc'; did you mean concept?" in text(pilot)
        await press(pilot, "escape", "slash", *"layer=1", "enter", "j")
        assert shown_neurons(pilot)[0] == (1, 0)
        assert pilot.app.screen.table.place == (2, 16)
        assert "filter: layer=1" in text(pilot)
        await press(pilot, "escape")
        assert pilot.app.screen.table.place[1] == 48

    drive(app_over(recorded), steps)


def test_a_filter_that_cannot_be_read_says_what_there_is(recorded):
    async def steps(pilot):
        await press(pilot, "4")
        await filtered(pilot, "layer=1 colour=red")
        assert "unknown column 'colour'" in text(pilot)
        assert pilot.app.screen.table.place[1] == 16  # what was readable before still holds

    drive(app_over(recorded), steps)


def test_sorting_goes_through_the_columns_and_back(recorded):
    async def steps(pilot):
        await press(pilot, "4")
        assert "layer ▲" in text(pilot)
        await press(pilot, "s")
        assert "effect, cm ▼" in text(pilot)
        assert shown_neurons(pilot)[:4] == [(1, 3), (1, 5), (1, 8), (1, 13)]
        await press(pilot, "s", "s")
        best = pilot.app.screen.place
        neurons = pilot.app.screen._neurons
        assert neurons.norm[neurons.row_of(best)] == neurons.norm.max()
        await press(pilot, "S")
        assert neurons.norm[neurons.row_of(pilot.app.screen.place)] == neurons.norm.min()

    drive(app_over(recorded), steps, driver.LARGE)


def test_marks_are_kept_and_can_be_filtered(recorded):
    async def steps(pilot):
        await press(pilot, "4", "a", "j", "d", "j", "a", "a")
        assert "1 in 1 out" in text(pilot)
        assert "✓ in" in text(pilot) and "✗ out" in text(pilot)
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, RunsScreen)
        await press(pilot, "4")
        assert "1 in 1 out" in text(pilot)
        await filtered(pilot, "mark=any")
        assert shown_neurons(pilot) == [(0, 0), (0, 1)]
        await press(pilot, "escape")
        await filtered(pilot, "mark=accepted")
        assert shown_neurons(pilot) == [(0, 0)]

    drive(app_over(recorded), steps)


def test_the_cluster_is_saved_as_record_takes_it_and_never_over_another(own):
    async def steps(pilot):
        await press(pilot, "4", "w")
        assert "no neuron is accepted" in text(pilot)
        await press(pilot, "j", "d", "j", "a", "j", "a", "w", "enter")
        assert "saved interventions/cluster-L0-x2-a8.json; R records with it" in text(pilot)
        await press(pilot, "w", "enter")
        assert "saved interventions/cluster-L0-x2-a8-2.json" in text(pilot)

    drive(app_over(own), steps)
    chosen = _from_file("interventions/cluster-L0-x2-a8.json")
    assert isinstance(chosen, Intervention)
    assert chosen.operator == "overwrite" and chosen.coefficient == 8
    assert [(site.tower, site.layer, site.neurons) for site in chosen.sites] == [("vlm", 0, (2, 3))]
    assert chosen.provenance["checkpoint_sha256"] == scenes.SHA
    assert chosen.provenance["rejected"] == ["0:1"]


def test_a_name_without_a_dose_can_be_mended(own):
    async def steps(pilot):
        await press(pilot, "4", "a", "w", "x", "enter")
        assert "expected a name and a dose" in text(pilot)
        await press(pilot, "backspace", "enter")
        assert "saved interventions/cluster-L0-x1-a8.json" in text(pilot)
        await press(pilot, "w", "escape")
        assert isinstance(pilot.app.screen, NeuronsScreen)

    drive(app_over(own), steps)
    assert len(list(Path("interventions").iterdir())) == 1


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A `vla-trace` of our own, whose command line and end the test chooses."""

    def write(script):
        path = tmp_path / "bin" / "vla-trace"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path.with_name("python")))

    return write


async def ended(pilot, recorder):
    for _ in range(1000):
        if recorder.code is not None:
            break
        time.sleep(0.02)
    await read_again(pilot)


def test_a_recording_is_started_shown_and_goes_on(own, program):
    program('printf "%s\\n" "$*"; printf "\\033[2Jevil\\n" >&2; exit 0')

    async def steps(pilot):
        await press(pilot, "4", "a", "R", "enter")
        assert "vla-trace record --intervention interventions/cluster-L0-x1-a8.json" in text(pilot)
        await press(pilot, "enter")
        screen = pilot.app.screen
        assert isinstance(screen, RecorderScreen)
        await ended(pilot, screen._recorder)
        shown = text(pilot)
        assert "○ finished" in shown
        assert "record --intervention interventions/cluster-L0-x1-a8.json --policy models" in shown
        assert "\\x1b[2Jevil" in shown and "\x1b" not in shown
        await press(pilot, "escape")
        assert "○ finished" in text(pilot).splitlines()[0]
        await press(pilot, "o")
        assert isinstance(pilot.app.screen, RecorderScreen)

    drive(app_over(own), steps, driver.LARGE)


def test_x_asks_a_recording_to_stop(own, program):
    program("echo begun; exec sleep 60")

    async def steps(pilot):
        await press(pilot, "4", "a", "R", "enter", "enter")
        recorder = pilot.app.screen._recorder
        await press(pilot, "escape")
        assert "● running" in text(pilot).splitlines()[0]
        await press(pilot, "R")  # the one that runs, not a second one
        assert isinstance(pilot.app.screen, RecorderScreen)
        await press(pilot, "x")
        assert "asked it to stop" in text(pilot)
        await ended(pilot, recorder)
        assert "○ stopped" in text(pilot)

    drive(app_over(own), steps)


def test_without_the_engine_it_says_what_to_install(own, program, monkeypatch):
    program("exit 0")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )

    async def steps(pilot):
        await press(pilot, "4", "a", "R", "enter", "enter")
        assert isinstance(pilot.app.screen, NeuronsScreen)
        assert "pip install 'vla-trace[engine]'" in text(pilot)

    drive(app_over(own), steps, driver.LARGE)


def test_nothing_but_record_is_started(own, program):
    program("touch started")

    async def steps(pilot):
        await press(pilot, "4", "a", "R", "enter", "home", *"rm ".replace(" ", "|"), "enter")
        assert "only vla-trace record is started from here" in text(pilot)

    drive(app_over(own), steps)
    assert not Path("started").exists()


def test_no_table_is_one_line_with_the_command(here):
    scenes.recorded(here)

    async def steps(pilot):
        await press(pilot, "4")
        shown = text(pilot)
        assert (
            "no neuron table of smolvla-tabletop@5f3a5f3a yet; make it:\n  vla-trace neurons"
            in shown
        )
        await press(pilot, *"jkGgsSadwR", "enter")
        tables.write_table(scenes.SHA)
        await read_again(pilot)
        assert pilot.app.screen.table.place == (1, 32)

    drive(app_over(here), steps, driver.LARGE)


def test_an_empty_folder_shows_the_tables_of_the_cache(here):
    tables.write_table(scenes.SHA)

    async def steps(pilot):
        await press(pilot, "4")
        assert "smolvla-tabletop@5f3a5f3a" in text(pilot)
        assert pilot.app.screen.table.place == (1, 32)

    drive(app_over(here), steps)


def test_a_table_that_is_damaged_or_of_other_weights_is_a_sentence(here):
    scenes.recorded(here)
    path = tables.write_table(scenes.SHA, format=1)

    async def steps(pilot):
        await press(pilot, "4")
        assert "is of another version; make it again: vla-trace neurons" in text(pilot)
        path.write_bytes(b"nothing")
        await read_again(pilot)
        assert "cannot be read" in text(pilot)

    drive(app_over(here), steps, driver.LARGE)


def test_the_run_it_is_opened_from_chooses_the_policy(own):
    tables.write_table(tables.TUNED)

    async def steps(pilot):
        await press(pilot, "4")
        assert "smolvla-tabletop@5f3a5f3a" in text(pilot).splitlines()[0]
        await press(pilot, "]")
        assert "goal/000040@c0dec0de" in text(pilot).splitlines()[0]
        await press(pilot, "[", "escape", "G", "4")
        assert "goal/000040@c0dec0de" in text(pilot).splitlines()[0]

    drive(app_over(own), steps)


HOSTILE = "[bold red]x[/]\x1b[2J\x1b]0;owned\x07\u202e\n[@click=app.quit]y[/]"


def test_nothing_from_a_table_reaches_the_terminal_raw(here):
    vocabulary = [HOSTILE, "\x1b[31m", "   ", *tables.VOCABULARY[3:]]
    tables.write_table(scenes.SHA, vocabulary=vocabulary, policy=f"a/{HOSTILE}")
    tables.write_table("ab" * 32, vocabulary=vocabulary, policy=HOSTILE)
    scenes.write_trace(here / "traces" / "a\x1b[2J.h5", steered=scenes.fast(name=HOSTILE))
    scenes.write_trace(here / "traces" / "b.h5", steered=False, policy=(scenes.SHA, HOSTILE))

    async def steps(pilot):
        for keys in (("4",), ("s",), ("enter",), ("]",), ("enter",), ("slash", "x", "enter")):
            await press(pilot, *keys)
            shown = text(pilot)
            assert not set("\x1b\x07\u202e") & set(shown)
            assert "[bold red]x[/]" in shown

    drive(app_over(here), steps, driver.LARGE)


def test_the_saved_file_is_plain_json(own):
    async def steps(pilot):
        await press(pilot, "4", "a", "w", "enter")

    drive(app_over(own), steps)
    (path,) = Path("interventions").iterdir()
    assert json.loads(path.read_text())["provenance"]["method"] == "accepted one by one in vla-tui"


def test_widget_count_stays_the_same(recorded):
    async def steps(pilot):
        await press(pilot, "4")

        def count():
            return len(list(pilot.app.screen.walk_children()))

        before = count()
        await press(pilot, *"jjssSaadd", "enter", "j", "enter", "slash", "x", "escape", "w")
        await press(pilot, "escape", "escape", "4", "5", "4")
        assert count() == before
        assert len(pilot.app.screen_stack) == 2

    drive(app_over(recorded), steps)


def test_help_shows_every_key_page_by_page(recorded):
    async def steps(pilot):
        await press(pilot, "4", "question_mark")
        lines = pilot.app.screen._lines
        pages = [text(pilot)]
        assert "j k: more" in pages[0]
        await press(pilot, "j")
        pages.append(text(pilot))
        for line in lines:
            assert any(line[1][0] in page for page in pages)
        await press(pilot, "j", "j", "k", "k", "k")
        assert text(pilot) == pages[0]
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, NeuronsScreen)

    drive(app_over(recorded), steps)


def test_a_table_that_is_made_anew_is_read_anew(own):
    async def steps(pilot):
        await press(pilot, "4")
        await filtered(pilot, "effect>0")
        assert pilot.app.screen.table.place[1] == 4
        path = tables.write_table(scenes.SHA, layers=2)
        os.utime(path, (scenes.NOW, scenes.NOW))
        await read_again(pilot)
        await read_again(pilot)
        assert pilot.app.screen.table.place[1] == 4  # its effects and words are there again
        await filtered(pilot, "quick")
        assert pilot.app.screen.table.place[1] == 7
        path.unlink()
        await read_again(pilot)
        assert "no neuron table of smolvla-tabletop@5f3a5f3a" in text(pilot)

    drive(app_over(own), steps)

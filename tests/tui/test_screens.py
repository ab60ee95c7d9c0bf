"""Runs, Rollouts and Episode, driven by keys over real traces and real logs."""

import importlib.util
import os
from pathlib import Path

import pytest
from textual import events

from tui.app import make_app
from tui.screens.episode import EpisodeScreen
from tui.screens.help import HelpScreen
from tui.screens.rollouts import RolloutsScreen
from tui.screens.runs import RunsScreen


def beside(name):
    path = Path(__file__).parent / "golden" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tui_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scenes, driver = beside("scenes"), beside("driver")
drive, press, read_again = driver.drive, driver.press, driver.read_again
SIZES = {"80x24": driver.SMALL, "140x40": driver.LARGE}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Relative paths in the dumps."""
    monkeypatch.chdir(tmp_path)
    return Path()


@pytest.fixture
def recorded(here):
    return scenes.recorded(here)


@pytest.fixture
def several(recorded):
    """A finished run, one that records now, and a file that is none."""
    scenes.recording(recorded)
    broken = recorded / "traces" / "broken.h5"
    broken.write_bytes(b"nothing")
    os.utime(broken, (scenes.NOW - 180, scenes.NOW - 180))
    return recorded


def app_over(folder):
    return make_app(folder, clock=lambda: scenes.NOW)


def text(pilot):
    return driver.screen_text(pilot.app)


def cursor_row(pilot):
    return next(line for line in text(pilot).splitlines() if line.startswith("▸"))


# Runs


@pytest.mark.parametrize("size", SIZES)
def test_golden_runs(several, size):
    async def steps(pilot):
        await press(pilot, "G")
        driver.check(pilot.app, f"runs-{size}")

    drive(app_over(several), steps, SIZES[size])


def test_rows_are_newest_first_and_name_their_state(several):
    async def steps(pilot):
        rows = text(pilot).splitlines()[2:5]
        assert [row.split()[-1] for row in rows] == ["<1m", "3m", "1h"]
        assert "● running  11-20 09:39 77aa fast α=8 + base  3/12 .67 [.21,.94]" in rows[0]
        assert "✗ broken" in rows[1]
        assert (
            "○ finished 11-20 09:30 1f9c fast α=8 + base 12/12 .58 [.32,.81] 0.52→0.63" in rows[2]
        )

    drive(app_over(several), steps)


def test_moving_in_the_list(several):
    async def steps(pilot):
        seen = []
        for key in ("j", "down", "k", "up", "G", "g", "end", "home", "pagedown", "pageup"):
            await press(pilot, key)
            seen.append(pilot.app.screen.table.place[0])
        assert seen == [2, 3, 2, 1, 3, 1, 3, 1, 3, 1]

    drive(app_over(several), steps)


def test_widget_count_stays_the_same(several):
    async def steps(pilot):
        def count():
            return len(list(pilot.app.screen.walk_children()))

        before = count()
        await press(pilot, *"jjkkGg", *"jkjkjk", "question_mark", "escape", "slash", "x", "escape")
        for _ in range(3):
            await read_again(pilot)
        assert count() == before
        await press(pilot, "G", "enter")
        before = count()
        await press(pilot, *"jjkkGgp", "enter", "l", "escape")
        assert count() == before

    drive(app_over(several), steps)


def test_filter_narrows_keeps_and_clears(several):
    async def steps(pilot):
        table = pilot.app.screen.table
        await press(pilot, "slash", *"FINI")
        assert table.place == (1, 1)
        assert "filter: FINI" in text(pilot)
        await press(pilot, "enter", "j", "k")
        assert table.place == (1, 1)
        await press(pilot, "escape")
        assert table.place[1] == 3
        assert "filter" not in text(pilot).splitlines()[0]
        await press(pilot, "slash", *"nowhere")
        assert table.row is None
        assert "nothing matches the filter; esc clears it" in text(pilot)
        await press(pilot, "enter", "enter")  # no row: nothing to open
        assert isinstance(pilot.app.screen, RunsScreen)
        await press(pilot, "slash", "escape")
        assert table.place[1] == 3

    drive(app_over(several), steps)


def test_letters_in_the_filter_are_text_not_commands(several):
    async def steps(pilot):
        await press(pilot, "slash", *"qjr?")
        assert pilot.app.screen.needle == "qjr?"

    drive(app_over(several), steps)


def test_preview_says_what_was_done_and_what_came_of_it(recorded):
    async def steps(pilot):
        shown = text(pilot)
        assert "baseline           success 4/6 .67 [.30, .90]  MEED 0.516 cm [" in shown
        assert "fast α=8           success 3/6 .50 [.19, .81]  MEED 0.625 cm [" in shown
        assert "ΔMEED +0.109 cm [" in shown
        assert "6 pairs  p .0312" in shown
        assert "policy smolvla-tabletop@5f3a5f3a5f3a" in shown
        assert "flow_sde, K 4, replan 1" in shown
        assert "fast α=8: overwrite at vlm layer 1, 4 neurons (3 5 8 13); concept fast" in shown

    drive(app_over(recorded), steps)


def test_traces_without_a_log_are_runs_too(here):
    scenes.write_trace(here / "traces" / "a.h5", steered=False, run_id="lone")
    scenes.write_trace(here / "traces" / "b.h5", steered=True, run_id="lone")

    async def steps(pilot):
        assert "○ closed" in cursor_row(pilot)
        assert "fast α=8 + base" in cursor_row(pilot)
        assert pilot.app.screen.table.place == (1, 1)
        await press(pilot, "enter")
        assert pilot.app.screen.table.place == (1, 12)

    drive(app_over(here), steps)


def test_an_empty_folder_says_how_to_record(here):
    async def steps(pilot):
        assert "vla-trace record --steer fast --alpha 8" in text(pilot)
        await press(pilot, *"jkGg", "enter", "slash", "x", "escape")
        scenes.recording(here)
        await read_again(pilot)
        assert "● running" in cursor_row(pilot)
        assert "vla-trace record" not in text(pilot)

    drive(app_over(here), steps)


def test_failed_silent_and_crashed_runs(here):
    scenes.Log(here, "a-failed", t=scenes.NOW - 50).emit(
        "run_end", status="failed", error="out of memory"
    )
    scenes.Log(here, "b-silent", t=scenes.NOW - 300)
    scenes.Log(here, "c-crashed", t=scenes.NOW - 4000)
    scenes.Log(here, "d-interrupted", t=scenes.NOW - 5000).emit("run_end", status="interrupted")

    async def steps(pilot):
        rows = text(pilot).splitlines()[2:6]
        states = [row.lstrip("▸ ").split()[:2] for row in rows]
        assert states == [["✗", "failed"], ["?", "silent"], ["✗", "crashed?"], ["✗", "failed"]]
        assert "out of memory" in text(pilot)

    drive(app_over(here), steps)


# Rollouts


@pytest.mark.parametrize("size", SIZES)
def test_golden_rollouts(recorded, size):
    async def steps(pilot):
        await press(pilot, "enter", "j")
        driver.check(pilot.app, f"rollouts-{size}")

    drive(app_over(recorded), steps, SIZES[size])


def test_pairs_are_adjacent_and_p_goes_between_them(recorded):
    async def steps(pilot):
        await press(pilot, "l", "j", "j")
        assert "┌ baseline  1 ✓ yes   lift    1   101" in cursor_row(pilot)
        await press(pilot, "p")
        assert "└ fast α=8  1 ✗ no    lift    1   101" in cursor_row(pilot)
        assert "+0.13" in cursor_row(pilot)
        await press(pilot, "p")
        assert "┌ baseline  1" in cursor_row(pilot)

    drive(app_over(recorded), steps)


def test_p_says_when_there_is_no_pair(here):
    scenes.write_trace(here / "traces" / "a.h5", steered=False, numbers=[0])

    async def steps(pilot):
        await press(pilot, "enter", "p")
        assert "no other episode has its pair key" in text(pilot)
        await press(pilot, "enter", "p")
        assert "no other episode has its pair key" in text(pilot)

    drive(app_over(here), steps)


def test_p_says_when_the_filter_hides_the_pair(recorded):
    async def steps(pilot):
        await press(pilot, "enter", "slash", *"baseline", "enter", "p")
        assert "the filter hides the other episode of the pair" in text(pilot)
        await press(pilot, "escape")
        assert pilot.app.screen.table.place[1] == 12
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, RunsScreen)

    drive(app_over(recorded), steps)


@pytest.mark.parametrize("key", ["escape", "h", "left"])
def test_back_to_the_runs(recorded, key):
    async def steps(pilot):
        await press(pilot, "right")
        assert isinstance(pilot.app.screen, RolloutsScreen)
        await press(pilot, key)
        assert isinstance(pilot.app.screen, RunsScreen)

    drive(app_over(recorded), steps)


def test_live_episodes_appear_and_become_traces(here):
    log = scenes.Log(here, t=scenes.NOW - 30)
    log.episode(0, False)

    async def steps(pilot):
        await press(pilot, "enter")
        table = pilot.app.screen.table
        assert table.place == (1, 1)
        assert "● log" in cursor_row(pilot)
        await press(pilot, "enter")
        assert "its trace is not closed yet" in text(pilot)
        log.episode(0, True)
        await read_again(pilot)
        assert table.place == (1, 2)
        await press(pilot, "j", "p")
        assert table.place == (1, 2)
        path = scenes.write_trace(here / "traces" / "a.h5", steered=False, numbers=range(2))
        log.emit("shard", path=str(path), condition="baseline", episodes=2, bytes=1)
        await read_again(pilot)
        assert table.place == (1, 3)
        assert "trace" in cursor_row(pilot)
        assert "● log" in text(pilot)  # the steered one still
        await press(pilot, "enter")
        assert isinstance(pilot.app.screen, EpisodeScreen)
        await press(pilot, "p")
        assert "the trace of its partner is still being written" in text(pilot)

    drive(app_over(here), steps)


def test_progress_moves_in_the_list_of_runs(here):
    log = scenes.recording(here)

    async def steps(pilot):
        assert " 3/12 " in cursor_row(pilot)
        log.episode(3, True)
        await read_again(pilot)
        assert " 4/12 " in cursor_row(pilot)
        log.emit("run_end", at=scenes.NOW, status="finished")
        await read_again(pilot)
        assert "○ finished" in cursor_row(pilot)

    drive(app_over(here), steps)


def test_a_shard_outside_the_folder_is_found_through_the_log(here, tmp_path):
    log = scenes.Log(here, t=scenes.NOW - 30)
    away = scenes.write_trace(tmp_path / "elsewhere" / "a.h5", steered=False)
    log.emit("shard", path=str(away.resolve()), condition="baseline", episodes=6, bytes=1)

    async def steps(pilot):
        await press(pilot, "enter")
        assert pilot.app.screen.table.place == (1, 6)

    drive(app_over(here), steps)


def test_keys_that_follow_the_filter_at_once_are_no_commands(recorded):
    """On a slow line they arrive together: none of them may move, mark or leave."""

    async def steps(pilot):
        await press(pilot, "enter")
        before = cursor_row(pilot)
        for key in "/jq4":
            pilot.app.post_message(events.Key("slash" if key == "/" else key, key))
        await driver.settle(pilot)
        assert isinstance(pilot.app.screen, RolloutsScreen)
        assert cursor_row(pilot) == before

    drive(app_over(recorded), steps)


# Episode


@pytest.mark.parametrize("size", SIZES)
def test_golden_episode(recorded, size):
    async def steps(pilot):
        await press(pilot, "enter", "j", "enter", ">", ">", "l")
        driver.check(pilot.app, f"episode-{size}")

    drive(app_over(recorded), steps, SIZES[size])


def test_the_cursor_runs_over_the_steps(recorded):
    async def steps(pilot):
        await press(pilot, "enter", "enter")
        seen = []
        keys = ("l", "right", ".", "h", "left", ",", ">", "<", "G", "l", "end", "g", "h", "home")
        for key in keys:
            await press(pilot, key)
            seen.append(int(text(pilot).split("┤")[-1].split("▲")[-1].split("/")[0].split()[-1]))
        assert seen == [1, 2, 3, 2, 1, 0, 10, 0, 59, 59, 59, 0, 0, 0]

    drive(app_over(recorded), steps)


def test_pair_keeps_the_cursor_and_escape_lands_on_its_row(recorded):
    async def steps(pilot):
        await press(pilot, "enter", "enter", ">", "l", "p")
        shown = text(pilot)
        assert "fast α=8 #0 ✓ yes  48 steps" in shown
        assert " 11/47" in shown
        await press(pilot, "escape")
        assert "└ fast α=8  0" in cursor_row(pilot)

    drive(app_over(recorded), steps)


def test_next_and_previous_episode(recorded):
    async def steps(pilot):
        await press(pilot, "enter", "enter")
        for key, title in (
            ("]", "fast α=8 #0"),
            ("j", "baseline #1"),
            ("down", "fast α=8 #1"),
            ("k", "baseline #1"),
            ("up", "fast α=8 #0"),
            ("[", "baseline #0"),
        ):
            await press(pilot, key)
            assert title in text(pilot).splitlines()[0]
        await press(pilot, "[")
        assert "the first episode" in text(pilot)

    drive(app_over(recorded), steps)


def test_clicking_a_step(recorded):
    async def steps(pilot):
        await press(pilot, "enter", "enter")
        await pilot.click("#tracks", offset=(9 + 31, 3))
        assert " 30/59" in text(pilot)

    drive(app_over(recorded), steps)


def test_a_sampler_without_likelihood_says_so(here):
    scenes.write_trace(here / "traces" / "a.h5", steered=False, numbers=[0], likelihood="flow_ode")

    async def steps(pilot):
        await press(pilot, "enter", "enter")
        assert "log p   none: flow_ode" in text(pilot)

    drive(app_over(here), steps)


def test_a_trace_that_vanished_is_a_sentence(recorded):
    async def steps(pilot):
        await press(pilot, "enter")
        for path in Path("traces").glob("*.h5"):
            path.unlink()
        await press(pilot, "enter")
        assert "no such file" in text(pilot)
        await press(pilot, "l", "G", "p", "escape", "escape")
        assert isinstance(pilot.app.screen, RunsScreen)

    drive(app_over(recorded), steps)


# Help and hostile content


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_help_lists_every_key_and_closes(recorded, depth):
    async def steps(pilot):
        await press(pilot, *["enter"] * depth)
        below = pilot.app.screen
        await press(pilot, "question_mark")
        assert isinstance(pilot.app.screen, HelpScreen)
        shown = text(pilot)
        named = {name for line in pilot.app.screen._lines for name in line[0][0].split()}
        assert {"q", "?", "r", "ctrl+c"} <= named
        for line in pilot.app.screen._lines:
            assert line[1][0] in shown, "help does not fit 80x24"
        footer = below.query_one("#keys")._hints
        assert {key for key, _ in footer} <= named
        await press(pilot, "question_mark")
        assert pilot.app.screen is below
        await press(pilot, "question_mark", "escape")
        assert pilot.app.screen is below

    drive(app_over(recorded), steps)


HOSTILE = "[bold red]x[/] \x1b[2J\x1b]0;owned\x07 \u202e\n[@click=app.quit]y[/]"


def test_nothing_from_a_file_reaches_the_terminal_raw(here):
    log = scenes.Log(
        here,
        "evil [b]\x1b[31m run",
        t=scenes.NOW - 20,
        kind=HOSTILE,
        suite=HOSTILE,
        policy=HOSTILE,
        conditions=[{"name": HOSTILE, "alpha": 1}],
    )
    log.emit("phase", name=HOSTILE).episode(0, False, task_name=HOSTILE, error=HOSTILE)
    log.emit("alert", level=HOSTILE, text=HOSTILE)
    scenes.write_trace(
        here / "traces" / "a\x1b[2J[b].h5",
        steered=scenes.fast(name=HOSTILE),
        numbers=[0, 1],
        run_id="evil [b]\x1b[31m run",
        instruction=HOSTILE,
        task_name=HOSTILE,
    )

    async def steps(pilot):
        def check():
            shown = text(pilot)
            assert "\x1b" not in shown and "\x07" not in shown and "\u202e" not in shown
            return shown

        assert "[b]" in check()
        await press(pilot, "slash", *"evil", "enter", "enter", "G")
        assert "[bold red]x[/] \\x1b[2J" in check()
        await press(pilot, "enter", "l")
        assert "[bold red]x[/] \\x1b[2J" in check()

    drive(app_over(here), steps, driver.LARGE)


def test_odd_events_do_not_crash(here):
    log = scenes.Log(here, t=scenes.NOW - 20, conditions="many", episodes_total="x", config=[])
    log.emit("episode")
    log.emit("episode", uid=7, alpha="eight", success="yes", n_steps=10**400, meed_cm=float("nan"))
    log.emit("episode", uid="huge", meed_cm=1e300, init_state=1e300, **{"return": -1e300})
    log.emit("shard", path=5)
    log.emit("shard", path=f"{'long' * 2000}.h5")
    log.emit("shard", path="no/such.h5")
    log.emit("phase", name=None)
    log.emit("alert")
    with log.path.open("a") as file:
        file.write('{"v": 1, "t": NaN, "type": "episode"}\n[]\n{"type": "new", "t": 1e300}\n{"torn')

    async def steps(pilot):
        await press(pilot, "enter", "j", "enter", "p")
        assert "3 episodes" in text(pilot)

    drive(app_over(here), steps)


def test_reload_reads_again(recorded):
    async def steps(pilot):
        before = pilot.app.runs[0]
        await read_again(pilot)
        assert pilot.app.runs[0] is before  # unchanged: not even built again
        await press(pilot, "r")
        assert pilot.app.runs[0] is not before
        assert pilot.app.runs[0].done == before.done

    drive(app_over(recorded), steps)


@pytest.mark.parametrize("keys", [(), ("enter",), ("enter", "enter")])
def test_news_for_a_screen_that_is_closing_is_ignored(recorded, keys):
    """The folder is read on a thread: what it found may arrive after the widgets have gone."""

    async def steps(pilot):
        await press(pilot, *keys)
        screen = pilot.app.screen
        await screen.query("*").remove()
        screen.runs_read()
        screen.content_arrived()

    drive(app_over(recorded), steps)

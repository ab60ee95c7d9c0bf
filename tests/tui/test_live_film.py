"""The film on Live: the newest episode that was kept with pictures, one picture a second."""

import importlib.util
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from tui.app import make_app
from tui.data.frames import read_frame
from tui.data.machine import Load
from tui.widgets.frame import Frame


def beside(name):
    path = Path(__file__).parent / "golden" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tui_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PtyTerminal = runpy.run_path(str(Path(__file__).parent / "pty_terminal.py"))["PtyTerminal"]
scenes, driver = beside("scenes"), beside("driver")
press, read_again = driver.press, driver.read_again


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tui.data.machine.Machine.look", lambda self: Load(2, 88.0, 6.1, 24.7))
    monkeypatch.setattr("tui.app.POLL_S", 1e9)  # the tests say when a second is over
    return Path()


def training(folder, updates=14, **config):
    run = scenes.TrainingRun(folder, t=scenes.NOW - 31 * updates - 40, **config).trained(updates)
    return run.rollout(updates + 1, episodes=5).emit("heartbeat", after=1)


def kept(folder, update, group=2, member=1, cameras=("agentview", "wrist")):
    """Write the trace of an update with one episode."""
    uid = f"{scenes.TRAINED}/u{update - 1:05d}/g{group:04d}/a00/m{member:03d}"
    path = folder / "runs" / scenes.TRAINED / "traces" / f"update-{update - 1:06d}.h5"
    path.parent.mkdir(exist_ok=True)
    about = {"run_id": scenes.TRAINED, "numbers": [0], "cameras": cameras, "uid": uid}
    return scenes.write_trace(path, steered=False, **about)


def film(pilot):
    return pilot.app.screen.query_one("#film", Frame)


def app_over(folder):
    return make_app(folder, lambda: scenes.NOW)


def test_it_plays_once_and_rests_at_the_last_picture(here):
    training(here, traces=1, keep=["frames"])
    kept(here, 13)
    path = kept(here, 14)

    async def steps(pilot):
        await press(pilot, "2")
        driver.check(pilot.app, "live-film-140x40")
        assert film(pilot)._title == "u14 g2 m1 ✓ step 0"
        seen = []
        for _ in range(14):  # twelve pictures, every fifth step of sixty
            await read_again(pilot)
            seen.append(int(film(pilot)._title.split()[-1]))
        assert seen == sorted(seen)
        assert set(seen) <= set(range(0, 60, 5))
        assert seen[-1] == 55
        assert (film(pilot)._picture == read_frame(path, 0, "agentview", 55)).all()
        await press(pilot, "space")
        kept(here, 15, group=0, member=0)
        await read_again(pilot)
        assert film(pilot)._title == "u14 g2 m1 ✓ step 55", "paused"
        await press(pilot, "space")
        assert film(pilot)._title == "u15 g0 m0 ✓ step 0"

    driver.drive(app_over(here), steps, driver.LARGE)


def test_in_the_smallest_window_it_is_a_pane_to_enlarge(here):
    training(here, traces=1, keep=["frames"])
    kept(here, 14)

    async def steps(pilot):
        await press(pilot, "2", "tab")
        while pilot.app.focused.id != "film":
            await press(pilot, "tab")
        assert "newest episode: + gives it the window" in driver.screen_text(pilot.app)
        await press(pilot, "+")
        assert film(pilot)._cells.shape[0] > 15
        assert np.ptp(film(pilot)._cells) > 100

    driver.drive(app_over(here), steps, driver.SMALL)


def test_a_training_that_is_over_shows_how_it_ended(here):
    training(here, traces=1, keep=["frames"]).emit("run_end", status="finished")
    kept(here, 14)

    async def steps(pilot):
        await press(pilot, "2")
        assert film(pilot)._title == "u14 g2 m1 ✓ step 55"

    driver.drive(app_over(here), steps, driver.LARGE)


@pytest.mark.parametrize("config", [{}, {"traces": 1}, {"traces": 1, "keep": "odd"}])
def test_without_pictures_there_is_no_pane_and_no_trace_is_opened(here, monkeypatch, config):
    training(here, **config)
    kept(here, 14)
    monkeypatch.setattr("tui.screens.live_film.steps_of", lambda *_: pytest.fail())

    async def steps(pilot):
        await press(pilot, "2")
        await read_again(pilot)
        assert not pilot.app.screen.query("#film")

    driver.drive(app_over(here), steps, driver.LARGE)


def test_it_is_drawn_on_a_real_terminal(here):
    training(here, traces=1, keep=["frames"]).emit("run_end", status="finished")
    kept(here, 14)
    command = [sys.executable, "-P", "-c", "import tui.app; tui.app.main()"]
    with PtyTerminal(command, 140, 40) as terminal:
        terminal.wait_for("smolvla-goal-07")
        terminal.settle()
        terminal.send("2")
        terminal.wait_for("u14 g2 m1 ✓ step 55")
        terminal.wait_for("▀▀▀▀▀▀")


def test_a_trace_that_broke_leaves_the_screen_alone(here):
    training(here, traces=1, keep=["frames"])
    path = kept(here, 14)

    async def steps(pilot):
        path.write_bytes(path.read_bytes()[:3000])
        await press(pilot, "2")
        await read_again(pilot)
        assert "groups of update" in driver.screen_text(pilot.app)

    driver.drive(app_over(here), steps, driver.LARGE)

"""Zoom: one pane gets the window, and gives it back; chosen by key or by click."""

import importlib.util
from pathlib import Path

import pytest

from tui.app import make_app
from tui.keymap import all_screens
from tui.screens.panes import PaneScreen
from tui.screens.runs import RunsScreen


def beside(name):
    path = Path(__file__).parent / "golden" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tui_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scenes, tables, driver = beside("scenes"), beside("neuron_scenes"), beside("driver")
press = driver.press
SIZES = {"80x24": driver.SMALL, "140x40": driver.LARGE}
GRID = pytest.mark.parametrize("size", SIZES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A training, a recording with pictures, a neuron table."""
    folder = tmp_path_factory.mktemp("panes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        tables.write_table(scenes.SHA, layers=2)
        scenes.training(folder)
        scenes.filmed(folder)
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return Path()


def large(pilot):
    widget = pilot.app.screen.maximized
    return widget.id if widget else None


def said(pilot):
    return driver.screen_text(pilot.app).splitlines()[-1]


def rested(pilot):
    """The screen, but for the load of this machine."""
    lines = driver.screen_text(pilot.app).splitlines()
    return [line for line in lines if not line.startswith(" env ")]


def whole(pilot):
    """The large pane fills what is between title and keys."""
    region, size = pilot.app.screen.maximized.region, pilot.app.size
    return (region.x, region.y, region.width, region.height) == (0, 1, size.width, size.height - 2)


def test_every_pane_is_there_and_named():
    for screen in all_screens():
        if issubclass(screen, PaneScreen):
            assert screen.PANES, screen


@GRID
def test_live(here, size):
    async def steps(pilot):
        before = rested(pilot)
        await press(pilot, "tab")
        assert said(pilot) == " success: + gives it the window"
        seen = []
        for key in ("+", *["tab"] * 4):
            await press(pilot, key)
            assert whole(pilot)
            seen.append(large(pilot))
            if seen[-1] == "scenes":
                driver.check(pilot.app, f"live-groups-{size}")
        assert seen == ["course", "scenes", "step", "strip", "news"]
        assert "started" in driver.screen_text(pilot.app), "the first event has room now"
        await press(pilot, "tab")
        assert large(pilot) == "course"
        for key in ("+", "_", "escape"):
            await press(pilot, key)
            assert (large(pilot), rested(pilot)) == (None, before), key
            await press(pilot, "+")

    driver.drive(make_app(here, lambda: scenes.NOW), steps, SIZES[size])


@GRID
def test_episode(here, size):
    async def steps(pilot):
        await press(pilot, "1", "G", "enter", "enter", "+")
        assert (large(pilot), whole(pilot)) == ("seen", True)
        assert said(pilot) == " picture; + brings the other panes back, tab shows the next one"
        picture = pilot.app.screen.query_one("#seen")
        assert len(picture._cells) == pilot.app.size.height - 3, "the picture grew"
        await press(pilot, "l", "w", "w")
        assert large(pilot) is None, "no camera, no picture"
        await press(pilot, "+")
        passed = {large(pilot)}
        while large(pilot) != "tracks" and len(passed) < 3:
            await press(pilot, "tab")
            passed.add(large(pilot))
        assert passed <= {"top", "side", "tracks"}
        assert (large(pilot), whole(pilot)) == ("tracks", True)
        await press(pilot, "l")
        assert "   2/59" in driver.screen_text(pilot.app), "keys act on the screen as before"
        await press(pilot, "escape", "escape")
        assert pilot.app.screen.PLACE == "rollouts"

    driver.drive(make_app(here, lambda: scenes.NOW), steps, SIZES[size])


@GRID
def test_neurons_and_compare(here, size):
    async def steps(pilot):
        await press(pilot, "4", "+")
        assert (large(pilot), whole(pilot)) == ("table", True)
        if size == "80x24":
            await press(pilot, "enter")
            assert large(pilot) is None, "the card takes the place of the table"
            await press(pilot, "+")
        else:
            await press(pilot, "tab")
        assert (large(pilot), whole(pilot)) == ("preview", True)
        assert "vlm layer 0, neuron 0" in driver.screen_text(pilot.app)
        await press(pilot, "slash", *"up", "enter")
        assert "filter: up" in driver.screen_text(pilot.app), "its line is there"
        await press(pilot, "_", "1", "G", "5", "tab", "tab", "+")
        assert (large(pilot), whole(pilot)) == ("preview", True)
        assert "ΔMEED" in driver.screen_text(pilot.app)

    driver.drive(make_app(here, lambda: scenes.NOW), steps, SIZES[size])


def test_a_click_chooses_and_an_empty_screen_has_no_pane(here, tmp_path):
    async def click(pilot):
        await press(pilot, "1")
        await pilot.click("#preview")
        await press(pilot, "+")
        assert (large(pilot), whole(pilot)) == ("preview", True)
        await press(pilot, "tab")
        assert large(pilot) == "table"
        await press(pilot, "colon", *"every pane", "enter")
        assert large(pilot) is None
        await press(pilot, "colon", *"zoom", "enter")
        assert large(pilot) == "table", "the palette has them, too"

    async def empty(pilot):
        assert isinstance(pilot.app.screen, RunsScreen)
        await press(pilot, "+", "tab", "_")
        assert large(pilot) is None
        assert "vla-trace record" in driver.screen_text(pilot.app)

    driver.drive(make_app(here, lambda: scenes.NOW), click)
    driver.drive(make_app(tmp_path, lambda: scenes.NOW), empty)

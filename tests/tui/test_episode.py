"""The Episode screen: pictures, two episodes beside each other, neurons."""

import importlib.util
from pathlib import Path

import h5py
import numpy as np
import pytest

from tui.app import make_app
from tui.data.inside import SHOWN, read_site, site_names
from tui.data.tracks import read_tracks
from tui.screens.episode_tracks import APART_CM, hands_apart_cm, parted_at
from tui.widgets.frame import Frame


def beside(name):
    path = Path(__file__).parent / "golden" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tui_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scenes, driver = beside("scenes"), beside("driver")
drive, press = driver.drive, driver.press
SIZES = {"80x24": driver.SMALL, "140x40": driver.LARGE}
SITE = "vlm.1.ffn_act"


@pytest.fixture(autouse=True)
def filmed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return scenes.filmed(Path())


def app():
    return make_app(Path(), clock=lambda: scenes.NOW)


def text(pilot):
    return driver.screen_text(pilot.app)


def keys(name, *pressed, size=driver.SMALL, check=lambda pilot: None):
    async def steps(pilot):
        await press(pilot, "enter", "enter", *pressed)
        if name:
            driver.check(pilot.app, name)
        check(pilot)

    drive(app(), steps, size)


@pytest.mark.parametrize("size", SIZES)
def test_golden_filmed(size):
    keys(f"episode-filmed-{size}", ">", size=SIZES[size])


@pytest.mark.parametrize("size", SIZES)
def test_golden_beside(size):
    keys(f"episode-beside-{size}", "b", "n", size=SIZES[size])


@pytest.mark.parametrize("size", SIZES)
def test_golden_inside(size):
    keys(f"episode-inside-{size}", "b", "a", size=SIZES[size])


def test_w_shows_each_camera_then_the_height():
    async def steps(pilot):
        await press(pilot, "enter", "enter")
        seen = []
        for _ in range(4):
            filmed = pilot.app.screen.has_class("-filmed")
            seen.append(pilot.app.screen.query_one("#seen", Frame)._title if filmed else "")
            await press(pilot, "w")
        assert [title.partition(",")[0] for title in seen] == [
            "agentview",
            "wrist",
            "",
            "agentview",
        ]

    drive(app(), steps, driver.LARGE)


def test_the_picture_follows_the_cursor():
    async def steps(pilot):
        await press(pilot, "enter", "enter")
        frame = pilot.app.screen.query_one("#seen", Frame)
        before = frame._cells.copy()
        await press(pilot, ">", ">")
        assert frame._title == "agentview, step 20"
        assert (frame._cells != before).any()
        await press(pilot, "h")
        assert frame._title == "agentview, step 15"

    drive(app(), steps)


def test_it_plays_to_the_end_and_stops():
    async def steps(pilot):
        await press(pilot, "enter", "enter", "G", "h", "h", "space")
        for _ in range(40):
            await pilot.pause(0.05)
            if pilot.app.screen._playing is None:
                break
        assert pilot.app.screen._cursor == 59
        await press(pilot, "space", "space")
        assert pilot.app.screen._playing is None

    drive(app(), steps)


def test_two_beside_each_other_part_where_the_hands_are_apart():
    tracks = [read_tracks(path, 0) for path in sorted(Path("traces").glob("*.h5"))]
    apart = hands_apart_cm(*tracks)
    expected = int(np.flatnonzero(apart > APART_CM)[0])
    assert parted_at(*tracks) == expected and parted_at(tracks[0], tracks[0]) is None

    def check(pilot):
        assert f"2 cm at step {expected}" in text(pilot)
        assert f" {expected}/59" in text(pilot)

    keys("", "b", "n", check=check)


def test_p_changes_their_places_and_b_leaves_the_first():
    async def steps(pilot):
        await press(pilot, "enter", "enter", "b")
        assert "baseline #0 ✓ yes  60 steps beside fast α=8 #0" in text(pilot)
        await press(pilot, "p")
        assert "fast α=8 #0 ✓ yes  48 steps beside baseline #0" in text(pilot)
        await press(pilot, "b")
        assert "beside" not in text(pilot).splitlines()[0]
        assert "fast α=8 #0" in text(pilot).splitlines()[0]
        await press(pilot, "n")
        assert "b shows its pair beside it" in text(pilot)

    drive(app(), steps)


def test_neurons_are_those_that_are_steered_then_those_that_moved_most():
    base, steered = sorted(Path("traces").glob("*.h5"))
    assert site_names(base) == ("vlm.0.ffn_act", SITE)
    found = read_site(steered, 0, SITE)
    assert found.neurons[:4] == found.steered == (3, 5, 8, 13) and len(found.neurons) == SHOWN
    with h5py.File(steered) as file:
        group = file[f"activations/{SITE}"]
        std = np.sqrt(group["m2"][:] / group["n"][:])
        expected = (group["values"][:48].astype(float) - group["mean"][:]) / std
    np.testing.assert_allclose(found.values, expected[:, found.neurons])
    rest = np.abs(expected).max(axis=0)
    assert found.neurons[4] == max(set(range(16)) - set(found.steered), key=lambda n: rest[n])
    same = read_site(base, 0, SITE, found.neurons)
    assert (same.neurons, same.steered) == (found.neurons, ())


def test_a_broken_picture_is_a_sentence():
    path = next(Path("traces").glob("*baseline*"))
    with h5py.File(path, "r+") as file:
        file["frames/agentview/data"][:] = 0

    def check(pilot):
        assert "not a readable PNG" in text(pilot)

    keys("", check=check)


def test_without_pictures_and_neurons_the_keys_say_so(tmp_path, monkeypatch):
    other = tmp_path / "other"
    scenes.write_trace(other / "traces" / "a.h5", steered=False, numbers=[0])
    monkeypatch.chdir(other)

    async def steps(pilot):
        await press(pilot, "enter", "enter", "w")
        assert "kept no pictures (record --keep frames)" in text(pilot)
        await press(pilot, "b")
        assert "no other episode has its pair key" in text(pilot)
        await press(pilot, "z")
        assert "log p" not in text(pilot)
        await press(pilot, "z")
        assert "log p" in text(pilot)

    drive(app(), steps)

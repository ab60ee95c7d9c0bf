"""Pictures: which one a step shows, what a broken one says, and which cells repaint."""

import asyncio
import io

import numpy as np
import pytest
from PIL import Image
from textual.app import App
from textual.geometry import Region

from traces.errors import UserError
from tui.data.frames import decoded, newest, read_frame, read_frame_steps
from tui.widgets.frame import Frame, half_blocks


def png(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def plain(value, height=8, width=8):
    return np.full((height, width, 3), value, np.uint8)


@pytest.fixture
def filmed(traces, tmp_path):
    """Two episodes; the second one has pictures at steps 0, 2 and 3."""
    frames = {"frames": {"wrist": ([0, 2, 3], [png(plain(v)) for v in (0, 80, 160)])}}
    none = {"frames": {"wrist": ([], [])}}
    episodes = [traces.episode("p0", [1.0] * 3, **none), traces.episode("p1", [1.0] * 5, **frames)]
    return traces.write(tmp_path / "a.h5", episodes)


def test_a_picture_is_read_by_its_step_within_the_episode(filmed):
    assert read_frame_steps(filmed, 0) == {}
    steps = read_frame_steps(filmed, 1)
    assert steps["wrist"].tolist() == [0, 2, 3]
    assert [newest(steps["wrist"], t) for t in (-1, 0, 1, 2, 3, 4)] == [0, 0, 0, 2, 3, 3]
    assert read_frame(filmed, 1, "wrist", 2).tolist() == plain(80).tolist()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (b"", "not a readable PNG"),
        (png(plain(0))[:30], "not a readable PNG"),
        (b"GIF89a" + bytes(40), "not a readable PNG"),
        (png(plain(0)).replace(b"IHDR", b"IHDX"), "not a readable PNG"),
    ],
)
def test_what_is_no_picture_is_a_sentence(file, said):
    with pytest.raises(UserError, match=said):
        decoded(file)


def test_a_picture_that_would_fill_the_memory_is_not_decoded():
    huge = io.BytesIO()
    Image.new("1", (20_000, 1_000)).save(huge, "PNG")
    with pytest.raises(UserError, match="20000 x 1000 is not shown"):
        decoded(huge.getvalue())


def test_grey_and_transparent_pictures_become_colours():
    for mode in ("L", "RGBA", "P", "1"):
        file = io.BytesIO()
        Image.new(mode, (3, 2)).save(file, "PNG")
        assert decoded(file.getvalue()).shape == (2, 3, 3)


def test_a_cell_is_two_pixels_and_proportions_are_kept():
    picture = np.zeros((4, 2, 3), np.uint8)
    picture[:, 0] = 200
    cells = half_blocks(picture, 20, 8)
    assert cells.shape == (4, 4, 2, 3)  # 8 pixels high, so 4 wide
    assert (cells[:, :2] == 200).all() and (cells[:, 2:] == 0).all()
    assert half_blocks(picture, 0, 8).size == half_blocks(picture, 9, 1).size == 0
    assert half_blocks(np.zeros((1, 500, 3), np.uint8), 10, 10).shape == (1, 10, 2, 3)


def drawn(steps, size=(12, 7)):
    frame = Frame(id="frame")

    class Bare(App):
        CSS = "Frame { width: 100%; height: 100%; } .lines--dim { }"

        def compose(self):
            yield frame

    async def go():
        async with Bare().run_test(size=size) as pilot:
            await pilot.pause()
            await steps(frame, pilot)

    asyncio.run(go())


def test_the_picture_is_as_large_as_fits():
    async def steps(frame, pilot):
        frame.show("agentview, step 0", plain(120))
        lines = [frame.render_line(y) for y in range(frame.size.height)]
        assert lines[0].text.rstrip() == "agentview, …"
        assert [line.text.count("▀") for line in lines[1:]] == [12] * 6
        (first, *_) = lines[1]
        assert first.style.color.triplet == first.style.bgcolor.triplet == (120, 120, 120)
        frame.show("none", "no pictures of it")
        assert frame.render_line(1).text.rstrip() == "no pictures…"

    drawn(steps)


def test_only_cells_that_changed_repaint(monkeypatch):
    async def steps(frame, pilot):
        picture = plain(120, 12, 12)
        frame.show("a", picture)
        regions = []
        monkeypatch.setattr(frame, "refresh", lambda *found: regions.extend(found))
        other = picture.copy()
        other[4:6, 3:5] = 250
        frame.show("a", other)
        assert regions == [Region(3, 3, 2, 1)]
        regions.clear()
        frame.show("a", other + np.uint8(1))  # less than a colour can tell
        assert regions == []

    drawn(steps)

"""The pictures of the docs: a terminal's cells as pixels."""

import io
import runpy
from pathlib import Path

import numpy as np
import pyte
import pytest
from PIL import Image
from pyte.screens import Char

CELLS = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "cells.py"))
WIDTH, HEIGHT = CELLS["WIDTH"], CELLS["HEIGHT"]
cell, coverage, draw = CELLS["cell"], CELLS["coverage"], CELLS["draw"]


def screen_of(text, columns=8, rows=2):
    screen = pyte.Screen(columns, rows)
    pyte.Stream(screen).feed(text)
    return screen


def test_a_cell_has_the_colours_of_the_buffer():
    screen = screen_of("\x1b[38;2;200;10;20;48;2;0;0;90m▀\x1b[7m▀\x1b[0m▀")
    picture = draw(screen)
    assert picture.shape == (2 * HEIGHT, 8 * WIDTH, 3)
    top, bottom = picture[0, ::WIDTH].tolist(), picture[HEIGHT - 1, ::WIDTH].tolist()
    assert top[:2] == [[200, 10, 20], [0, 0, 90]]
    assert bottom[:2] == [[0, 0, 90], [200, 10, 20]]
    ink, paper = (list(bytes.fromhex(CELLS[name])) for name in ("INK", "PAPER"))
    assert (top[2], bottom[2], top[3]) == (ink, paper, paper)


@pytest.mark.parametrize(
    ("character", "share"),
    [
        *(("█", 1), ("▀", 0.5), ("▄", 0.5), ("▂", 0.25), ("▌", 4 / 9), ("▐", 5 / 9), ("░", 0.25)),
        *((" ", 0), ("⠀", 0), ("⣿", 8 * 9 / 162), ("▚", 0.5), ("▙", 1 - 5 / 18)),
    ],
)
def test_blocks_and_dots_cover_their_share_of_a_cell(character, share):
    assert coverage(character, False).mean() == pytest.approx(share, abs=0.03)


def test_halves_make_a_whole():
    for one, other in ("▀▄", "▌▐", "▘▟", "▝▙", "▖▜", "▗▛", "▚▞"):
        assert (coverage(one, False) + coverage(other, False) == 1).all()


def test_braille_dots_are_where_unicode_puts_them():
    upper_left, lower_right = coverage("⠁", False), coverage("⢀", False)
    assert upper_left[: HEIGHT // 4, : WIDTH // 2].sum() == upper_left.sum() > 0
    assert lower_right[-HEIGHT // 4 :, WIDTH // 2 :].sum() == lower_right.sum() > 0
    every = [coverage(chr(0x2800 + code), False).tobytes() for code in range(256)]
    assert len(set(every)) == 256


def test_lines_meet_at_the_edges_of_their_cells():
    assert (coverage("─", False)[:, 0] == coverage("┼", False)[:, -1]).all()
    assert (coverage("│", False)[0] == coverage("┤", False)[-1]).all()
    assert coverage("┌", False)[:, 0].sum() == 0 < coverage("┌", False)[:, -1].sum()


def test_letters_come_from_a_font_and_what_it_lacks_is_said():
    plain, bold = coverage("e", False), coverage("e", True)
    assert 0 < plain.sum() < bold.sum()
    assert all(coverage(c, False).any() for c in "✓✗◆▸▼●○Δ…·±→≤λ")
    with pytest.raises(CELLS["NoGlyph"], match=r"U\+6F22"):
        coverage("漢", False)


def test_underlined_text_is_underlined():
    line = cell(Char(" ", "ff0000", underscore=True))
    assert (line == [255, 0, 0]).all(axis=-1).sum() == WIDTH


def test_the_same_screen_gives_the_same_bytes():
    def file():
        saved = io.BytesIO()
        text = "\x1b[1;31mvla\x1b[0m ⡇│▄✓"
        Image.fromarray(draw(screen_of(text))).save(saved, "PNG")
        return saved.getvalue()

    assert file() == file()
    assert np.asarray(Image.open(io.BytesIO(file()))).any()

"""Cells of a terminal as pixels: what pyte read back from a program, drawn with its colours.

Lines, blocks and braille are drawn by hand, so that they meet at the edges of their cells; all
other characters come from DejaVu Sans Mono, which matplotlib brings along.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import pyte
from PIL import Image, ImageDraw, ImageFont
from pyte.screens import Char

WIDTH, HEIGHT = 9, 18
"""Of a cell, in pixels."""
POINTS = 15
"""Font size at which a character of DejaVu Sans Mono is WIDTH pixels wide."""
INK, PAPER = "e0e0e0", "121212"
"""Colours where the program chose none."""
NAMED = {
    "black": "000000",
    "red": "cd3131",
    "green": "0dbc79",
    "brown": "e5e510",
    "blue": "2472c8",
    "magenta": "bc3fbc",
    "cyan": "11a8cd",
    "white": "e5e5e5",
}
"""The eight colours, by pyte's names of them; a program that may use more says them in full."""
LINES = dict.fromkeys("─━", "lr") | dict.fromkeys("│┃", "ud")
LINES |= {"┌": "rd", "┐": "ld", "└": "ru", "┘": "lu", "╭": "rd", "╮": "ld", "╰": "ru", "╯": "lu"}
LINES |= {"├": "udr", "┤": "udl", "┬": "lrd", "┴": "lru", "┼": "lrud", "╴": "l", "╶": "r"}
LINES |= {"╵": "u", "╷": "d"}
"""The arms of a line, out of its cell's middle: left, right, up, down."""
QUARTERS = dict(zip("▘▝▖▗▚▞▛▜▙▟", (1, 2, 4, 8, 9, 6, 7, 11, 13, 14), strict=True))
"""Bits: upper left, upper right, lower left, lower right."""
SHADES = {"░": 0.25, "▒": 0.5, "▓": 0.75}
DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
"""Column and row of the eight bits of a braille character."""


class NoGlyph(ValueError):
    """A character that the font lacks."""


def rgb(colour: str, otherwise: str) -> np.ndarray:
    """Return red, green, blue (0 to 255) of a colour as pyte names it."""
    code = otherwise if colour == "default" else NAMED.get(colour, colour)
    return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], np.float32)


def block(character: str) -> np.ndarray | None:
    """Return how much of each pixel a block element covers, 0 to 1; None for what is none."""
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    code = ord(character)
    if character == "▀":
        mask[: HEIGHT // 2] = 1
    elif "▁" <= character <= "█":
        mask[HEIGHT - round(HEIGHT * (code - 0x2580) / 8) :] = 1
    elif "▉" <= character <= "▏":
        mask[:, : round(WIDTH * (0x2590 - code) / 8)] = 1
    elif character == "▐":
        mask[:, WIDTH // 2 :] = 1
    elif character == "▔":
        mask[: round(HEIGHT / 8)] = 1
    elif character == "▕":
        mask[:, -1:] = 1
    elif character in SHADES:
        mask[:] = SHADES[character]
    elif character in QUARTERS:
        for bit in range(4):
            rows = slice(HEIGHT // 2) if bit < 2 else slice(HEIGHT // 2, None)
            columns = slice(WIDTH // 2, None) if bit % 2 else slice(WIDTH // 2)
            mask[rows, columns] = QUARTERS[character] >> bit & 1
    else:
        return None
    return mask


def line(character: str) -> np.ndarray | None:
    """Return the coverage of a line of boxes; None for what is none."""
    if character not in LINES:
        return None
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    x, y, thick = WIDTH // 2, HEIGHT // 2, 2 if character in "━┃" else 1
    arms = {
        "l": (slice(y, y + thick), slice(x + 1)),
        "r": (slice(y, y + thick), slice(x, None)),
        "u": (slice(y + 1), slice(x, x + thick)),
        "d": (slice(y, None), slice(x, x + thick)),
    }
    for arm in LINES[character]:
        mask[arms[arm]] = 1
    return mask


def braille(character: str) -> np.ndarray | None:
    """Return the coverage of a braille pattern, dots of 3 x 3 pixels; None for what is none."""
    if not "⠀" <= character <= "⣿":
        return None
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    for bit, (column, row) in enumerate(DOTS):
        if (ord(character) - 0x2800) >> bit & 1:
            x, y = 1 + column * WIDTH // 2, 1 + row * HEIGHT // 4
            mask[y : y + 3, x : x + 3] = 1
    return mask


@lru_cache(2)
def font(bold: bool) -> ImageFont.FreeTypeFont:
    """Return the font, plain or bold."""
    name = f"DejaVuSansMono{'-Bold' if bold else ''}.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, POINTS)


def letter(character: str, bold: bool) -> np.ndarray:
    """Return the coverage of a character of the font."""
    drawn = written(character, bold)
    if (drawn == written("\uffff", bold)).all():
        raise NoGlyph(f"no glyph for {character!r} (U+{ord(character):04X})")
    return drawn


def written(character: str, bold: bool) -> np.ndarray:
    """Return what the font draws, its box for a missing character included."""
    image = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(image).text((0, 14), character, 255, font(bold), anchor="ls")
    return np.asarray(image, np.float32) / 255


@lru_cache(4096)
def coverage(character: str, bold: bool) -> np.ndarray:
    """Return how much ink each pixel of a cell has (HEIGHT, WIDTH), 0 to 1."""
    for drawn in (block, line, braille):
        if (mask := drawn(character)) is not None:
            return mask
    return letter(character, bold) if character.strip() else np.zeros((HEIGHT, WIDTH), np.float32)


def cell(char: Char) -> np.ndarray:
    """Return one cell (HEIGHT, WIDTH, 3) in its colours."""
    ink, paper = rgb(char.fg, INK), rgb(char.bg, PAPER)
    if char.reverse:
        ink, paper = paper, ink
    mask = coverage(char.data[:1] or " ", char.bold)
    if char.underscore or char.strikethrough:
        mask = mask.copy()
        mask[-2 if char.underscore else HEIGHT // 2] = 1
    return (paper + mask[..., None] * (ink - paper)).round().astype(np.uint8)


def draw_row(chars: Sequence[Char]) -> np.ndarray:
    """Return a row of cells (HEIGHT, WIDTH * columns, 3)."""
    return np.hstack([cell(char) for char in chars])


def draw(screen: pyte.Screen) -> np.ndarray:
    """Return the whole screen (HEIGHT * rows, WIDTH * columns, 3)."""
    columns = range(screen.columns)
    return np.vstack(
        [draw_row([screen.buffer[y][x] for x in columns]) for y in range(screen.lines)]
    )

"""Pictures by the kitty graphics protocol (sw.kovidgoyal.net/kitty/graphics-protocol).

A picture is sent as PNG under a number. Cells that hold a placeholder, with their row and column as
combining characters and the number as their colour, show their part of it: what is drawn over them
covers it, as it would cover text.
"""

from __future__ import annotations

import io
import os
import re
import select
import sys
import termios
import time
import tty
from base64 import standard_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.color import EIGHT_BIT_PALETTE, Color

if TYPE_CHECKING:
    import numpy as np

TERMS = ("xterm-kitty", "xterm-ghostty")
"""Terminals that know placeholders, by TERM; others with the protocol would print them."""
ANSWER_S = 1.0
"""How long an answer may take."""
QUESTION = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\" + b"\x1b[c"
"""Would you show this pixel?  Then what every terminal answers: nobody waits for silence."""
GRANTED, END = b"\x1b_Gi=31;OK\x1b\\", re.compile(rb"\x1b\[\?[0-9;]*c")
CHUNK = 4096
PLACEHOLDER = "\U0010eeee"
MOST_PIXELS = 256
"""Of a side: larger pictures are made smaller before they are sent."""
RANGES = """
305 30d-30e 310 312 33d-33f 346 34a-34c 350-352 357 35b 363-36f 483-487 592-595 597-599 59c-5a1
5a8-5a9 5ab-5ac 5af 5c4 610-617 657-65b 65d-65e 6d6-6dc 6df-6e2 6e4 6e7-6e8 6eb-6ec 730 732-733
735-736 73a 73d 73f-741 743 745 747 749-74a 7eb-7f1 7f3 816-819 81b-823 825-827 829-82d 951 953-954
f82-f83 f86-f87 135d-135f 17dd 193a 1a17 1a75-1a7c 1b6b 1b6d-1b73 1cd0-1cd2 1cda-1cdb 1ce0
1dc0-1dc1 1dc3-1dc9 1dcb-1dcc 1dd1-1de6 1dfe 20d0-20d1 20d4-20d7 20db-20dc 20e1 20e7 20e9 20f0
2cef-2cf1 2de0-2dff a66f a67c-a67d a6f0-a6f1 a8e0-a8f1 aab0 aab2-aab3 aab7-aab8 aabe-aabf aac1
fe20-fe26 10a0f 10a38 1d185-1d189 1d1aa-1d1ad 1d242-1d244
"""
"""The protocol's rowcolumn-diacritics.txt."""
NUMBERS = "".join(
    chr(code)
    for first, _, last in (part.partition("-") for part in RANGES.split())
    for code in range(int(first, 16), int(last or first, 16) + 1)
)
"""The combining character of each row and column, from 0."""


def shows_pictures(environ: Mapping[str, str]) -> bool:
    """Ask the terminal whether it shows pictures, if its name says that it might.

    Others are not asked: what a slow line answers too late would be taken for keys. Must come
    before the screens, which read what the terminal sends; keys pressed meanwhile are lost.
    """
    if environ.get("TERM") not in TERMS:
        return False
    said, deadline = b"", time.monotonic() + ANSWER_S
    into, out = sys.__stdin__.fileno(), sys.__stderr__.fileno()
    before = termios.tcgetattr(into)
    try:
        tty.setcbreak(into, termios.TCSANOW)
        os.write(out, QUESTION)
        while not END.search(said) and (left := deadline - time.monotonic()) > 0:
            if select.select([into], [], [], left)[0]:
                said += os.read(into, 1024)
    except OSError:
        return False
    finally:
        termios.tcsetattr(into, termios.TCSANOW, before)
    return GRANTED in said


@dataclass(frozen=True)
class Slot:
    """A number for one picture at a time, and the colour that says it."""

    number: int
    colour: Color

    @classmethod
    def of(cls, entry: int, few_colours: bool) -> Slot:
        """Return the slot of an entry (17 or more) of the 256 colours.

        Args:
            entry: differs from picture to picture.
            few_colours: whether the terminal is sent the entry, not red, green and blue.
        """
        colour = Color.from_rgb(*EIGHT_BIT_PALETTE[entry])
        red, green, blue = colour.triplet
        return cls(entry if few_colours else red << 16 | green << 8 | blue, colour)


def sent(picture: np.ndarray, number: int, columns: int, rows: int) -> str:
    """Return what makes the placeholders of a number show a picture, (height, width, 3) uint8."""
    from PIL import Image

    image, file = Image.fromarray(picture), io.BytesIO()
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    image.save(file, "PNG")
    data = standard_b64encode(file.getvalue()).decode()
    parts = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    keys = [f"a=T,U=1,q=2,f=100,i={number},c={columns},r={rows},", *[""] * (len(parts) - 1)]
    more = [*[1] * (len(parts) - 1), 0]
    return "".join(
        f"\x1b_G{key}m={m};{part}\x1b\\" for key, m, part in zip(keys, more, parts, strict=True)
    )


def placeholders(row: int, columns: int) -> list[str]:
    """Return the cells of one row of a picture."""
    return [PLACEHOLDER + NUMBERS[row] + NUMBERS[column] for column in range(columns)]

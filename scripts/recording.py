"""A tour of `vla-tui`: the real program on a real terminal, its keys pressed as a person would.

`tour` writes one gif of it, `stills` a PNG of each screen; pictures.py says over which runs.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cells import HEIGHT, PAPER, draw, draw_row
from PIL import Image
from pyte.screens import Char

ROOT = Path(__file__).parents[1]
PtyTerminal = runpy.run_path(str(ROOT / "tests/tui/pty_terminal.py"))["PtyTerminal"]
PROGRAM = [str(Path(sys.executable).with_name("vla-tui"))]
SIZE = (104, 30)
STILL_SIZES = ((140, 40), (80, 24))
ESC, ENTER = "\x1b", "\r"
PRINTED = {ESC: "esc", ENTER: "enter", " ": "space"}


@dataclass(frozen=True)
class Moment:
    """Keys, and what is seen once they are pressed."""

    keys: str
    says: str
    wait: str = ""
    """A text that the screen then shows."""
    seconds: float = 1.4
    each: float = 0.0
    """Seconds that every key of several is seen; 0: only the last one is."""
    still: str = ""
    """Name of the picture of this moment in docs/pictures."""


TOUR = (
    Moment("", "every run here, with intervals", "finished", 1.6, still="runs"),
    Moment("2", "a training: success, groups, optimiser", "optimiser", 1.8, still="live"),
    Moment("[[[", "earlier updates", each=0.25, seconds=0.5),
    Moment("jjj", "groups: ✓ ✗ of each episode, those that teach nothing", each=0.25, seconds=1.2),
    Moment("1g", "back to the runs", "vla-tui", 0.6),
    Moment(ENTER, "rollouts: steered, told, random, baseline", "pair", 1.2, still="rollouts"),
    Moment("jj", "one that was steered", each=0.2, seconds=0.6),
    Moment(ENTER, "an episode, with what the policy saw", "image", 1.2),
    Moment("b", "beside its pair: same scene, same noise", "parted", 1.0),
    Moment("n", "where the two hands part", seconds=1.2),
    Moment("l" * 10, "one cursor for both", each=0.12, seconds=1.2, still="episode"),
    Moment("4", "neurons, in words", "top tokens", 1.2),
    Moment("/concept=fast" + ENTER, "those that speak of fast", "filter: concept=fast", 0.8, 0.06),
    Moment("s", "by what steering them did", seconds=1.4, still="neurons"),
    Moment(ENTER, "a neuron: tokens, doses, shift, activations", seconds=1.8),
    Moment(ESC + "1gjj k c", "base and fine-tuned, pair by pair", "McNemar", 1.6, 0.15),
    Moment("]", "which neurons moved, layer by layer", "most in", 2.0, still="compare"),
)


def pressed(keys: str) -> str:
    """Return keys as printed on a keyboard."""
    return " ".join(PRINTED.get(key, key) for key in keys)


def watched(folder: Path, size: tuple[int, int]) -> Iterator[tuple[Moment, bool, np.ndarray, str]]:
    """Walk through the tour; yield each moment, whether it is its last picture, and the picture.

    Typing is slower than in a film: the program gets every key alone and rests after it.
    """
    with PtyTerminal(PROGRAM, *size, cwd=folder) as terminal:
        for moment in TOUR:
            for i, key in enumerate(moment.keys or [""]):
                last = i + 1 >= len(moment.keys)
                if key:
                    terminal.press(key)
                if last and moment.wait:
                    terminal.wait_for(moment.wait)
                if last:
                    terminal.settle(1.5)
                if last or moment.each:
                    yield moment, last, draw(terminal.screen), pressed(key)


def caption(keys: str, says: str) -> np.ndarray:
    """Return the line below the film: the keys pressed, and what is seen."""
    key = f" {keys} ".center(7) if keys else " " * 7
    text = f"  {says}".ljust(SIZE[0] - len(key))
    chars = [Char(c, "121212", "ffa62b" if keys else PAPER, True) for c in key]
    return draw_row(chars + [Char(c, "ffffff", PAPER) for c in text])


def tour(folder: Path, path: Path) -> None:
    """Film the tour over the runs of a folder into one gif."""
    frames, milliseconds = [], []
    for moment, last, picture, key in watched(folder, SIZE):
        gap = np.full((HEIGHT // 2, picture.shape[1], 3), int(PAPER[:2], 16), np.uint8)
        frames.append(np.vstack([picture, gap, caption(key, moment.says), gap]))
        milliseconds.append(round(1000 * (moment.seconds if last else moment.each)))
    write_gif(frames, milliseconds, path)


def write_gif(frames: list[np.ndarray], milliseconds: list[int], path: Path) -> None:
    """Write a film with one palette, the best for all its frames together."""
    palette = Image.fromarray(np.vstack(frames)).quantize(255, Image.Quantize.MEDIANCUT)
    images = [
        Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames
    ]
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=milliseconds, loop=0, optimize=True
    )


def stills(folder: Path, pictures: Path) -> None:
    """Write a PNG of each screen, in a wide and in the smallest window."""
    for columns, rows in STILL_SIZES:
        for moment, last, picture, _ in watched(folder, (columns, rows)):
            if last and moment.still:
                image = Image.fromarray(picture).quantize(256, dither=Image.Dither.NONE)
                image.save(pictures / f"{moment.still}-{columns}x{rows}.png", optimize=True)

"""A tour of `vla-tui`: the real program on a real terminal, its keys pressed as a person would.

`tour` writes one gif of it, `stills` a PNG of each screen; pictures.py says over which runs.
"""

from __future__ import annotations

import re
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
UNREADY = re.compile(r"(computing|reading) .*…")
"""What screens say while a thread works for them."""
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


@dataclass(frozen=True)
class Shot:
    """A picture of the terminal, the keys that led to it, and what it shows."""

    picture: np.ndarray
    keys: str
    says: str
    seconds: float
    still: str = ""


TOUR = (
    Moment("", "every run here, with intervals", "finished", 1.6, still="runs"),
    Moment("2", "a training: success, groups, optimiser", "optimiser", 1.8, still="live"),
    Moment("[[[", "earlier updates", each=0.25, seconds=0.5),
    Moment("jjj", "groups: ✓ ✗ of each episode, those that teach nothing", each=0.25, seconds=1.2),
    Moment("1g", "back to the runs", "vla-tui", 0.6),
    Moment(ENTER, "rollouts: steered, told, random, baseline", "pair", 1.2, still="rollouts"),
    Moment("jj", "one that was steered", each=0.2, seconds=0.6),
    Moment(ENTER, "an episode, with what the policy saw", "image", 1.2),
    Moment("b", "beside its control: same scene, same noise", "parted", 1.0),
    Moment("n", "where the two hands part", seconds=1.2),
    Moment("l" * 7, "one cursor for both", each=0.15, seconds=1.2, still="episode"),
    Moment("4", "neurons, in words", "top tokens", 1.2),
    Moment("/concept=fast" + ENTER, "those that speak of fast", "filter: concept=fast", 1.2),
    Moment("s", "by what steering them did", seconds=1.4, still="neurons"),
    Moment(ENTER, "a neuron: tokens, doses, shift, activations", seconds=1.8),
    Moment(ESC + "1gjj k c", "base and fine-tuned, pair by pair", "[pairs]", 1.6, 0.15),
    Moment("]", "which neurons moved, layer by layer", "median |d|", 2.0, still="compare"),
)


def pressed(keys: str) -> str:
    """Return keys as printed on a keyboard."""
    return " ".join("".join(f" {PRINTED[k]} " if k in PRINTED else k for k in keys).split())


def watched(folder: Path, size: tuple[int, int]) -> Iterator[Shot]:
    """Walk through the tour and yield what is seen; the program may take its time for every key."""
    with PtyTerminal(PROGRAM, *size, cwd=folder) as terminal:
        for moment in TOUR:
            for key in moment.keys[:-1]:
                terminal.press(key)
                if moment.each:
                    yield Shot(draw(terminal.screen), pressed(key), moment.says, moment.each)
            if moment.keys:
                terminal.press(moment.keys[-1])
            terminal.wait_for(moment.wait)
            terminal.wait_for(lambda text: not UNREADY.search(text), 120)
            terminal.settle(1.5)
            keys = pressed(moment.keys[-1:] if moment.each else moment.keys)
            yield Shot(draw(terminal.screen), keys, moment.says, moment.seconds, moment.still)


def caption(keys: str, says: str) -> np.ndarray:
    """Return the line below the film: the keys pressed, and what is seen."""
    key = f" {keys} ".center(7) if keys else " " * 7
    text = f"  {says}".ljust(SIZE[0] - len(key))
    chars = [Char(c, "121212", "ffa62b" if keys else PAPER, True) for c in key]
    return draw_row(chars + [Char(c, "ffffff", PAPER) for c in text])


def tour(folder: Path, path: Path) -> None:
    """Film the tour over the runs of a folder into one gif."""
    frames, milliseconds = [], []
    for shot in watched(folder, SIZE):
        gap = np.full((HEIGHT // 2, shot.picture.shape[1], 3), int(PAPER[:2], 16), np.uint8)
        frames.append(np.vstack([shot.picture, gap, caption(shot.keys, shot.says), gap]))
        milliseconds.append(round(1000 * shot.seconds))
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
        for shot in watched(folder, (columns, rows)):
            if shot.still:
                image = Image.fromarray(shot.picture).quantize(256, dither=Image.Dither.NONE)
                image.save(pictures / f"{shot.still}-{columns}x{rows}.png", optimize=True)

"""A picture as half blocks, two pixels a cell; only cells that changed are repainted.

Without colours or half blocks a cell is a character, as dense as its pixels are bright; where the
terminal shows pictures it gets the picture itself.
"""

import numpy as np
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.strip import Strip

from tui.kitty import NUMBERS, Slot, placeholders, sent
from tui.widgets.lines import LineWidget, fit

UPPER = "▀"
COARSE = 0xF8
"""Bits of a colour that are kept: a little noise repaints nothing."""


class Frame(LineWidget):
    """One picture under a title, as large as fits; a sentence where there is none."""

    def __init__(self, *, id: str, density: str = "", slot: Slot | None = None) -> None:
        """Show nothing yet.

        Args:
            id: of the widget.
            density: characters from dark to bright, for no half blocks.
            slot: under which the terminal is sent the picture itself, if it shows any.
        """
        super().__init__(id=id)
        self._density = density
        self._slot = slot
        self._title = ""
        self._picture: np.ndarray | str = ""
        self._cells = np.zeros((0, 0, 2, 3), np.uint8)
        self._drawn_for = Size(0, 0)

    def show(self, title: str, picture: np.ndarray | str) -> None:
        """Show another picture, (height, width, 3) uint8, or say why there is none."""
        if title != self._title:
            self._title = title
            self.refresh_line(0)
        if picture is not self._picture:
            self._picture = picture
            self._draw()

    def on_resize(self) -> None:
        """Draw for the new size."""
        self._draw()
        self.refresh()

    def _draw(self) -> None:
        self._drawn_for = self.size
        room = min(self.size.width, len(NUMBERS)), 2 * min(self.size.height - 1, len(NUMBERS))
        old = self._cells
        if isinstance(self._picture, str):
            self._cells = np.zeros((0, 0, 2, 3), np.uint8)
        else:
            self._cells = half_blocks(self._picture, *room)
        if old.shape != self._cells.shape or not self._cells.size:
            self._send()
            self.refresh()
            return
        changed = (old != self._cells).any(axis=(2, 3))
        if self._slot and changed.any():
            self._send()
            self.refresh(Region(0, 1, 1, len(self._cells)))  # lines written to are drawn again
            return
        regions = [
            Region(first, y + 1, stop - first, 1)
            for y in np.flatnonzero(changed.any(axis=1)).tolist()
            for first, stop in spans_of(changed[y])
        ]
        if regions:
            self.refresh(*regions)

    def _send(self) -> None:
        """Hand the picture to the terminal, before the cells that will show it."""
        if self._slot and self._cells.size:
            lines, columns = self._cells.shape[:2]
            self.app._driver.write(sent(self._picture, self._slot.number, columns, lines))

    def render_line(self, y: int) -> Strip:
        """Draw the title, or two rows of pixels."""
        if self._drawn_for != self.size:  # a widget that was just mounted may hear of no size
            self._draw()
        if y == 0:
            return self.strip([(fit(self._title, self.size.width), "title")])
        if isinstance(self._picture, str):
            return self.strip([(fit(self._picture, self.size.width), "dim")] if y == 1 else ())
        if y > len(self._cells):
            return self.strip(())
        if self._density:
            return self.strip([(shaded(self._cells[y - 1], self._density), "")])
        if self._slot:
            style = Style(color=self._slot.colour)
            cells = placeholders(y - 1, self._cells.shape[1])
            return self._filled([Segment(cell, style) for cell in cells])
        segments = [Segment(UPPER * n, _style(*cell)) for n, cell in _runs(self._cells[y - 1])]
        return self._filled(segments)

    def _filled(self, segments: list[Segment]) -> Strip:
        return Strip(segments).adjust_cell_length(self.size.width, self.rich_style)


def half_blocks(picture: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """Scale a picture into columns x rows pixels, its proportions kept.

    Returns:
        (lines, columns', 2, 3) uint8: the upper and the lower colour of every cell.
    """
    height, width = picture.shape[:2]
    if min(height, width, columns, rows // 2) < 1:
        return np.zeros((0, 0, 2, 3), np.uint8)
    from PIL import Image

    scale = min(columns / width, rows / height)
    across = max(1, int(width * scale))
    down = max(2, int(height * scale) // 2 * 2)
    small = Image.fromarray(picture).resize((across, down), Image.Resampling.BOX)
    pixels = np.asarray(small) & COARSE
    return pixels.reshape(down // 2, 2, across, 3).transpose(0, 2, 1, 3)


def spans_of(changed: np.ndarray) -> list[tuple[int, int]]:
    """Return where cells changed, [first, stop), from (columns,) bool."""
    edges = np.flatnonzero(np.diff(changed, prepend=False, append=False))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def shaded(cells: np.ndarray, density: str) -> str:
    """Return one character a cell, (columns, 2, 3) uint8, from a row of them dark to bright."""
    luma = cells.mean(axis=1) @ (0.299, 0.587, 0.114)  # ITU-R BT.601
    return "".join(density[level] for level in (luma / 256 * len(density)).astype(int))


def _runs(cells: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return (length, colours) of equal cells side by side, (columns, 2, 3) in all."""
    edges = np.flatnonzero((cells[1:] != cells[:-1]).any(axis=(1, 2))) + 1
    starts = [0, *edges.tolist()]
    lengths = np.diff([*starts, len(cells)]).tolist()
    return [(n, cells[start]) for n, start in zip(lengths, starts, strict=True)]


def _style(upper: np.ndarray, lower: np.ndarray) -> Style:
    return Style(color=Color.from_rgb(*upper.tolist()), bgcolor=Color.from_rgb(*lower.tolist()))

"""A line with its interval, points with theirs, on axes that stay; only changed cells repaint."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from textual.geometry import Region
from textual.strip import Strip

from tui.data.series import Point
from tui.widgets.lines import LineWidget, Span, fit, pad

BLOCKS = "▁▂▃▄▅▆▇█"
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bit of each dot of a braille cell, by row and column."""
BLANK = 0x2800
MARK, STEM = "◆", "│"
LABEL = 6

Cell = tuple[str, str]
"""A character and its style."""


@dataclass(frozen=True)
class Picture:
    """What a chart shows."""

    end: float
    """abscissa at the right edge; the left one is 0"""
    low: float
    high: float
    labels: tuple[str, str, str]
    """ordinates at the top, in the middle and at the bottom"""
    line: Sequence[Point] = ()
    marks: Sequence[Point] = ()
    cursor: int | None = None
    """abscissa that is looked at"""


class Chart(LineWidget):
    """Braille line in a frame of two axes."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._picture: Picture | None = None
        self._rows: list[list[Cell]] = []

    @property
    def dots(self) -> int:
        """Dots across, which is how many columns of data can be told apart."""
        return max(2, 2 * (self.size.width - LABEL))

    def show(self, picture: Picture) -> None:
        """Draw a picture; cells that stay as they are are not repainted."""
        self._picture = picture
        old, self._rows = self._rows, self._drawn()
        if len(old) != len(self._rows) or not old:
            self.refresh()
            return
        regions = [
            Region(first, y, stop - first, 1)
            for y, (before, after) in enumerate(zip(old, self._rows, strict=True))
            for first, stop in _changed(before, after)
        ]
        if regions:
            self.refresh(*regions)

    def on_resize(self) -> None:
        """Draw for the new size."""
        self._rows = self._drawn()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw one row."""
        if y >= len(self._rows):
            return self.strip(())
        return self.strip(_spans(self._rows[y]))

    def _drawn(self) -> list[list[Cell]]:
        columns, rows = self.size.width - LABEL, self.size.height - 1
        if self._picture is None or columns < 8 or rows < 2:
            return []
        canvas = _Canvas(self._picture, columns, rows)
        return [
            *(
                [*((c, "dim") for c in self._label(y, rows)), *cells]
                for y, cells in enumerate(canvas.cells())
            ),
            self._axis(columns),
        ]

    def _label(self, y: int, rows: int) -> str:
        top, middle, bottom = self._picture.labels
        text = {0: top, rows // 2: middle, rows - 1: bottom}.get(y, "")
        return f"{pad(text, LABEL - 1, right=True)}┤" if text else " " * (LABEL - 1) + "│"

    def _axis(self, columns: int) -> list[Cell]:
        picture = self._picture
        cells: list[Cell] = [(c, "dim") for c in " " * (LABEL - 1) + "└" + "─" * columns]
        for text, at in (("0", LABEL), (f"{picture.end:g}", LABEL + columns)):
            start = at if text == "0" else at - len(text)
            for i, c in enumerate(text[:columns]):
                cells[start + i] = (c, "dim")
        if picture.cursor is not None:
            text = f"▲{picture.cursor}"
            share = min(1.0, max(0.0, picture.cursor / picture.end))
            start = min(LABEL + round(share * (columns - 1)), LABEL + columns - len(text))
            for i, c in enumerate(text):
                cells[start + i] = (c, "mark")
        return cells


class _Canvas:
    """Dots and glyphs of one drawing."""

    def __init__(self, picture: Picture, columns: int, rows: int) -> None:
        self._picture, self._columns, self._rows = picture, columns, rows
        self._bits = [[0] * columns for _ in range(rows)]
        self._strong = [[False] * columns for _ in range(rows)]
        self._glyphs: dict[tuple[int, int], Cell] = {}

    def cells(self) -> list[list[Cell]]:
        """Return rows of cells."""
        self._draw_band()
        self._draw_line()
        for point in self._picture.marks:
            self._draw_mark(point)
        return [[self._cell(x, y) for x in range(self._columns)] for y in range(self._rows)]

    def _cell(self, x: int, y: int) -> Cell:
        if (x, y) in self._glyphs:
            return self._glyphs[x, y]
        bits = self._bits[y][x]
        return (chr(BLANK + bits) if bits else " ", "accent" if self._strong[y][x] else "dim")

    def _across(self, x: float) -> int:
        last = 2 * self._columns - 1
        return max(0, min(last, round(x / self._picture.end * last)))

    def _down(self, y: float) -> int:
        low, high = self._picture.low, self._picture.high
        share = (y - low) / (high - low) if high > low else 0.5
        last = 4 * self._rows - 1
        return last - max(0, min(last, round(share * last)))

    def _dot(self, across: int, down: int, strong: bool) -> None:
        self._bits[down // 4][across // 2] |= DOTS[down % 4][across % 2]
        if strong:
            self._strong[down // 4][across // 2] = True

    def _draw_band(self) -> None:
        """A lattice of dots between low and high, straight from point to point."""
        known = [point for point in self._picture.line if math.isfinite(point.low)]
        for one, other in pairwise([*known[:1], *known]):
            first, last = self._across(one.x), self._across(other.x)
            for across in range(first, last + 1):
                share = (across - first) / (last - first) if last > first else 1.0
                high = self._down(one.high + share * (other.high - one.high))
                low = self._down(one.low + share * (other.low - one.low))
                for down in range(high, low + 1):
                    if (across + 2 * down) % 4 == 0:
                        self._dot(across, down, strong=False)

    def _draw_line(self) -> None:
        dots = [(self._across(p.x), self._down(p.y)) for p in self._picture.line]
        for one, other in pairwise(dots or ()):
            n = max(abs(other[0] - one[0]), abs(other[1] - one[1]), 1)
            for i in range(n + 1):
                across = one[0] + round(i * (other[0] - one[0]) / n)
                self._dot(across, one[1] + round(i * (other[1] - one[1]) / n), strong=True)
        if len(dots) == 1:
            self._dot(*dots[0], strong=True)

    def _draw_mark(self, point: Point) -> None:
        """A point over the line, on a stem as long as its interval."""
        x = self._across(point.x) // 2
        if math.isfinite(point.low):
            for y in range(self._down(point.high) // 4, self._down(point.low) // 4 + 1):
                self._glyphs[x, y] = (STEM, "good")
        self._glyphs[x, self._down(point.y) // 4] = (MARK, "good")


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the last values as blocks between their least and their greatest; gaps are spaces."""
    shown = list(values)[-width:] if width > 0 else []
    known = [value for value in shown if math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    span = high - low
    return "".join(
        (BLOCKS[min(7, int(8 * (value - low) / span))] if span > 0 else BLOCKS[2])
        if math.isfinite(value)
        else " "
        for value in shown
    )


def bar(share: float, width: int) -> str:
    """Return a bar filled to a share."""
    full = round(max(0.0, min(1.0, share)) * width)
    return "█" * full + "░" * (width - full)


def rule(spans: Iterable[Span], width: int) -> list[Span]:
    """Return a heading on a thin line."""
    spans = list(spans)
    used = sum(len(text) for text, _ in spans)
    if used + 4 > width:
        return [(fit("─ " + "".join(text for text, _ in spans), width), "title")]
    return [("─ ", "dim"), *spans, (" " + "─" * (width - used - 3), "dim")]


def _changed(before: list[Cell], after: list[Cell]) -> list[tuple[int, int]]:
    """Return [start, stop) of the stretches that differ; near ones are taken together."""
    if len(before) != len(after):
        return [(0, len(after))]
    stretches: list[tuple[int, int]] = []
    for x, (old, new) in enumerate(zip(before, after, strict=True)):
        if old != new:
            if stretches and x - stretches[-1][1] < 4:
                stretches[-1] = stretches[-1][0], x + 1
            else:
                stretches.append((x, x + 1))
    return stretches


def _spans(cells: list[Cell]) -> list[Span]:
    spans: list[Span] = []
    for text, style in cells:
        if spans and spans[-1][1] == style:
            spans[-1] = spans[-1][0] + text, style
        else:
            spans.append((text, style))
    return spans

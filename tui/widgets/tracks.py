"""Many quantities over the same time: one row of blocks each, and one cursor through all."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from tui.widgets.lines import LineWidget, Span, pad

BLOCKS = " ▁▂▃▄▅▆▇█"
LABEL, VALUE = 9, 9
"""Cells for the name of a track and for its value at the cursor."""
MOST_HIGH = 3


@dataclass(frozen=True, eq=False)
class Track:
    """One quantity over the steps of an episode."""

    name: str
    values: np.ndarray
    """(T,) numbers drawn as blocks, or (T,) bool drawn as marks."""
    low: float = 0.0
    high: float = 1.0
    style: str = ""
    text: str = "{:+.2f}"
    """How its value is written."""
    mark: str = "━"
    instead: str = ""
    """Said in place of the values, when there are none."""

    @property
    def is_mark(self) -> bool:
        """Whether it marks steps rather than measure something."""
        return self.values.dtype == bool

    def at(self, step: int) -> str:
        """Return its value at a step."""
        if self.instead or not 0 <= step < len(self.values):
            return "–"
        value = self.values[step]
        if self.is_mark:
            return "yes" if value else "no"
        return self.text.format(float(value)) if np.isfinite(value) else "–"


class Tracks(LineWidget):
    """Rows of tracks, then an axis; taller blocks where there is room."""

    class Picked(Message):
        """A step was clicked."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._tracks: Sequence[Track] = ()
        self._n = 0
        self._cursor = 0
        self._lines: list[tuple[Track, str, bool] | None] = []
        """Of each line: its track, its characters, whether it bears name and value; or a gap."""

    def show(self, tracks: Sequence[Track], n_steps: int, cursor: int) -> None:
        """Draw other tracks."""
        self._tracks, self._n, self._cursor = tracks, n_steps, cursor
        self._draw()
        self.refresh()

    def move_to(self, cursor: int) -> None:
        """Move the cursor; only the cells it leaves and enters, and new values, repaint."""
        before, self._cursor = self._cursor, cursor
        old, new = self._column(before), self._column(cursor)
        axis = self.size.height - 1
        drawn = [(y, *line) for y, line in enumerate(self._lines[:axis]) if line is not None]
        lines = [axis, *(y for y, *_ in drawn)]
        values = [axis] + [
            y for y, track, _, named in drawn if named and track.at(before) != track.at(cursor)
        ]
        regions = [Region(LABEL + column, y, 1, 1) for column in {old, new} for y in lines]
        regions += [Region(LABEL + self._width, y, VALUE, 1) for y in values]
        self.refresh(*regions)

    def on_resize(self) -> None:
        """Draw for the new size."""
        self._draw()
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """Pick the step under the pointer."""
        column = event.x - LABEL
        if 0 <= column < self._width and self._n:
            self.post_message(self.Picked(int(column * self._n / self._width)))

    @property
    def _width(self) -> int:
        return max(1, self.size.width - LABEL - VALUE)

    def _column(self, step: int) -> int:
        """Return the column of a step."""
        return min(int((step + 0.5) * self._width / self._n), self._width - 1) if self._n else 0

    def _draw(self) -> None:
        self._lines = []
        measures = [track for track in self._tracks if not track.is_mark]
        marks = len(self._tracks) - len(measures)
        room = (self.size.height - 1 - marks) // max(1, len(measures))
        gap = room > 2
        high = max(1, min(MOST_HIGH, room - gap))
        for track in self._tracks:
            if track.is_mark:
                self._lines.append((track, self._marks(track), True))
                continue
            rows = self._blocks(track, high)
            self._lines += [(track, row, i == high - 1) for i, row in enumerate(rows)]
            if gap:
                self._lines.append(None)

    def _bins(self) -> list[tuple[int, int]]:
        """Return the steps [start, stop) of each column."""
        edges = [int(column * self._n / self._width) for column in range(self._width + 1)]
        return [(a, max(a + 1, b)) for a, b in pairwise(edges)]

    def _marks(self, track: Track) -> str:
        if not self._n:
            return ""
        return "".join(track.mark if track.values[a:b].any() else " " for a, b in self._bins())

    def _blocks(self, track: Track, high: int) -> list[str]:
        """Return rows of blocks, the top one first; a finite value is never blank."""
        if track.instead or not self._n:
            return [*[""] * (high - 1), track.instead]
        levels = []
        span = track.high - track.low or 1.0
        for a, b in self._bins():
            known = track.values[a:b][np.isfinite(track.values[a:b])]
            if not len(known):
                levels.append(0)
                continue
            part = (float(known.mean()) - track.low) / span
            levels.append(1 + round(min(max(part, 0.0), 1.0) * (8 * high - 1)))
        return [
            "".join(BLOCKS[min(max(level - 8 * row, 0), 8)] for level in levels)
            for row in reversed(range(high))
        ]

    def render_line(self, y: int) -> Strip:
        """Draw one line of a track, or the axis."""
        if y == self.size.height - 1:
            return self.strip(self._axis())
        if y >= len(self._lines) or self._lines[y] is None:
            return self.strip(())
        track, text, named = self._lines[y]
        text = pad(text, self._width)
        column = self._column(self._cursor)
        spans: list[Span] = [(pad(f" {track.name}" if named else "", LABEL), "dim")]
        if track.instead:
            spans.append((text, "dim"))
        else:
            under = text[column] if text[column] != " " else "│"
            spans += [
                (text[:column], track.style),
                (under, "mark"),
                (text[column + 1 :], track.style),
            ]
        value = track.at(self._cursor) if named else ""
        return self.strip([*spans, (pad(f"{value} ", VALUE, right=True), "bold")])

    def _axis(self) -> list[Span]:
        column = self._column(self._cursor)
        line = "├" + "─" * (self._width - 2) + "┤"
        shown = f"{self._cursor}/{max(0, self._n - 1)} "
        return [
            (pad(" step", LABEL), "title"),
            (line[:column], "dim"),
            ("▲", "mark"),
            (line[column + 1 :], "dim"),
            (pad(shown, VALUE, right=True), "bold"),
        ]

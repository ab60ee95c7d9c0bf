"""A curve with its start, its end and a cursor that runs along it."""

import numpy as np
from textual.geometry import Region
from textual.strip import Strip

from tui.widgets.braille import line_cells, text_of, to_dots
from tui.widgets.lines import LineWidget, Span, fit

Range = tuple[float, float]
START, END, CURSOR = "○", "●", "◆"


class Plot(LineWidget):
    """One curve under a title; `equal` keeps the same scale on both axes."""

    def __init__(self, *, id: str, equal: bool = False) -> None:
        super().__init__(id=id)
        self._equal = equal
        self._title = ""
        self._x = self._y = np.zeros(0)
        self._finite = np.zeros(0, bool)
        self._cursor = 0
        self._within: tuple[Range, Range] | None = None
        self._rows: list[str] = []
        self._cells: list[tuple[int, int] | None] = []
        """Where each point is drawn, (row, column)."""

    def show(
        self,
        title: str,
        x: np.ndarray,
        y: np.ndarray,
        cursor: int,
        within: tuple[Range, Range] | None = None,
    ) -> None:
        """Draw another curve, in its own ranges of x and y or in given ones."""
        self._title, self._cursor, self._within = title, cursor, within
        self._x, self._y = np.asarray(x, float), np.asarray(y, float)
        self._draw()
        self.refresh()

    def move_to(self, cursor: int) -> None:
        """Move the cursor; only the cells it leaves and enters are repainted."""
        old, self._cursor = self._cell(self._cursor), cursor
        for cell in {old, self._cell(cursor)} - {None}:
            self.refresh(Region(cell[1], cell[0] + 1, 1, 1))

    def on_resize(self) -> None:
        """Draw for the new size."""
        self._draw()
        self.refresh()

    def _cell(self, index: int) -> tuple[int, int] | None:
        return self._cells[index] if 0 <= index < len(self._cells) else None

    def _draw(self) -> None:
        columns, rows = self.size.width, self.size.height - 1
        self._rows, self._cells = [], []
        known = np.isfinite(self._x) & np.isfinite(self._y)
        if columns < 2 or rows < 1 or not known.any():
            return
        x, y = self._x[known], self._y[known]
        x_range, y_range = self._within or ((x.min(), x.max()), (y.min(), y.max()))
        if self._equal:
            x_range, y_range = _equal_scales(x_range, y_range, 2 * columns, 4 * rows)
        across, down = to_dots(x, y, columns, rows, x_range, y_range)
        self._rows = text_of(line_cells(across, down, columns, rows))
        cells = iter(zip((down // 4).tolist(), (across // 2).tolist(), strict=True))
        self._cells = [next(cells) if ok else None for ok in known.tolist()]

    def render_line(self, y: int) -> Strip:
        """Draw the title or one row of the curve."""
        if y == 0:
            return self.strip([(fit(self._title, self.size.width), "title")])
        if y > len(self._rows):
            text = "  no finite position" if y == 1 and len(self._x) else ""
            return self.strip([(text, "dim")])
        text = self._rows[y - 1]
        marks = self._marks(y - 1)
        spans: list[Span] = []
        begin = 0
        for column in sorted(marks):
            spans += [(text[begin:column], "accent"), marks[column]]
            begin = column + 1
        return self.strip([*spans, (text[begin:], "accent")])

    def _marks(self, row: int) -> dict[int, Span]:
        """Return the marks of one row by column; the cursor covers the others."""
        known = [cell for cell in self._cells if cell is not None]
        marks: dict[int, Span] = {}
        for cell, glyph, style in (
            (known[0], START, "bold"),
            (known[-1], END, "bold"),
            (self._cell(self._cursor), CURSOR, "mark"),
        ):
            if cell is not None and cell[0] == row:
                marks[cell[1]] = (glyph, style)
        return marks


def _equal_scales(
    x_range: tuple[float, float], y_range: tuple[float, float], across: int, down: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Widen one range about its middle, so that a dot is as wide as it is high."""
    scale = max((x_range[1] - x_range[0]) / across, (y_range[1] - y_range[0]) / down, 1e-6)
    return tuple(
        (sum(r) / 2 - scale * dots / 2, sum(r) / 2 + scale * dots / 2)
        for r, dots in ((x_range, across), (y_range, down))
    )

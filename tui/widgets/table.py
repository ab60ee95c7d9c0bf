"""A table of which only the visible rows are drawn, and only those that changed repainted.

Columns give way in two ways when there is little room: those with a `rank` are left out, the
highest first; those with a `least` width are shortened.  Numbers are never cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual import events
from textual.message import Message
from textual.strip import Strip

from tui.widgets.lines import LineWidget, Span, pad

MARK = "▸ "
GAP = 1


@dataclass(frozen=True)
class Column:
    """One column."""

    title: str
    right: bool = False
    least: int = 0
    """Smallest width it may be shortened to; 0: never shortened."""
    most: int = 200
    rank: int = 0
    """0: always there; otherwise the larger the earlier it is left out."""


@dataclass(frozen=True)
class Row:
    """One row; `cells` are (text, style) in the order of the columns."""

    key: object
    cells: tuple[Span, ...]


def widths(columns: Sequence[Column], rows: Sequence[Row], room: int) -> list[int]:
    """Return the width of each column, -1 for those left out."""
    natural = []
    for index, column in enumerate(columns):
        longest = max((cell_len(row.cells[index][0]) for row in rows), default=0)
        natural.append(min(column.most, max(longest, cell_len(column.title))))
        if column.rank and rows and longest == 0:  # nothing in it
            natural[-1] = -1
    least = [
        min(width, max(column.least, cell_len(column.title))) if column.least else width
        for column, width in zip(columns, natural, strict=True)
    ]
    order = sorted(range(len(columns)), key=lambda i: -columns[i].rank)
    for index in order:
        if _needed(least) <= room or not columns[index].rank:
            break
        least[index] = natural[index] = -1
    spare = room - _needed(least)
    for index in range(len(columns)):
        more = min(max(spare, 0), natural[index] - least[index])
        least[index] += more
        spare -= more
    return least


def _needed(chosen: list[int]) -> int:
    return sum(width + GAP for width in chosen if width >= 0) - GAP


class Table(LineWidget):
    """A header line and rows, with a cursor that stays on its row when rows come and go."""

    class Moved(Message):
        """The cursor is on another row, or the row under it changed."""

    class Resized(Message):
        """There is another width to lay columns out in."""

    def __init__(self, columns: Sequence[Column], *, id: str) -> None:
        super().__init__(id=id)
        self._columns = columns
        self._rows: Sequence[Row] = []
        self._widths = widths(columns, [], 0)
        self._cursor = 0
        self._top = 0

    @property
    def row(self) -> Row | None:
        """The row under the cursor."""
        return self._rows[self._cursor] if self._rows else None

    @property
    def rows(self) -> Sequence[Row]:
        """The rows that are shown, in their order."""
        return self._rows

    @property
    def place(self) -> tuple[int, int]:
        """Number of the row under the cursor, from 1, and of all rows."""
        return (self._cursor + 1 if self._rows else 0), len(self._rows)

    def show(self, rows: Sequence[Row], columns: Sequence[Column] | None = None) -> None:
        """Replace the rows, and perhaps the columns; the cursor stays with its key.

        The same list again costs nothing, so a list must not change once it was shown.
        """
        if rows is self._rows and columns in (None, self._columns):
            return
        old_row, old_rows, old_cursor = self.row, self._rows, self._cursor
        old_columns, self._columns = self._columns, columns or self._columns
        self._rows = rows
        if old_row is not None:
            place = self.place_of(old_row.key)
            self._cursor = self._cursor if place is None else place
        self._cursor = max(0, min(self._cursor, len(self._rows) - 1))
        scrolled = self._scroll()
        laid_out = self._lay_out() or self._columns != old_columns
        if scrolled or laid_out or self._cursor != old_cursor:
            self.refresh()
        else:
            for y in range(1, self.size.height):
                index = self._top + y - 1
                if _get(old_rows, index) != _get(self._rows, index):
                    self.refresh_line(y)
        if old_row != self.row:
            self.post_message(self.Moved())

    def move(self, by: int) -> None:
        """Move the cursor by some rows."""
        self.move_to(self._cursor + by)

    def move_to(self, index: int) -> None:
        """Move the cursor to a row; beyond the ends means the end."""
        old = self._cursor
        self._cursor = max(0, min(index, len(self._rows) - 1))
        if self._cursor == old:
            return
        if self._scroll():
            self.refresh()
        else:
            self.refresh_line(old - self._top + 1)
            self.refresh_line(self._cursor - self._top + 1)
        self.post_message(self.Moved())

    def move_to_key(self, key: object) -> bool:
        """Move the cursor to the row of that key, if there is one."""
        place = self.place_of(key)
        if place is not None:
            self.move_to(place)
        return place is not None

    def place_of(self, key: object) -> int | None:
        """Return the number of the row with that key, from 0."""
        return next((index for index, row in enumerate(self._rows) if row.key == key), None)

    def measured(self) -> Sequence[Row]:
        """Return the rows that widths are taken from."""
        return self._rows

    @property
    def page(self) -> int:
        """Rows that fit below the header."""
        return max(1, self.size.height - 1)

    def on_resize(self) -> None:
        """Lay the columns out again."""
        self._scroll()
        self._lay_out()
        self.refresh()
        self.post_message(self.Resized())

    def on_click(self, event: events.Click) -> None:
        """Move to the row that was clicked."""
        index = self._top + event.y - 1
        if event.y > 0 and index < len(self._rows):
            self.move_to(index)

    def on_mouse_scroll_down(self) -> None:
        """Move down with the wheel."""
        self.move(3)

    def on_mouse_scroll_up(self) -> None:
        """Move up with the wheel."""
        self.move(-3)

    def _scroll(self) -> bool:
        """Bring the cursor into view; return whether other rows are visible now."""
        old = self._top
        highest = max(0, len(self._rows) - self.page)
        self._top = max(min(self._top, self._cursor, highest), self._cursor - self.page + 1)
        return self._top != old

    def _lay_out(self) -> bool:
        old = self._widths
        self._widths = widths(self._columns, self.measured(), self.size.width - len(MARK))
        return self._widths != old

    def render_line(self, y: int) -> Strip:
        """Draw the header or one row."""
        if y == 0:
            titles = [(column.title, "") for column in self._columns]
            return self.strip(self._spans(" " * len(MARK), titles), base="title")
        row = _get(self._rows, self._top + y - 1)
        if row is None:
            return self.strip(())
        here = self._top + y - 1 == self._cursor
        spans = self._spans(MARK if here else " " * len(MARK), row.cells)
        if here:
            spans = [(text, "") for text, _ in spans]
        return self.strip(spans, base="cursor" if here else "")

    def _spans(self, mark: str, cells: Sequence[Span]) -> list[Span]:
        spans: list[Span] = []
        for column, width, (text, style) in zip(self._columns, self._widths, cells, strict=True):
            if width >= 0:
                spans += [
                    (" " * GAP if spans else mark, ""),
                    (pad(text, width, column.right), style),
                ]
        return spans


def _get(rows: Sequence[Row], index: int) -> Row | None:
    return rows[index] if 0 <= index < len(rows) else None

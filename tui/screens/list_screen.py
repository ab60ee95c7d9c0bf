"""What Runs and Rollouts share: a table with a filter, a preview of the row, the usual keys."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.widgets import Input

from tui.data.model import Run
from tui.data.summary import RunSummary, summarise_run
from tui.screens.help import bindings_of, key_for
from tui.screens.loading import LoadingScreen
from tui.terminal import one_line
from tui.widgets.keys import KeyLine, key
from tui.widgets.lines import Span, TextLines
from tui.widgets.table import Column, Row, Table


class ListScreen(LoadingScreen):
    """A title, a table, a preview, a line of keys; subclasses say what is in them."""

    AUTO_FOCUS = ""
    PANES: ClassVar = {"table": "list", "preview": "card"}
    COLUMNS: ClassVar[Sequence[Column]] = ()
    CLEAR: ClassVar[str]
    """Id of the action that clears the filter."""
    BINDINGS: ClassVar[list[BindingType]] = [
        key("list.down", "j,down", "move(1)", "down", "next row", show=False),
        key("list.up", "k,up", "move(-1)", "up", "previous row", show=False),
        key("list.first", "g,home", "first", "first", "first row", show=False),
        key("list.last", "G,end", "last", "last", "last row", show=False),
        key("list.page-down", "pagedown", "page(1)", "page down", "next page", show=False),
        key("list.page-up", "pageup", "page(-1)", "page up", "previous page", show=False),
        key("list.filter", "/", "filter", "filter", "show only rows with a text; enter keeps it"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._summaries: dict[str, tuple[RunSummary | None, str]] = {}

    def compose(self) -> ComposeResult:
        """Lay the widgets out; vla.tcss puts the preview below or beside the table."""
        yield TextLines(id="title")
        yield TextLines(id="hint")
        with Container(id="body"):
            yield self.make_table()
            yield TextLines(id="preview")
        filter_input = Input(id="filter", placeholder="filter", compact=True, select_on_focus=False)
        filter_input.cursor_blink = False
        yield filter_input
        yield KeyLine(bindings_of(self))

    def make_table(self) -> Table:
        """Return the table to lay out."""
        return Table(self.COLUMNS, id="table")

    @property
    def table(self) -> Table:
        """The table."""
        return self.query_one(Table)

    @property
    def needle(self) -> str:
        """The text rows must contain."""
        return self.query_one("#filter", Input).value.strip().casefold()

    def on_mount(self) -> None:
        """Show what is known already."""
        self.paint()

    def on_screen_resume(self) -> None:
        """Catch up with what happened under another screen."""
        if self.drawable:
            self.paint()

    def content_arrived(self) -> None:
        """Show the preview with what was loaded."""
        if self.drawable:
            self.paint_preview()

    def on_table_moved(self) -> None:
        """Follow the cursor."""
        self.query_one(KeyLine).say()
        self.paint_title()
        self.paint_preview()

    def paint(self) -> None:
        """Show everything; only lines that changed are repainted."""
        if not self.drawable:
            return
        hint = self.hint()
        self.set_class(bool(hint), "-hinted")
        if hint:
            self.minimize()
        self.query_one("#hint", TextLines).show(hint)
        rows = [] if hint else self.rows()
        self.table.show(self.filtered(rows) if self.needle else rows, self.columns())
        self.paint_title()
        self.paint_preview()

    def filtered(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows that the filter keeps."""
        return [row for row in rows if self.needle in self.searched(row).casefold()]

    def summary_of(self, run: Run) -> tuple[RunSummary | None, str]:
        """Return (summary, error); the last one known while a newer is computed."""
        known = self.load((run.key, run.stamp), lambda: summarise_run(run))
        if known is not None:
            self._summaries[run.key] = known
        return self._summaries.get(run.key, (None, ""))

    def searched(self, row: Row) -> str:
        """Return the text of a row that the filter looks at."""
        return " ".join(text for text, _ in row.cells)

    def paint_title(self) -> None:
        """Show the title with the place in the list and the filter."""
        place, total = self.table.place
        spans = [*self.title_spans(), (f"  {place}/{total}", "dim")]
        if self.needle:
            text = self.query_one("#filter", Input).value.strip()
            spans.append((f"  filter: {one_line(text)}", "warn"))
        self.query_one("#title", TextLines).show([spans])

    def paint_preview(self) -> None:
        """Show the card of the row under the cursor."""
        preview = self.query_one("#preview", TextLines)
        row = self.table.row
        if row is not None:
            preview.show(self.card(row, preview.content_size.width))
        elif self.needle:
            clear = key_for(self, self.CLEAR)
            preview.show([((f"nothing matches the filter; {clear} clears it", "dim"),)])
        else:
            preview.show([])

    def hint(self) -> list[list[Span]]:
        """Return what to say instead of a table, or nothing."""
        return []

    def columns(self) -> Sequence[Column]:
        """Return the columns of the rows."""
        return self.COLUMNS

    def rows(self) -> list[Row]:
        """Return all rows."""
        raise NotImplementedError

    def title_spans(self) -> list[Span]:
        """Return the title."""
        raise NotImplementedError

    def card(self, row: Row, width: int) -> list[list[Span]]:
        """Return the preview of a row."""
        raise NotImplementedError

    def source_of(self, row: Row) -> object:
        """Return the file that a row is from."""
        raise NotImplementedError

    def copied(self) -> tuple[str, object]:
        """Return the row under the cursor, as it is shown."""
        row = self.table.row
        if row is None:
            return "", ""
        titled = zip(self.columns(), row.cells, strict=True)
        known = [f"{c.title} {text.strip()}" for c, (text, _) in titled if c.title and text.strip()]
        return ", ".join(known), self.source_of(row)

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self.table.move(by)

    def action_first(self) -> None:
        """Move to the first row."""
        self.table.move_to(0)

    def action_last(self) -> None:
        """Move to the last row."""
        self.table.move_to(self.table.place[1] - 1)

    def action_page(self, direction: int) -> None:
        """Move by what is visible."""
        self.table.move(direction * self.table.page)

    def action_filter(self) -> None:
        """Let the user type a filter."""
        widget = self.query_one("#filter", Input)
        widget.add_class("-open")
        widget.styles.display = "block"  # now: keys that follow at once are no commands
        self.set_focus(widget)

    def on_input_changed(self) -> None:
        """Filter while it is typed."""
        self.paint()

    def on_input_submitted(self) -> None:
        """Keep the filter and go back to the table."""
        self._close_filter()

    def _close_filter(self) -> None:
        widget = self.query_one("#filter", Input)
        widget.remove_class("-open")
        widget.styles.display = "none"
        self.set_focus(None)

    def clear_filter(self) -> bool:
        """Close and clear the filter; return whether there was one."""
        widget = self.query_one("#filter", Input)
        was_open = widget.has_class("-open") or bool(widget.value)
        self._close_filter()
        widget.value = ""
        return was_open

"""A list over a screen, of which one row is chosen: alerts, metrics, commands."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.screen import ModalScreen
from textual.widgets import Input

from tui.screens.help import key_for
from tui.widgets.keys import key
from tui.widgets.lines import TextLines
from tui.widgets.table import Column, Row, Table


class ChoiceScreen(ModalScreen[object]):
    """Dismissed with the key of the row that was chosen; None when none was."""

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        key("choice.down", "down,j", "move(1)", "down", "next row"),
        key("choice.up", "up,k", "move(-1)", "up", "previous row"),
        key("choice.page-down", "pagedown", "move(10)", "page down", "ten rows down"),
        key("choice.page-up", "pageup", "move(-10)", "page up", "ten rows up"),
        key("choice.choose", "enter", "choose", "choose", "choose this row"),
        key("choice.leave", "escape,q,!", "leave", "close", "choose nothing"),
    ]

    def __init__(
        self,
        heading: str,
        columns: Sequence[Column],
        rows: Sequence[Row],
        empty: str = "nothing here",
        typing: bool = False,
    ) -> None:
        """Offer rows.

        Args:
            heading: title of the list.
            columns: of the rows.
            rows: to choose from.
            empty: said where there are none.
            typing: letters narrow the list down.
        """
        super().__init__()
        self._heading, self._columns, self._all = heading, columns, rows
        self._empty, self._typing = empty, typing

    def compose(self) -> ComposeResult:
        """Lay the list out, below the line that is typed in."""
        with Container(id="choice") as box:
            box.border_title = self._heading
            choose = "enter" if self._typing else key_for(self, "choice.choose")
            box.border_subtitle = f"{choose} chooses, {key_for(self, 'choice.leave')} closes"
            if self._typing:
                typed = Input(id="typed", placeholder="type to narrow down", compact=True)
                typed.cursor_blink = False
                yield typed
            if self._all:
                yield Table(self._columns, id="choices")
            else:
                yield TextLines(id="none")

    def on_mount(self) -> None:
        """Fill the list; its height is what it holds."""
        if not self._all:
            self.query_one("#none", TextLines).show([[(self._empty, "dim")]])
            return
        self.query_one(Table).styles.height = min(len(self._all) + 1, 30)
        self.query_one(Table).show(list(self._all))
        if self._typing:
            self.query_one(Input).focus()

    def on_input_changed(self, message: Input.Changed) -> None:
        """Keep the rows that have every word."""
        words = message.value.casefold().split()
        text = {row.key: " ".join(cell for cell, _ in row.cells).casefold() for row in self._all}
        kept = [row for row in self._all if all(word in text[row.key] for word in words)]
        self.query_one(Table).show(kept)
        self.query_one(Table).move_to(0)

    def on_input_submitted(self) -> None:
        """Choose, from the line that is typed in."""
        self.action_choose()

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        if self._all:
            self.query_one(Table).move(by)

    def action_choose(self) -> None:
        """Leave with the row under the cursor."""
        row = self.query_one(Table).row if self._all else None
        self.dismiss(row.key if row else None)

    def action_leave(self) -> None:
        """Leave with nothing."""
        self.dismiss(None)

"""Copy what the cursor is on, export what is shown: the same two keys on every screen of data."""

import re
from collections.abc import Callable
from typing import ClassVar

from textual import work
from textual.binding import BindingType

from traces.errors import UserError
from tui.data.records import Record
from tui.screens.panes import PaneScreen
from tui.terminal import one_line
from tui.widgets.keys import key

Records = Callable[[], list[Record]]
"""Makes the rows of an export, on a thread."""


class SharingScreen(PaneScreen):
    """A screen with `copied` and `exported`; what they return goes out by `y` and `x`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        key("share.copy", "y", "copy", "copy", "copy this row or step, and its file", show=False),
        key("share.export", "x", "export", "export", "what is shown, as CSV and JSON", show=False),
    ]

    def copied(self) -> tuple[str, object]:
        """Return what the cursor is on, and the file it is from; no text: nothing."""
        raise NotImplementedError

    def exported(self) -> tuple[str, Records]:
        """Return what the files are to be called, and what makes the rows shown."""
        raise NotImplementedError

    def action_copy(self) -> None:
        """Hand a line to the clipboard of the terminal (OSC 52), also through SSH."""
        text, source = self.copied()
        if not text:
            self.app.say("nothing to copy here")
            return
        line = one_line(f"{text} ({source})")
        self.app.copy_to_clipboard(line)
        self.app.say(f"copied: {line}", "good")

    def action_export(self) -> None:
        """Write the rows shown into new files."""
        name, records = self.exported()
        stem = "-".join(re.findall(r"[\w.+-]+", name, re.ASCII)).lstrip(".-")
        self._write(stem[:80] or "export", records)

    @work(thread=True, exclusive=True, group="export")
    def _write(self, stem: str, records: Records) -> None:
        from tui.data.draft import home_of
        from tui.data.exports import write_records

        try:
            rows = records()
            said, style = "nothing to export here", "warn"
            if rows:
                table, objects = write_records(home_of(self.app.folder), stem, rows)
                said, style = f"{len(rows)} rows: {one_line(table)} and {objects.suffix}", "good"
        except UserError as error:
            said, style = one_line(error), "warn"
        self.app.call_from_thread(self.app.say, said, style)

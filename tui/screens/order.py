"""What a table is sorted by, shown as an arrow in its header."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tui.widgets.table import Column


@dataclass(frozen=True)
class Order:
    """The name of a column, and the direction."""

    by: str
    descending: bool = False

    def titled(self, columns: Sequence[Column], names: Sequence[str]) -> tuple[Column, ...]:
        """Return columns of these names with an arrow at the one it is sorted by."""
        arrow = " ▼" if self.descending else " ▲"
        return tuple(
            replace(column, title=column.title + arrow) if name == self.by else column
            for column, name in zip(columns, names, strict=True)
        )

"""A table over more rows than there is time to build: each is made when it is drawn."""

from abc import abstractmethod
from collections.abc import Sequence

from tui.widgets.table import Row, Table


class VirtualRows(Sequence[Row]):
    """Rows that are made when they are asked for."""

    @property
    @abstractmethod
    def widest(self) -> Row:
        """A row whose cells are as wide as any: columns do not move while one scrolls."""

    @abstractmethod
    def place_of(self, key: object) -> int | None:
        """Return the number of the row with that key, from 0; None where it is not shown."""


class VirtualTable(Table):
    """A `Table` over `VirtualRows`; nothing in it takes longer for more rows."""

    def place_of(self, key: object) -> int | None:
        """Return the number of the row with that key, from 0."""
        return self._rows.place_of(key) if isinstance(self._rows, VirtualRows) else None

    def measured(self) -> Sequence[Row]:
        """Return the widest row alone."""
        return [self._rows.widest] if isinstance(self._rows, VirtualRows) else []

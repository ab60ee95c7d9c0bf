"""Append activations block by block: an episode's may be larger than memory.

What a block needs before it is written (conversion, overflow, statistics) is done for the next one
on another thread while HDF5 writes the present one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

import h5py
import numpy as np
from h5py import h5s

from traces.columns import Moments, as_activation, merged, no_moments
from traces.errors import BadRecord
from traces.header import SiteInfo

BLOCK_BYTES = 4 * 2**20
"""Activations are converted and written at most this much at a time."""


class ArrayLike(Protocol):
    """What activations may come as: a numpy array, a `Spool`, an HDF5 dataset."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return consecutive rows."""


class SiteWriter:
    """The rows of one site and their running statistics.

    Args:
        columns: those of activations/<site>/.
        site: what they hold.
    """

    def __init__(self, columns: dict[str, h5py.Dataset], site: SiteInfo) -> None:
        self.columns, self.site = columns, site
        self._moments = no_moments(site.shape[-1])
        self._overflow = 0

    def checked(
        self, values: ArrayLike | Sequence | None, decisions: np.ndarray, first_decision: int
    ) -> Arriving:
        """Check what a record brings for this site; nothing is read yet.

        Args:
            values: (rows, *shape of the site), floats; None for no rows.
            decisions: (rows,) decision of each row, within the episode.
            first_decision: where the episode's decisions begin.
        """
        place = f"activations/{self.site.name}"
        if values is None:
            if decisions.size:
                raise BadRecord(place, "values for every episode", "nothing")
            values = np.zeros((0, *self.site.shape))
        if not hasattr(values, "dtype"):
            values = np.asarray(values)
        shape = (len(decisions), *self.site.shape)
        if values.shape != shape:
            raise BadRecord(place, f"shape {shape}", values.shape)
        if values.dtype.kind != "f":
            raise BadRecord(place, "floating-point values", values.dtype)
        return Arriving(self, values, decisions + first_decision)

    def write(self, rows: slice, stored: np.ndarray, found: Moments, overflow: int) -> None:
        """Fill rows which the column of values has already, and count them."""
        filled(self.columns["values"], rows.start, stored)
        self._moments = merged(self._moments, found)
        self._overflow += overflow

    def write_statistics(self) -> None:
        """Write the statistics of all rows."""
        for name, values in zip(("n", "mean", "m2"), self._moments, strict=True):
            self.columns[name][...] = values
        self.columns["overflow"][...] = self._overflow


@dataclass(frozen=True)
class Arriving:
    """The checked rows of one site and one episode."""

    writer: SiteWriter
    values: ArrayLike
    decisions: np.ndarray
    """(rows,) rows of decisions/."""

    @property
    def nbytes(self) -> int:
        """Bytes that they will take."""
        site = self.writer.site
        row = int(np.prod(site.shape)) * np.dtype(site.dtype).itemsize
        return len(self.decisions) * (row + self.decisions.itemsize)

    def blocks(self) -> Iterator[tuple[Arriving, slice]]:
        """Yield the rows in parts of about `BLOCK_BYTES`."""
        row = int(np.prod(self.writer.site.shape)) * 4
        rows = max(1, BLOCK_BYTES // row)
        for start in range(0, len(self.decisions), rows):
            yield self, slice(start, min(start + rows, len(self.decisions)))


def append_activations(arriving: Sequence[Arriving], worker: Executor) -> None:
    """Append the rows of all sites.

    Args:
        arriving: one entry per site.
        worker: prepares blocks; must run them one after the other.
    """
    starts = {}
    for rows in arriving:
        columns = rows.writer.columns
        starts[rows.writer] = extended(columns["values"], len(rows.decisions))
        appended(columns["decision"], rows.decisions)
    blocks = (block for rows in arriving for block in rows.blocks())
    for writer, rows, prepared in _ahead(worker, _prepared, blocks):
        start = starts[writer]
        writer.write(slice(start + rows.start, start + rows.stop), *prepared)


def appended(column: h5py.Dataset, rows: np.ndarray) -> None:
    """Append rows to a column."""
    filled(column, extended(column, len(rows)), rows)


def filled(column: h5py.Dataset, start: int, rows: np.ndarray) -> None:
    """Do what `column[start:start + len(rows)] = rows` does, in a third of the time."""
    if rows.size:
        place = column.id.get_space()
        place.select_hyperslab((start, *(0 for _ in rows.shape[1:])), rows.shape)
        column.id.write(h5s.create_simple(rows.shape), place, np.ascontiguousarray(rows))


def extended(column: h5py.Dataset, n_rows: int) -> int:
    """Make room for rows at the end of a column; return the first of them."""
    start, *row = column.id.shape
    if n_rows:
        column.id.set_extent((start + n_rows, *row))
    return start


def _prepared(block: tuple[Arriving, slice]) -> tuple[SiteWriter, slice, tuple]:
    arriving, rows = block
    stored = as_activation(arriving.values[rows], arriving.writer.site.dtype)
    return arriving.writer, rows, stored


def _ahead[Item, Result](
    worker: Executor, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """Yield function(item) for each item; the next one is worked out while one is used."""
    present = None
    for item in items:
        present, last = worker.submit(function, item), present
        if last:
            yield last.result()
    if present:
        yield present.result()

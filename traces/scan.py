"""Read a column from end to end, in little memory, and say which of its rows are bad.

A bad row cannot be read (a checksum fails, a chunk is missing) or holds what the column never may.
Nothing here decides what that means: `check` reports it, `repair` leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import h5py
import numpy as np

from traces.safety import FAILURES

BLOCK_BYTES = 4 * 2**20

UNREADABLE = "cannot be read: their bytes are damaged"
NOT_FINITE = "are not finite numbers"
NOT_TEXT = "are not UTF-8 text"


@dataclass(frozen=True)
class Test:
    """Something that may be wrong with single rows of a column."""

    what: str
    marks: Callable[[np.ndarray], np.ndarray]
    """From values (rows, ...) to a mask (rows,) of where it is."""
    level: str = "error"


@dataclass(frozen=True)
class Fault:
    """Rows of one dataset with the same thing wrong."""

    place: str
    """Path of the dataset."""
    what: str
    """Such as "are not finite numbers"; follows the number of rows."""
    rows: np.ndarray
    """(rows,) int64, ascending, at least one."""
    level: str = "error"

    def __post_init__(self) -> None:
        if not len(self.rows):
            raise ValueError(f"a fault of {self.place} without rows")


def blocks(dataset: h5py.Dataset, rows: int) -> Iterator[tuple[int, int]]:
    """Yield spans [start, stop) of the first rows: whole chunks, about BLOCK_BYTES each."""
    row_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=object))
    chunk = dataset.chunks[0] if dataset.chunks else 1
    step = chunk * max(1, BLOCK_BYTES // max(1, row_bytes * chunk))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def readable(dataset: h5py.Dataset, start: int, stop: int) -> list[tuple[int, int]]:
    """Return the spans within [start, stop) whose chunks can be read."""
    chunk = dataset.chunks[0] if dataset.chunks else stop - start
    edges = [start, *range(start - start % chunk + chunk, stop, chunk), stop]
    spans: list[tuple[int, int]] = []
    for first, last in pairwise(edges):
        try:
            dataset[first:last]
        except FAILURES:
            continue
        if spans and spans[-1][1] == first:
            first = spans.pop()[0]
        spans.append((first, last))
    return spans


def read_blocks(dataset: h5py.Dataset, rows: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, values) of everything that can be read of the first rows (None: all)."""
    for start, stop in blocks(dataset, len(dataset) if rows is None else rows):
        try:
            yield start, dataset[start:stop]
        except FAILURES:
            for first, last in readable(dataset, start, stop):
                yield first, dataset[first:last]


def scan(place: str, dataset: h5py.Dataset, rows: int, tests: tuple[Test, ...]) -> list[Fault]:
    """Read the first rows of a dataset and return what is wrong with them."""
    unread: list[np.ndarray] = []
    marked: list[list[np.ndarray]] = [[] for _ in tests]
    expected = 0
    for start, block in read_blocks(dataset, rows):
        unread.append(np.arange(expected, start))
        expected = start + len(block)
        for test, parts in zip(tests, marked, strict=True):
            parts.append(start + np.flatnonzero(test.marks(block)))
    unread.append(np.arange(expected, rows))
    found = [(UNREADABLE, unread, "error")]
    found += [(test.what, parts, test.level) for test, parts in zip(tests, marked, strict=True)]
    return [
        Fault(place, what, bad, level)
        for what, parts, level in found
        if len(bad := np.concatenate([np.zeros(0, np.int64), *parts]))
    ]


def not_finite(values: np.ndarray) -> np.ndarray:
    """Mark rows (rows, ...) of floats with a NaN or an infinity."""
    return _any(~np.isfinite(values))


def infinite(values: np.ndarray) -> np.ndarray:
    """Mark rows (rows, ...) of floats with an infinity; NaN stands for "not known"."""
    return _any(np.isinf(values))


def not_text(values: np.ndarray) -> np.ndarray:
    """Mark rows (rows,) of bytes that are not UTF-8."""
    bad = np.zeros(len(values), bool)
    if not (np.ascontiguousarray(values).view(np.uint8) & 0x80).any():  # all ASCII
        return bad
    for row, text in enumerate(values.tolist()):
        try:
            text.decode()
        except UnicodeDecodeError:
            bad[row] = True
    return bad


def outside(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return a test that marks rows with a number below `low` or above `high`."""
    return lambda values: _any((values < low) | (values > high))


def spans(rows: np.ndarray) -> list[tuple[int, int]]:
    """Return ascending rows as spans [start, stop)."""
    if not len(rows):
        return []
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(rows, breaks)]


def _any(mask: np.ndarray) -> np.ndarray:
    return mask.reshape(len(mask), -1).any(axis=1) if mask.ndim > 1 else mask

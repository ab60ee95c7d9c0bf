"""Rows that wait for their episode to end: in memory up to a limit, beyond it in a file.

The spools of one `Spill` share its limit and its file.  The file has no name, so it is gone with
the process, however that ends.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path

import numpy as np

from traces.errors import DiskFull, UnwritableFolder


class Spill:
    """The memory that some spools may take together, and the file for what is beyond it.

    Args:
        limit_bytes: when the spools hold more than this in memory, all of it goes to the file.
        folder: where the file lies; None: the system's folder for temporary files.
    """

    def __init__(self, limit_bytes: int, folder: Path | str | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.folder = Path(folder or tempfile.gettempdir())
        self.held_bytes = 0
        """What is in memory now."""
        self.spilled_bytes = 0
        """What went to the file."""
        self._spools: weakref.WeakSet[Spool] = weakref.WeakSet()
        self._file: int | None = None

    def spool(self, shape: tuple[int, ...], dtype: np.dtype | str) -> Spool:
        """Return an empty spool for rows of this shape and type."""
        spool = Spool(self, shape, dtype)
        self._spools.add(spool)
        return spool

    def _hold(self, n_bytes: int) -> None:
        self.held_bytes += n_bytes
        if self.held_bytes > self.limit_bytes:
            for spool in self._spools:
                spool._let_go()
            self.held_bytes = 0

    def _write(self, rows: np.ndarray) -> int:
        """Append rows to the file; return where they begin."""
        if self._file is None:
            self._file = self._unnamed_file()
        offset, rest = self.spilled_bytes, _raw(rows)
        try:
            while rest:
                rest = rest[os.pwrite(self._file, rest, offset + rows.nbytes - len(rest)) :]
        except OSError as error:
            free = shutil.disk_usage(self.folder).free
            raise DiskFull(self.folder / "(spilled rows)", rows.nbytes, free) from error
        self.spilled_bytes += rows.nbytes
        return offset

    def _unnamed_file(self) -> int:
        try:
            descriptor, name = tempfile.mkstemp(dir=self.folder)
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            raise UnwritableFolder(self.folder, why) from error
        Path(name).unlink()
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def _read(self, rows: np.ndarray, offset: int) -> None:
        """Fill an array with what lies at `offset`."""
        rest = _raw(rows)
        while rest:
            n = os.preadv(self._file, [rest], offset + rows.nbytes - len(rest))
            if n == 0:
                raise OSError("the file of spilled rows is shorter than what was written to it")
            rest = rest[n:]


class Spool:
    """An array that grows row by row: `shape`, `dtype`, `len`, slices and `np.asarray`."""

    def __init__(self, spill: Spill, shape: tuple[int, ...], dtype: np.dtype | str) -> None:
        self.dtype = np.dtype(dtype)
        self._row = tuple(shape)
        self._spill = spill
        self._held: list[np.ndarray] = []
        self._parts: list[tuple[int, int, int]] = []  # first row, past the last row, file offset

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, *shape of a row)."""
        return (self._n_spilled + len(self._held), *self._row)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, wherever they are."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def _n_spilled(self) -> int:
        return self._parts[-1][1] if self._parts else 0

    def append(self, row: np.ndarray) -> None:
        """Add a copy of one row; raises `DiskFull` when it cannot be kept."""
        row = np.array(row, self.dtype)
        if row.shape != self._row:
            raise ValueError(f"a row of this spool has shape {self._row}, not {row.shape}")
        self._held.append(row)
        self._spill._hold(row.nbytes)

    def _let_go(self) -> None:
        """Move what is in memory to the file."""
        if self._held:
            start, stop = self._n_spilled, len(self)
            self._parts.append((start, stop, self._spill._write(np.stack(self._held))))
            self._held = []

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return consecutive rows; only what is asked for is read."""
        start, stop, stride = rows.indices(len(self))
        if stride != 1:
            raise IndexError(f"rows of a spool are consecutive, not every {stride}")
        found = [
            self._part(max(start, first), min(stop, last), first, offset)
            for first, last, offset in self._parts
            if max(start, first) < min(stop, last)
        ]
        n_spilled = self._n_spilled
        held = self._held[max(0, start - n_spilled) : max(0, stop - n_spilled)]
        found += [np.stack(held)] if held else []
        return np.concatenate(found) if found else np.zeros((0, *self._row), self.dtype)

    def _part(self, start: int, stop: int, first: int, offset: int) -> np.ndarray:
        """Return rows [start, stop) of the part of the file whose first row lies at `offset`."""
        rows = np.empty((stop - start, *self._row), self.dtype)
        self._spill._read(rows, offset + (start - first) * (rows.nbytes // len(rows)))
        return rows

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)


def _raw(rows: np.ndarray) -> memoryview:
    return memoryview(rows.reshape(-1).view(np.uint8))

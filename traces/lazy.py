"""Activations of a site over many files: an array whose rows are read when they are sliced."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from traces.header import SiteInfo

if TYPE_CHECKING:
    from traces.collection import TraceCollection

DENSE = 4
"""Scattered rows are read with those between them, up to this many times their number."""


class LazyActivations:
    """Rows of one site, those of all files one after the other.

    `shape`, `dtype`, `len` and indexing are those of an array (D, *shape of the site); the first
    index takes a number, a slice, or an array of numbers or truth values.  `np.asarray` reads all.
    """

    def __init__(
        self,
        traces: TraceCollection,
        site: str,
        infos: Mapping[int, SiteInfo],
        first_decisions: np.ndarray,
    ) -> None:
        self.site = site
        self.files = tuple(infos)
        """Numbers of the files that have the site."""
        self.dtype = np.result_type(*(info.dtype for info in infos.values()))
        self._traces = traces
        self._decisions = []
        for file in self.files:
            with traces.reading(file) as reader:
                rows = reader.activation_decisions(site)
            self._decisions.append(rows + first_decisions[file])
        self._starts = np.cumsum([0, *map(len, self._decisions)])
        self.shape = (int(self._starts[-1]), *next(iter(infos.values())).shape)

    @cached_property
    def decisions(self) -> np.ndarray:
        """Row of decisions/ that each row belongs to, (D,)."""
        return np.concatenate(self._decisions)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: object) -> np.ndarray:
        """Read the rows of the first index, then apply the others."""
        first, *others = index if isinstance(index, tuple) else (index,)
        rows = np.arange(len(self))[first]
        found = self._rows(np.atleast_1d(rows))
        if rows.ndim == 0:
            return found[(0, *others)]
        return found[(slice(None), *others)] if others else found

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __repr__(self) -> str:
        return f"<activations of {self.site}, {self.shape} {self.dtype}, {len(self.files)} files>"

    def _rows(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        places = np.searchsorted(self._starts, rows, side="right") - 1
        breaks = np.flatnonzero(np.diff(places)) + 1
        for i, j in pairwise([0, *breaks.tolist(), len(rows)]) if len(rows) else ():
            place = places[i]
            found[i:j] = self._rows_of_file(self.files[place], rows[i:j] - self._starts[place])
        return found

    def _rows_of_file(self, file: int, rows: np.ndarray) -> np.ndarray:
        first, last = int(rows.min()), int(rows.max())
        with self._traces.reading(file) as reader:
            if last - first < DENSE * len(rows):
                return reader.activation(self.site, slice(first, last + 1))[rows - first]
            chosen, place = np.unique(rows, return_inverse=True)
            return reader.activation(self.site, chosen)[place]

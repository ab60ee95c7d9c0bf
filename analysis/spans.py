"""Sums over each episode's steps at once: columns of steps/ hold all episodes one after the other.

A number that is not finite spoils its own episode and no other.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spans:
    """Where the steps of each episode lie in a column of steps/."""

    first: np.ndarray
    """(E,) row of the first step."""
    n: np.ndarray
    """(E,) number of steps; 0 is allowed."""

    @classmethod
    def of(cls, episodes: Mapping[str, np.ndarray]) -> "Spans":
        """Spans of the columns `first_step` and `n_steps` of episodes/."""
        return cls(
            episodes["first_step"].astype(np.int64), np.maximum(episodes["n_steps"], 0).astype(int)
        )

    @property
    def last(self) -> np.ndarray:
        """(E',) row of the last step of each episode that has one."""
        return (self.first + self.n - 1)[self.n > 0]

    @property
    def rows(self) -> np.ndarray:
        """(T',) the rows of all episodes, in their order."""
        before = np.cumsum(self.n) - self.n
        return np.repeat(self.first - before, self.n) + np.arange(int(self.n.sum()))

    def head(self, steps: int) -> "Spans":
        """The first steps of each episode."""
        return Spans(self.first, np.minimum(self.n, steps))

    def reduce(self, ufunc: np.ufunc, values: np.ndarray, empty: float = 0.0) -> np.ndarray:
        """Return (E,) of `ufunc` over the values (T,) of each episode; `empty` without steps."""
        some = self.n > 0
        out = np.full(len(self.n), empty, dtype=np.result_type(values.dtype, type(empty)))
        if some.any():
            edges = np.stack([self.first[some], (self.first + self.n)[some]], axis=1).ravel()
            padded = np.append(values, values[-1:])  # the last span may end where the values end
            with np.errstate(over="ignore", invalid="ignore"):
                out[some] = ufunc.reduceat(padded, edges)[::2]
        return out

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Return (E,) sums; truth values are counted."""
        return self.reduce(np.add, values.astype(np.float64, copy=False))

    def mean(self, values: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        """Return (E,) means, over the steps that `where` (T,) marks; NaN without such a step."""
        if where is not None:
            values = np.where(where, values, 0.0)
        count = self.n if where is None else self.sum(where)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(count > 0, self.sum(values) / count, np.nan)

    def each(self, values: np.ndarray) -> np.ndarray:
        """Return (T',) the value (E,) of the episode that each step belongs to, in their order."""
        return np.repeat(values, self.n)

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """Return the values of each episode."""
        return [values[start : start + n] for start, n in zip(self.first, self.n, strict=True)]

"""What one pass over the activations of a site adds up: moments, histogram, sums an episode.

Rows come block by block and each episode's in one piece. Sums are those of float32 values less the
first row seen, taken an episode at a time and added in float64, so that a large mean costs no
digits of a small spread, and equal inputs give equal sums to the last bit.
"""

from itertools import pairwise

import numpy as np

from analysis.histograms import Histogram

HALF_MASK = np.int32(~(0x7 << 28))
NOT_FINITE = np.float32(2.0**16)


class Tally:
    """Sums of one arm of one site.

    Args:
        units: neurons.
        episodes: how many there will be.
        pivot: (units,) subtracted from every value: one of the rows.
    """

    def __init__(self, units: int, episodes: int, pivot: np.ndarray):
        self.pivot = pivot.astype(np.float32)
        self.histogram = Histogram(units)
        self.counts = np.zeros(episodes, np.int64)
        self.sums = np.zeros((episodes, units))
        """Of the values less the pivot, per episode."""
        self.squares = np.zeros(units)

    def add(self, values: np.ndarray, raw: np.ndarray, episode: np.ndarray) -> None:
        """Add rows.

        Args:
            values: (S, units) float32, all finite.
            raw: the same as they were read.
            episode: (S,) ascending.
        """
        self.histogram.add(raw)
        centred = values - self.pivot
        self.squares += np.einsum("su,su->u", centred, centred)
        add_by_episode(centred, episode, self.counts, self.sums)

    @property
    def n(self) -> int:
        """Rows."""
        return int(self.counts.sum())

    @property
    def mean(self) -> np.ndarray:
        """(units,) over all rows."""
        return self.pivot + self.sums.sum(axis=0) / max(self.n, 1)

    @property
    def std(self) -> np.ndarray:
        """(units,) over all rows, ddof 1; exactly 0 where all equal the pivot."""
        offset = self.sums.sum(axis=0) / max(self.n, 1)
        spread = np.maximum(self.squares - self.n * offset**2, 0.0)
        return np.sqrt(spread / max(self.n - 1, 1))

    def episode_means(self) -> np.ndarray:
        """(episodes that have rows, units)."""
        seen = self.counts > 0
        return self.pivot + self.sums[seen] / self.counts[seen, None]


class Differences:
    """Sums of tuned minus base, row by row."""

    def __init__(self, units: int, episodes: int):
        self.counts = np.zeros(episodes, np.int64)
        self.sums = np.zeros((episodes, units))
        self.largest = np.zeros(units, np.float32)
        """Of |tuned - base|: zero where no bit differs."""

    def add(self, base: np.ndarray, tuned: np.ndarray, episode: np.ndarray) -> None:
        """Add rows (S, units) float32, all finite; `episode` ascending."""
        difference = tuned - base
        np.maximum(self.largest, difference.max(axis=0, initial=0.0), out=self.largest)
        np.maximum(self.largest, -difference.min(axis=0, initial=0.0), out=self.largest)
        add_by_episode(difference, episode, self.counts, self.sums)

    @property
    def mean(self) -> np.ndarray:
        """(units,) over all rows."""
        return self.sums.sum(axis=0) / max(int(self.counts.sum()), 1)

    def episode_means(self) -> np.ndarray:
        """(episodes that have rows, units)."""
        seen = self.counts > 0
        return self.sums[seen] / self.counts[seen, None]


def add_by_episode(
    values: np.ndarray, episode: np.ndarray, counts: np.ndarray, sums: np.ndarray
) -> None:
    """Add rows (S, units) to `counts` (E,) and `sums` (E, units) of their ascending episodes."""
    if not len(values):
        return
    edges = [0, *(np.flatnonzero(np.diff(episode)) + 1).tolist(), len(episode)]
    for start, stop in pairwise(edges):
        counts[episode[start]] += stop - start
        sums[episode[start]] += values[start:stop].sum(axis=0)


def as_float32(values: np.ndarray) -> np.ndarray:
    """Values as float32; what is not finite becomes NaN.

    numpy converts halves one at a time. As integers they are handled many at a time: exponent and
    mantissa go where float32 has them, and the exponent's offset is made up for.
    """
    if values.dtype != np.float16:
        values = values.astype(np.float32)
        return np.where(np.isfinite(values), values, np.float32("nan"))
    out = np.empty(values.shape, np.float32)
    bits = out.view(np.int32)
    np.copyto(bits, values.view(np.int16))
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, HALF_MASK, out=bits)
    out *= np.float32(2.0 ** (127 - 15))
    if out.size and (out.max() >= NOT_FINITE or out.min() <= -NOT_FINITE):
        out[np.abs(out) >= NOT_FINITE] = np.nan
    return out

"""Histograms of activations in bins that are fixed before anything is read, and their KS distance.

A bin is what float16 numbers share in sign, exponent and the first six bits of the mantissa: its
width is at most 1/64 of its values, below 1e-6 there is one bin around zero. So one pass suffices,
whatever the range, and halves need no rounding to find their bin.
"""

import numpy as np

DROPPED_BITS = 4
BINS = 1 << (16 - DROPPED_BITS)
LARGEST = np.float32(65504)
AT_A_TIME = 256
"""Units whose cumulative sums are held at once."""


class Histogram:
    """Counts of the values of many units, (units, bins)."""

    def __init__(self, units: int):
        self.counts = np.zeros((units, BINS), np.int32)

    def add(self, values: np.ndarray) -> None:
        """Count values (S, units), float16 or float32, all finite."""
        if values.dtype != np.float16:
            values = np.clip(values, -LARGEST, LARGEST).astype(np.float16)  # keeps the order
        codes = np.ascontiguousarray((values.view(np.uint16) >> DROPPED_BITS).T)
        for unit, code in enumerate(codes):
            self.counts[unit] += np.bincount(code, minlength=BINS)

    def ascending(self, units: slice) -> np.ndarray:
        """Counts of some units with the bins in the order of their values, (u, BINS - 1)."""
        half = BINS // 2
        counts = self.counts[units]
        below, above = counts[:, :half:-1], counts[:, 1:half]
        zero = counts[:, 0] + counts[:, half]  # 0.0 and -0.0 are one value
        return np.concatenate([below, zero[:, None], above], axis=1)

    def positive(self) -> np.ndarray:
        """(units,) share of values above the bin around zero; NaN without values."""
        n = self.counts.sum(axis=1)
        above = self.counts[:, 1 : BINS // 2].sum(axis=1)
        return np.where(n > 0, above / np.maximum(n, 1), np.nan)


def ks_distance(one: Histogram, other: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """Kolmogorov-Smirnov statistic sup |F_1 - F_2| of every unit, as what it lies between.

    At the edges of bins both distribution functions are known exactly, so the largest difference
    there is a lower bound. Inside a bin F_1 - F_2 starts from its left edge and can rise by F_1's
    mass in the bin or fall by F_2's: the largest of these is an upper bound.

    Returns:
        (at least, at most), each (units,); NaN without values.
    """
    units = len(one.counts)
    least, most = np.full((2, units), np.nan)
    for start in range(0, units, AT_A_TIME):
        part = slice(start, start + AT_A_TIME)
        f, g = one.ascending(part), other.ascending(part)
        n, m = f.sum(axis=1, keepdims=True), g.sum(axis=1, keepdims=True)
        known = (n * m > 0)[:, 0]
        f, g = f / np.maximum(n, 1), g / np.maximum(m, 1)
        right = np.cumsum(f, axis=1) - np.cumsum(g, axis=1)
        left = right - f + g
        least[part] = np.where(known, np.abs(right).max(axis=1), np.nan)
        highest = np.maximum((left + f).max(axis=1), -(left - g).min(axis=1))
        most[part] = np.where(known, np.clip(highest, least[part], 1.0), np.nan)
    return least, most

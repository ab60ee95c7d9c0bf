"""Does a quantity move with the dose? Page's test and a slope, over pairs seen at every dose."""

import itertools
import math
from collections import Counter
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from analysis.stats import MIN_PAIRS, Interval, bootstrap_ci

MIN_DOSES = 3
"""Two doses are a difference; a trend needs three."""

EXACT_DOSES = 7
"""Up to this many doses (7! = 5,040 orders) the null distribution of L is exact."""


@dataclass(frozen=True)
class Trend:
    """Trend of a value over doses; p is two-sided, since the sign is an empirical question."""

    n: int
    """Pairs seen at every dose."""
    page_l: float | None
    p_value: float | None
    slope: float | None
    """Change of the value per unit of dose: mean over pairs of each pair's least-squares slope."""
    slope_ci: Interval | None
    notes: tuple[str, ...] = ()


def trend(doses: ArrayLike, values: ArrayLike, level: float = 0.95, *, seed: int = 0) -> Trend:
    """Page's L with its p, and the slope per unit of dose with a BCa interval over pairs.

        L = sum_j j R_j,   R_j = sum over pairs of the rank (1..k, ties averaged) at the j-th dose

    Page, J. Am. Stat. Assoc. 58 (1963) 216. Under the null the ranks of each pair are exchangeable,
    so p = P(|L* - E L| >= |L - E L|) with ranks permuted within each pair: exact, ties included,
    for k <= 7 doses; beyond that the normal approximation with that permutation's own variance.

    Args:
        doses: (k,) distinct doses, in any order.
        values: (n, k) one row a pair, one column a dose.
        level: coverage of the slope's interval.
        seed: of the bootstrap.
    """
    x = np.asarray(doses, dtype=np.float64)  # (k,)
    y = np.asarray(values, dtype=np.float64).reshape(-1, len(x))  # (n, k)
    if len(np.unique(x)) != len(x) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("doses must be distinct and every number finite")
    order = np.argsort(x)
    x, y = x[order], y[:, order]
    n, k = y.shape
    if k < MIN_DOSES:
        note = f"a trend needs {MIN_DOSES} doses or more; given: {k}"
        return Trend(n, None, None, None, None, (note,))
    if n < MIN_PAIRS:
        note = f"a trend needs {MIN_PAIRS} pairs or more seen at every dose; given: {n}"
        return Trend(n, None, None, None, None, (note,))
    ranks = np.stack([_doubled_ranks(row) for row in y])  # (n, k) twice the rank: whole numbers
    doubled = int((ranks * np.arange(1, k + 1)).sum())
    centred = x - x.mean()
    slopes = y @ centred / (centred @ centred)  # (n,)
    ci = bootstrap_ci(slopes, level, seed=seed)
    p = _page_p(ranks, doubled)
    return Trend(n, doubled / 2, p, float(np.sort(slopes).mean()), ci)


def _page_p(ranks: np.ndarray, doubled: int) -> float:
    """Two-sided permutation p of twice Page's L, `doubled`, given twice the ranks (n, k)."""
    n, k = ranks.shape
    expected = n * k * (k + 1) ** 2 // 2  # twice n k (k+1)^2 / 4, a whole number
    deviation = abs(doubled - expected)
    if k > EXACT_DOSES:
        position = np.arange(1, k + 1)
        spread = ((position - position.mean()) ** 2).sum()
        variance = spread * ((ranks - (k + 1)) ** 2).sum() / (k - 1)
        if variance == 0:
            return 1.0
        return 2 * NormalDist().cdf(-deviation / math.sqrt(variance))
    total, start = np.ones(1), 0
    for row in np.sort(ranks, axis=1).tolist():
        share, low = _row_distribution(tuple(row))
        total, start = np.convolve(total, share), start + low
    distance = np.abs(np.arange(start, start + len(total)) - expected)
    return float(min(1.0, total[distance >= deviation].sum()))


@cache
def _row_distribution(ranks: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """Probabilities of one pair's share of twice L over all orders, and its smallest value."""
    counts = Counter(
        sum(j * rank for j, rank in enumerate(order, start=1))
        for order in itertools.permutations(ranks)
    )
    low = min(counts)
    share = np.zeros(max(counts) - low + 1)
    for value, count in counts.items():
        share[value - low] = count
    return share / share.sum(), low


def _doubled_ranks(row: np.ndarray) -> np.ndarray:
    """Twice the ranks 1..k of a row, ties averaged: #below + #not above + 1."""
    below = (row[:, None] > row[None, :]).sum(axis=1)
    not_above = (row[:, None] >= row[None, :]).sum(axis=1)
    return below + not_above + 1

"""P values of t and of the Kolmogorov-Smirnov statistic, for many values at once, without scipy."""

import math

import numpy as np
from numpy.typing import ArrayLike

TERMS = 400
"""Of the continued fraction at most; it converges in O(sqrt(max(a, b)))."""

CLOSE = 3e-16
TINY = 1e-300


def student_p(t: ArrayLike, df: ArrayLike) -> np.ndarray:
    """Two-sided p of Student's t, elementwise; NaN where t or df is.

    p = I_x(df / 2, 1 / 2),  x = df / (df + t^2)      (Abramowitz and Stegun 26.7.1, 26.5.27)
    """
    t, df = np.broadcast_arrays(np.asarray(t, np.float64), np.asarray(df, np.float64))
    p = np.full(t.shape, np.nan)
    known = ~np.isnan(t) & (df > 0)
    square = np.minimum(np.abs(t[known]), 1e150) ** 2
    p[known] = _beta_share(df[known] / 2, 0.5, df[known] / (df[known] + square))
    return p


def kolmogorov_p(d: ArrayLike, n: ArrayLike) -> np.ndarray:
    """P that two samples of one distribution differ by d or more, asymptotically; elementwise.

    p = 2 sum_{j >= 1} (-1)^(j-1) exp(-2 j^2 L^2),  L = (sqrt n + 0.12 + 0.11 / sqrt n) d

    Kolmogorov 1933; the correction of L for small n is Stephens', J. R. Stat. Soc. B 32 (1970) 115.

    Args:
        d: Kolmogorov-Smirnov statistics.
        n: n_1 n_2 / (n_1 + n_2), n_i being the number of independent draws of a sample.
    """
    root = np.sqrt(np.asarray(n, np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = (root + 0.12 + 0.11 / root) * np.asarray(d, np.float64)
    return np.where(scaled > 0.18, _kolmogorov_tail(scaled), np.where(np.isnan(scaled), np.nan, 1))


def _kolmogorov_tail(scaled: np.ndarray) -> np.ndarray:
    """The sum above; below 0.18 it is 1 to double precision and converges badly."""
    j = np.arange(1, 41).reshape(-1, *(1,) * scaled.ndim)
    sign = np.where(j % 2, 1.0, -1.0)
    return np.clip(2 * (sign * np.exp(-2 * (j * scaled) ** 2)).sum(axis=0), 0.0, 1.0)


def _beta_share(a: np.ndarray, b: float, x: np.ndarray) -> np.ndarray:
    """Regularised incomplete beta function I_x(a, b) of 1-D a and x."""
    swapped = x > (a + 1) / (a + b + 2)  # there the fraction for 1 - x is the one that converges
    one, other = np.where(swapped, b, a), np.where(swapped, a, b)
    share = _beta_fraction(one, other, np.where(swapped, 1 - x, x))
    return np.clip(np.where(swapped, 1 - share, share), 0.0, 1.0)


def _beta_fraction(a: np.ndarray, b: np.ndarray, x: np.ndarray) -> np.ndarray:
    """I_x(a, b) by its continued fraction (DLMF 8.17.22), evaluated as Lentz does."""
    sizes, place = np.unique(np.stack([a, b]), axis=1, return_inverse=True)
    logs = np.array([math.lgamma(p + q) - math.lgamma(p) - math.lgamma(q) for p, q in sizes.T])
    with np.errstate(divide="ignore"):
        front = np.exp(logs[place.ravel()] + a * np.log(x) + b * np.log1p(-x)) / a
    c = np.ones_like(x)
    d = 1 / _off_zero(1 - (a + b) * x / (a + 1))
    fraction = d.copy()
    for m in range(1, TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _off_zero(1 + term * d)
            c = _off_zero(1 + term / c)
            fraction *= c * d
        if np.all(np.abs(c * d - 1) < CLOSE):
            break
    return front * fraction


def _off_zero(values: np.ndarray) -> np.ndarray:
    return np.where(np.abs(values) < TINY, TINY, values)

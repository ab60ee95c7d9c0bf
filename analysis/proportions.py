"""Shares of episodes that succeeded, with their intervals; imports no numpy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

Interval = tuple[float, float]


def wilson(successes: float, n: float, level: float = 0.95) -> Interval | None:
    """Score interval of a proportion; None when n is 0.

        (p + z^2/2n  -+  z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n),   p = successes / n

    Wilson, J. Am. Stat. Assoc. 22 (1927) 209; without continuity correction.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be in 0..{n}, got {successes}")
    if n == 0:
        return None
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = successes / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else (centre - half) / scale  # exact at the ends, not 1e-17
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


@dataclass(frozen=True, slots=True)
class Proportion:
    """How many of n succeeded."""

    successes: int
    n: int
    """At least 1."""
    effective: float = 0.0
    """How many independent episodes would say as much; 0: all n are independent."""

    @property
    def rate(self) -> float:
        """Share that succeeded."""
        return self.successes / self.n

    @property
    def interval(self) -> Interval:
        """95 % Wilson interval of the rate, at the effective n."""
        n = self.effective or float(self.n)
        return _interval(self.rate * n, n)

    @classmethod
    def of(cls, rate: float | None, n: int, effective: float = 0.0) -> "Proportion | None":
        """From a rate that somebody worked out; None unless it can be one."""
        if rate is None or n < 1 or not 0 <= rate <= 1:
            return None
        return cls(round(rate * n), n, effective if 0 < effective <= n else 0.0)

    def __add__(self, other: "Proportion") -> "Proportion":
        effective = 0.0
        if self.effective or other.effective:
            effective = (self.effective or self.n) + (other.effective or other.n)
        return Proportion(self.successes + other.successes, self.n + other.n, effective)


def effective_n(groups: Sequence[tuple[int, int]]) -> float:
    """Return how many independent episodes say as much as groups that share a scene each.

        n_eff = p (1 - p) / v,   v = k / (k - 1) sum_g (s_g - p n_g)^2 / n^2

    with s_g successes of n_g episodes in group g of k; v is the variance of a ratio estimated from
    clusters (Kish, Survey Sampling, 1965, 6.3). Between k and n; k where p is 0 or 1, which says
    nothing about the spread.

    Args:
        groups: (successes, episodes) of each.
    """
    k, n = len(groups), sum(size for _, size in groups)
    p = sum(won for won, _ in groups) / n if n else 0.0
    if k < 2 or p in (0.0, 1.0):
        return float(k)
    spread = k / (k - 1) * sum((won - p * size) ** 2 for won, size in groups) / n**2
    return min(float(n), max(float(k), p * (1 - p) / spread)) if spread else float(n)


@lru_cache(maxsize=1024)
def _interval(successes: float, n: float) -> Interval:
    found = wilson(successes, n)
    assert found is not None  # n is at least 1
    return found

"""Intervals and paired tests for episodes: small, seeded, and never NaN.

The unit is the episode (control steps are autocorrelated, so T is never n). Every function is a
pure function of its numbers: the order of the values does not matter, and the pseudo-random parts
run from a fixed seed, so the same traces always print the same digits. What cannot be known from
the given numbers is None, and the note beside it says why.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from analysis.proportions import Interval, wilson

MIN_PAIRS = 6
"""Pairs below which no paired interval or p is given: 2 / 2^5 = 0.0625 > 0.05 (two-sided)."""

EXACT_PAIRS = 14
"""Up to this many pairs the sign-flip test enumerates all 2^n signs."""

DRAWS = 20_000
"""Monte Carlo sign flips beyond `EXACT_PAIRS`."""

RESAMPLES = 10_000
"""Bootstrap resamples of one interval."""

LARGE = 1000
"""Beyond this many values the laws of resampled means and of random signs are written down from
their first moments instead of drawn: what that leaves out is smaller than what drawing adds."""

_BLOCK = 1 << 21  # random numbers held at once, so that memory does not grow with n


def bootstrap_ci(
    values: ArrayLike, level: float = 0.95, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """BCa bootstrap interval of a mean; None for fewer than two values.

        z0 = Phi^-1( P(m* < m) + P(m* = m)/2 )            bias
        a  = sum (m_. - m_i)^3 / (6 (sum (m_. - m_i)^2)^1.5)   acceleration; m_i leaves one out
        limits = quantiles of m* at  Phi( z0 + (z0 + z) / (1 - a (z0 + z)) )
        z  = Phi^-1(1/2 -+ level/2)

    Efron, J. Am. Stat. Assoc. 82 (1987) 171. For a mean, m_. - m_i = (x_i - m) / (n - 1). Equal
    values give an interval of no width. Beyond `LARGE` values m* has the quantiles
    m + se (z + a (z^2 - 1)) and z0 = a (Hall, The Bootstrap and Edgeworth Expansion, 1992, 3.5).
    """
    x = np.sort(_finite(values))  # (n,)
    n = len(x)
    if n < 2:
        return None
    mean = float(x.mean())
    if x[0] == x[-1]:
        return mean, mean
    normal = NormalDist()
    pull = (x - mean) / (n - 1)
    a = float((pull**3).sum() / (6 * (pull**2).sum() ** 1.5))
    tails = [normal.inv_cdf(tail) for tail in (0.5 - level / 2, 0.5 + level / 2)]
    if n > LARGE:
        ends = [_accelerated(z, a, a) for z in tails]
        se = float(x.std()) / math.sqrt(n)
        low, high = (mean + se * (z + a * (z * z - 1)) for z in ends)
        return low, high
    means = _resampled_means(x, resamples, seed)  # (resamples,)
    tie = 1e-12 * float(np.abs(x).max())  # summation order alone must not count as a difference
    below = float((means < mean - tie).mean())
    share = below + 0.5 * float((np.abs(means - mean) <= tie).mean())
    share = min(max(share, 0.5 / resamples), 1 - 0.5 / resamples)
    z0 = normal.inv_cdf(share)
    ends = [normal.cdf(_accelerated(z, z0, a)) for z in tails]
    low, high = np.quantile(means, ends)
    return float(low), float(high)


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a - b over pairs, with what makes it true."""

    n: int
    mean: float | None
    ci: Interval | None
    p_value: float | None
    d_z: float | None
    """Cohen's d_z = mean / sd (ddof 1) of the differences; None without variance."""
    notes: tuple[str, ...] = ()


def paired_difference(
    a: ArrayLike, b: ArrayLike, level: float = 0.95, *, seed: int = 0
) -> PairedDifference:
    """Compare two arms pair by pair: mean of a - b, BCa interval, two-sided sign-flip p, d_z.

    Below `MIN_PAIRS` pairs the interval and p are None: a test that cannot reach 0.05 has nothing
    to say, and a bootstrap of so few differences is far too narrow.
    """
    a, b = _finite(a), _finite(b)
    if a.shape != b.shape:
        raise ValueError(f"pairs need equal lengths, got {len(a)} and {len(b)}")
    d = np.sort(a - b)  # (n,)
    n = len(d)
    if n == 0:
        return PairedDifference(0, None, None, None, None, ("no pairs",))
    mean = float(d.mean())
    # Equal differences can differ in the last bit; their spread is no variance.
    flat = d[-1] - d[0] <= 1e-12 * max(float(np.abs(a).max()), float(np.abs(b).max()))
    d_z = None if flat else mean / float(d.std(ddof=1))
    if n < MIN_PAIRS:
        pairs = "pair" if n == 1 else "pairs"
        note = f"{n} {pairs}: {MIN_PAIRS} pairs or more are needed for p < 0.05 to be reachable"
        return PairedDifference(n, mean, None, None, d_z, (note,))
    notes = (f"no variance: all {n} differences are equal",) if flat else ()
    ci = (mean, mean) if flat else bootstrap_ci(d, level, seed=seed)
    return PairedDifference(n, mean, ci, sign_flip_p(d, seed=seed), d_z, notes)


def sign_flip_p(differences: ArrayLike, *, draws: int = DRAWS, seed: int = 0) -> float | None:
    """Two-sided p of mean(d) when each pair's sign is arbitrary; None without pairs.

    p = #{|sum s_i d_i| >= |sum d_i|} / 2^n over all signs for n <= 14, else (b + 1) / (m + 1) with
    b of m seeded draws as extreme. Fisher, The Design of Experiments (1935), section 21; the +1 is
    Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) 39. Beyond `LARGE` pairs the sum is
    normal with variance sum d_i^2 (Lindeberg).
    """
    signed = np.sort(_finite(differences))  # (n,)
    n = len(signed)
    if n == 0:
        return None
    d = np.sort(
        np.abs(signed)
    )  # s_i d_i and s_i |d_i| have one distribution; this one is canonical
    limit = abs(float(signed.sum())) - 1e-12 * float(d.sum())
    if n > LARGE:
        spread = math.sqrt(float(d @ d))
        return math.erfc(max(limit, 0.0) / spread / math.sqrt(2)) if spread else 1.0
    if n <= EXACT_PAIRS:
        bits = np.arange(1 << n)[:, None] >> np.arange(n) & 1  # (2^n, n)
        return float((np.abs((2 * bits - 1) @ d) >= limit).mean())
    rng = np.random.default_rng(seed)
    extreme = 0
    for size in _blocks(draws, n):
        signs = 2 * rng.integers(0, 2, size=(size, n), dtype=np.int8) - 1  # (size, n)
        extreme += int((np.abs(signs @ d) >= limit).sum())
    return (extreme + 1) / (draws + 1)


@dataclass(frozen=True)
class SuccessDifference:
    """Paired difference of two success rates."""

    n: int
    difference: float | None
    ci: Interval | None
    p_value: float | None
    """Exact McNemar p."""
    only_a: int
    """Pairs where a alone succeeded."""
    only_b: int
    """Pairs where b alone succeeded."""


def paired_success(a: Sequence[bool], b: Sequence[bool], level: float = 0.95) -> SuccessDifference:
    """Compare success pair by pair: p_a - p_b, Newcombe's interval, exact McNemar p.

    Newcombe's method 10, Stat. Med. 17 (1998) 2635: with Wilson limits (l, u) of each arm and the
    continuity-corrected phi between the arms,

        low  = D - sqrt((p_a-l_a)^2 - 2 phi (p_a-l_a)(u_b-p_b) + (u_b-p_b)^2)
        high = D + sqrt((u_a-p_a)^2 - 2 phi (u_a-p_a)(p_b-l_b) + (p_b-l_b)^2)

    McNemar, exact form: with m = r + s discordant pairs, p = min(1, 2 P(Bin(m, 1/2) <= min(r, s))).
    Six discordant pairs all one way are the fewest that reach 0.05.
    """
    x, y = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if x.shape != y.shape:
        raise ValueError(f"pairs need equal lengths, got {len(x)} and {len(y)}")
    n = len(x)
    if n == 0:
        return SuccessDifference(0, None, None, None, 0, 0)
    both, neither = int((x & y).sum()), int((~x & ~y).sum())
    r, s = int((x & ~y).sum()), int((~x & y).sum())
    p_a, p_b = (both + r) / n, (both + s) / n
    low_a, high_a = wilson(both + r, n, level)
    low_b, high_b = wilson(both + s, n, level)
    cross = both * neither - r * s
    if cross > 0:
        cross = max(cross - n / 2, 0.0)
    product = (both + r) * (neither + s) * (both + s) * (neither + r)
    phi = cross / math.sqrt(product) if product else 0.0
    difference = (r - s) / n
    low = difference - _joined(p_a - low_a, high_b - p_b, phi)
    high = difference + _joined(high_a - p_a, p_b - low_b, phi)
    m = r + s
    p_value = min(1.0, 2 * sum(math.comb(m, i) for i in range(min(r, s) + 1)) / 2**m)
    return SuccessDifference(n, difference, (max(low, -1.0), min(high, 1.0)), p_value, r, s)


def success_gap(
    successes_a: int, n_a: int, successes_b: int, n_b: int, level: float = 0.95
) -> tuple[float, Interval]:
    """Return p_a - p_b of independent samples and its interval (both n at least 1).

    Newcombe's method 10 for independent proportions, Stat. Med. 17 (1998) 873: as `paired_success`
    with phi = 0.
    """
    p_a, p_b = successes_a / n_a, successes_b / n_b
    (low_a, high_a), (low_b, high_b) = (
        wilson(successes_a, n_a, level),
        wilson(successes_b, n_b, level),
    )
    gap = (successes_a * n_b - successes_b * n_a) / (n_a * n_b)
    low = gap - math.hypot(p_a - low_a, high_b - p_b)
    return gap, (low, gap + math.hypot(high_a - p_a, p_b - low_b))


def fisher_exact(successes_a: int, n_a: int, successes_b: int, n_b: int) -> float:
    """Two-sided p of Fisher's exact test that two independent shares of successes are equal.

    The sum of the probabilities of all tables with these margins that are no likelier than the one
    seen: P(k) = C(n_a, k) C(n_b, m - k) / C(n_a + n_b, m), m successes in all.
    """
    m = successes_a + successes_b
    ways = {
        k: math.comb(n_a, k) * math.comb(n_b, m - k)
        for k in range(max(0, m - n_b), min(n_a, m) + 1)
    }
    seen = ways[successes_a]
    return sum(w for w in ways.values() if w <= seen) / math.comb(n_a + n_b, m)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values of one family so that any of them below 0.05 is significant in all of it.

        adjusted_(i) = max over j <= i of min(1, (m - j + 1) p_(j)),   p_(1) <= ... <= p_(m)

    Holm, Scand. J. Stat. 6 (1979) 65.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _accelerated(z: float, z0: float, a: float) -> float:
    return z0 + (z0 + z) / (1 - a * (z0 + z))


def _joined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def _resampled_means(x: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = len(x)
    means = [
        x[rng.integers(0, n, size=(size, n))].mean(axis=1)  # (size, n) -> (size,)
        for size in _blocks(resamples, n)
    ]
    return np.concatenate(means)


def _blocks(rows: int, width: int) -> list[int]:
    size = max(1, _BLOCK // width)
    return [min(size, rows - start) for start in range(0, rows, size)]


def _finite(values: ArrayLike) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise ValueError("expected a flat list of finite numbers")
    return x

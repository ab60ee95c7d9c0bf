"""Correlations within episodes, and their mean over episodes: the episode is the unit.

Decisions of an episode follow each other too closely to count as independent, and episodes differ
in level. So Pearson's r is worked out within each episode, over its decisions, and what is tested
is the mean of these r, each episode counting once:

    t = mean / (sd / sqrt n),  sd with n - 1,  n episodes, n - 1 degrees of freedom
"""

from dataclasses import dataclass

import numpy as np

from analysis.stats import MIN_PAIRS
from analysis.tails import student_p
from traces.columns import Moments, merged, no_moments

MIN_DECISIONS = 3
"""Through two decisions every line is straight: r would be 1 or -1."""

MIN_EPISODES = MIN_PAIRS
"""Fewer give no interval and no p."""


def correlations(values: np.ndarray, signals: np.ndarray) -> np.ndarray:
    """Pearson's r over the rows of one episode.

    Args:
        values: (rows, N) activations.
        signals: (S, rows).

    Returns:
        (S, N); NaN where either never changes or is not finite, and below `MIN_DECISIONS` rows.
    """
    if len(values) < MIN_DECISIONS:
        return np.full((len(signals), values.shape[1]), np.nan)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        x = values - values.mean(axis=0)
        s = signals - signals.mean(axis=1, keepdims=True)
        x[:, (values == values[0]).all(axis=0)] = 0  # a mean may miss a constant by a last bit
        s[(signals == signals[:, :1]).all(axis=1)] = 0
        scale = np.sqrt((s**2).sum(axis=1))[:, None] * np.sqrt((x**2).sum(axis=0))
        return np.where(scale > 0, (s @ x) / scale, np.nan).clip(-1, 1)


@dataclass
class EpisodeMeans:
    """Running mean over episodes of numbers (*shape), of which some may be unknown (NaN)."""

    moments: Moments
    shape: tuple[int, ...]

    @classmethod
    def of_shape(cls, *shape: int) -> "EpisodeMeans":
        """No episode yet."""
        return cls(no_moments(int(np.prod(shape))), shape)

    def add(self, values: np.ndarray) -> None:
        """Count one episode's numbers."""
        known = np.isfinite(values).ravel()
        one = np.where(known, values.ravel(), 0.0)
        self.moments = merged(self.moments, (known.astype(np.int64), one, np.zeros(len(one))))

    @property
    def n(self) -> np.ndarray:
        """Episodes in which the number was known, (*shape)."""
        return self.moments[0].reshape(self.shape)

    @property
    def mean(self) -> np.ndarray:
        """Over these; NaN of none."""
        return np.where(self.n > 0, self.moments[1].reshape(self.shape), np.nan)

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Limits mean -+ t sd / sqrt n, kept within -1 and 1; NaN below `MIN_EPISODES`."""
        half = np.full(self.shape, np.nan)
        for n in np.unique(self.n[self.n >= MIN_EPISODES]):
            half[self.n == n] = student_quantile(int(n) - 1, level)
        half *= self._error
        return (self.mean - half).clip(-1, 1), (self.mean + half).clip(-1, 1)

    def p(self) -> np.ndarray:
        """Two-sided p that the mean is 0; NaN below `MIN_EPISODES`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(self.mean == 0, 0.0, self.mean / self._error)
        df = np.where(self.n >= MIN_EPISODES, self.n - 1, np.nan)
        return student_p(t.ravel(), df.ravel()).reshape(self.shape)

    @property
    def _error(self) -> np.ndarray:
        n = np.maximum(self.n, 2)
        return np.sqrt(self.moments[2].reshape(self.shape) / (n - 1) / n)


def student_quantile(df: int, level: float = 0.95) -> float:
    """Return t with P(|T| <= t) = level, by bisection of `student_p`."""
    low, high = 0.0, 1.0
    while student_p([high], [df])[0] > 1 - level:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_p([middle], [df])[0] > 1 - level else (low, middle)
    return (low + high) / 2

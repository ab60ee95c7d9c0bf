"""One number for several tasks: the interquartile mean, with a bootstrap stratified by task.

Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 2021
(the package rliable). A task's score is its share of successes. Resampling draws episodes anew
within each task, never tasks: the interval is about these tasks, played again.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from analysis.stats import LARGE, RESAMPLES, Interval


def interquartile_mean(scores: ArrayLike) -> float | np.ndarray:
    """Mean of the scores without the lowest and the highest quarter of them.

        IQM = mean of x_(k+1) .. x_(m-k),   k = floor(m / 4)

    as `scipy.stats.trim_mean(x, 0.25)`; with fewer than four scores, the plain mean.

    Args:
        scores: (..., m) one score a task; leading axes are kept.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def plain_mean(scores: ArrayLike) -> float | np.ndarray:
    """Mean over tasks, each task once: (..., m) to (...)."""
    return np.asarray(scores, dtype=np.float64).mean(axis=-1)


def stratified_interval(
    tasks: Sequence[np.ndarray],
    statistic: Callable[[np.ndarray], np.ndarray],
    level: float = 0.95,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Percentile bootstrap interval of a statistic of task scores; None without episodes.

    Args:
        tasks: per task, (n, arms) truth values, one row an episode; the arms of a row are a pair
            and stay together.
        statistic: from scores (resamples, arms, tasks) to one number a resample.
        level: coverage.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
    """
    if not tasks or any(len(outcomes) == 0 for outcomes in tasks):
        return None
    rng = np.random.default_rng(seed)
    scores = np.stack([_resampled(outcomes, resamples, rng) for outcomes in tasks], axis=-1)
    low, high = np.quantile(statistic(scores), [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def stratified_mean_interval(
    tasks: Sequence[np.ndarray], level: float = 0.95, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the mean of task means.

    Args:
        tasks: per task, (n,) values of its episodes, at least one; beyond `LARGE` of them resampled
            means are drawn from their normal law.
        level: coverage.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
    """
    rng, total = np.random.default_rng(seed), np.zeros(resamples)
    for values in map(np.sort, tasks):
        n = len(values)
        if n > LARGE:
            total += rng.normal(values.mean(), values.std() / np.sqrt(n), resamples)
        else:
            total += values[rng.integers(0, n, size=(resamples, n))].mean(axis=1)
    low, high = np.quantile(total / len(tasks), [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def _resampled(outcomes: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Shares of successes (resamples, arms) when episodes are drawn anew.

    Drawing n rows with replacement is a multinomial draw over the different rows.
    """
    rows, counts = np.unique(np.asarray(outcomes, bool), axis=0, return_counts=True)
    n = len(outcomes)
    drawn = rng.multinomial(n, counts / n, size=resamples)  # (resamples, different rows)
    return drawn @ rows / n

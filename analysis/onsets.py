"""When units become active, for how long, and in how many episodes and tasks.

A unit is a neuron, or a feature of a sparse autoencoder; a row is a policy call. Definitions are
those recovered from what DrVLA (arXiv:2603.19183) publishes for its features
(github.com/drvla/drvla.github.io, commit d672e86: 1,693 LIBERO episodes, 2,048 features):

    run          begins where the value is at least ON and ends where it falls below OFF
    onset        the first row of a run
    onset_count  onsets an episode   |  mean over the episodes that have
    run_length   mean length of runs |  at least one onset
    coverage     active episodes / episodes; active: a value above `active`

ON fits activations of unit-norm inputs, such as theirs: `unit_rows` makes others comparable.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.episode_means import EpisodeMeans

ON = 0.1
"""A run begins here: with it, and any OFF in (0, 0.011], the published run lengths and onset counts
come out for all five features whose every episode is published (0.012 misses one, 0.02 all)."""

OFF = 0.01

ACTIVE = 0.0
"""Of sparse features. Published coverages count episodes that stay below ON; any value above zero
agrees with them, but the threshold itself is not published."""


def unit_rows(values: np.ndarray) -> np.ndarray:
    """Return rows (rows, N) of length 1, of what is finite in them; a row of zeros stays one."""
    finite = np.isfinite(values)
    length = np.sqrt((np.where(finite, values, 0.0) ** 2).sum(axis=1, keepdims=True))
    return values / np.where(length > 0, length, 1.0)


def in_runs(values: np.ndarray, on: float = ON, off: float = OFF) -> np.ndarray:
    """Return (rows, N), whether each row of one episode lies in a run.

    Args:
        values: (rows, N), in the order of time; NaN ends a run.
        on: a run begins at this value or above.
        off: and ends below this one; at most `on`.
    """
    row = np.arange(len(values))[:, None]
    starts, ends = values >= on, ~(values >= off)
    last_start = np.maximum.accumulate(np.where(starts, row, -1), axis=0)
    last_end = np.maximum.accumulate(np.where(ends, row, -1), axis=0)
    return last_start > last_end


@dataclass(frozen=True)
class Coverage:
    """Of each unit, over episodes: arrays (N,), NaN where there is nothing to average."""

    episodes: int
    active_episodes: np.ndarray
    coverage: np.ndarray
    onset_count: np.ndarray
    run_length: np.ndarray
    """In what durations are counted in, control steps unless told otherwise."""
    relative_run_length: np.ndarray
    """Run length over the episode's length."""
    mean_active: np.ndarray
    """Mean of the values above `active`."""
    mean_peak: np.ndarray
    """Mean over active episodes of the largest value."""
    effective_episodes: np.ndarray
    """Number of equally active episodes that would be as diverse: exp(-sum q ln q), q being an
    episode's share of the sum of active values (Hill, Ecology 54 (1973) 427, order 1)."""
    active_tasks: np.ndarray
    """Tasks with an active episode."""
    effective_tasks: np.ndarray
    """As `effective_episodes`, q being proportional to the coverage within a task."""


class CoverageCounter:
    """Counts episodes one at a time, so that not all rows need to be in memory.

    Args:
        units: N.
        tasks: number of tasks.
        active: values above it make an episode active.
        on: see `in_runs`.
        off: see `in_runs`.
    """

    def __init__(
        self,
        units: int,
        tasks: int = 1,
        *,
        active: float = ACTIVE,
        on: float = ON,
        off: float = OFF,
    ) -> None:
        self.thresholds, self.active = (on, off), active
        self._episodes = np.zeros(tasks)
        self._active = np.zeros((tasks, units))
        self._runs = EpisodeMeans.of_shape(3, units)
        self._peaks = EpisodeMeans.of_shape(units)
        self._sum, self._rows, self._x_log_x = np.zeros((3, units))

    def add(self, values: np.ndarray, task: int = 0, duration: np.ndarray | None = None) -> None:
        """Count one episode.

        Args:
            values: (rows, N), in the order of time.
            task: its number, from 0.
            duration: (rows,) control steps that each row stands for; 1 if not given.
        """
        duration = np.ones(len(values)) if duration is None else duration
        inside = in_runs(values, *self.thresholds)
        before = np.vstack([np.zeros_like(inside[:1]), inside[:-1]])
        onsets = (inside & ~before).sum(axis=0)
        length = duration @ inside / np.where(onsets, onsets, np.nan)
        share = length / (duration.sum() or np.nan)
        self._runs.add(np.stack([np.where(onsets, onsets, np.nan), length, share]))
        above = values > self.active
        high = np.where(above & np.isfinite(values), values, 0.0)
        some, magnitude = above.any(axis=0), high.sum(axis=0)
        self._peaks.add(np.where(some, high.max(axis=0, initial=0.0), np.nan))
        self._episodes[task] += 1
        self._active[task] += some
        self._sum += magnitude
        self._rows += above.sum(axis=0)
        self._x_log_x += magnitude * np.log(np.where(magnitude > 0, magnitude, 1.0))

    def result(self) -> Coverage:
        """Return what was counted."""
        n, active = int(self._episodes.sum()), self._active.sum(axis=0)
        onset_count, run_length, relative = self._runs.mean
        within = self._active / np.maximum(self._episodes, 1)[:, None]  # (tasks, N) coverages
        share = within / np.where(active, within.sum(axis=0), np.nan)
        some = self._sum > 0
        total = np.where(some, self._sum, 1.0)
        entropy = np.log(total) - self._x_log_x / total
        return Coverage(
            episodes=n,
            active_episodes=active.astype(np.int64),
            coverage=active / n if n else np.full(len(active), np.nan),
            onset_count=onset_count,
            run_length=run_length,
            relative_run_length=relative,
            mean_active=np.where(some, self._sum / np.maximum(self._rows, 1), np.nan),
            mean_peak=self._peaks.mean,
            effective_episodes=np.where(some, np.exp(entropy), np.nan),
            active_tasks=(self._active > 0).sum(axis=0),
            effective_tasks=np.exp(-(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=0)),
        )


def coverage(
    values: np.ndarray,
    episode: Sequence[int],
    step: Sequence[int],
    task: Sequence[int] | None = None,
    duration: Sequence[float] | None = None,
    *,
    active: float = ACTIVE,
    on: float = ON,
    off: float = OFF,
) -> Coverage:
    """Count rows that are all in memory, in any order.

    Args:
        values: (rows,) of one unit, or (rows, N).
        episode: (rows,) episode of each row.
        step: (rows,) time within the episode.
        task: (rows,) task of each row; all the same if not given.
        duration: (rows,) control steps that each row stands for; 1 if not given.
        active: values above it make an episode active.
        on: see `in_runs`.
        off: see `in_runs`.
    """
    values = np.asarray(values, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    tasks = np.zeros(len(values), int) if task is None else np.unique(task, return_inverse=True)[1]
    duration = np.ones(len(values)) if duration is None else np.asarray(duration, float)
    order = np.lexsort((step, episode))
    starts = np.flatnonzero(np.diff(np.asarray(episode)[order])) + 1
    n_tasks = int(tasks.max(initial=0)) + 1
    counter = CoverageCounter(values.shape[1], n_tasks, active=active, on=on, off=off)
    for rows in np.split(order, starts):
        if len(rows):
            counter.add(values[rows], int(tasks[rows[0]]), duration[rows])
    return counter.result()

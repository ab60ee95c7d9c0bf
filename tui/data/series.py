"""Points of the charts: a run of any length in as many columns as there are."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import mul

from analysis.alerts import EFFECTIVE, EPISODES, SUCCESS, pooled
from analysis.proportions import Proportion
from tui.data.training import Training

MODES = ("linear", "log", "smoothed")
SMOOTHED = 5
"""Updates that a smoothed point averages or pools, itself and those before."""


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a place, with an interval where there is one."""

    x: float
    y: float
    low: float = math.nan
    high: float = math.nan


def axis_end(training: Training) -> int:
    """Return the number at the right end: the updates wanted, else a round number ahead."""
    if training.total is not None:
        return max(training.total, training.done, 1)
    power = 10 ** len(str(max(9, training.done)))
    return next(end for end in (power // 5, power // 2, power) if end >= training.done)


def success_points(training: Training, columns: int, smooth: bool) -> list[Point]:
    """Return training success, pooled within a column."""
    points = []
    for first, stop in _bins(training, columns):
        share = _pooled(training, max(0, stop - SMOOTHED) if smooth else first, stop)
        if share is not None:
            points.append(_point(float(training.updates[stop - 1]), share))
    return points


def evaluation_points(training: Training) -> list[Point]:
    """Return held-out success on the trained tasks, those of one update pooled."""
    found: dict[int, Proportion] = {}
    for evaluation in training.evaluations:
        if not evaluation.forgetting:
            before = found.get(evaluation.update)
            found[evaluation.update] = before + evaluation.success if before else evaluation.success
    return [_point(float(update), success) for update, success in sorted(found.items())]


def metric_points(training: Training, metric: str, columns: int, mode: str) -> list[Point]:
    """Return a metric, averaged within a column; its logarithm to base 10 in mode log."""
    values = training.history.get(metric, ())
    points = []
    for first, stop in _bins(training, columns):
        first = max(0, stop - SMOOTHED) if mode == "smoothed" else first
        known = [v for v in values[first:stop] if math.isfinite(v) and (mode != "log" or v > 0)]
        if known:
            mean = sum(known) / len(known)
            y = math.log10(mean) if mode == "log" else mean
            points.append(Point(float(training.updates[stop - 1]), y))
    return points


def nice_range(points: Sequence[Point]) -> tuple[float, float]:
    """Return round numbers below and above all points."""
    if not points:
        return 0.0, 1.0
    low, high = min(p.y for p in points), max(p.y for p in points)
    size = max(high - low, abs(high) * 1e-6, 1e-12)
    unit = 10.0 ** math.floor(math.log10(size))
    step = next((s * unit for s in (0.1, 0.2, 0.5, 1) if size / (s * unit) <= 12), unit)
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _point(x: float, share: Proportion) -> Point:
    return Point(x, share.rate, *share.interval)


def _pooled(training: Training, first: int, stop: int) -> Proportion | None:
    """Return the success of the updates at the places [first, stop) together."""
    rates, ns, effective = (
        training.history.get(name, ())[first:stop] for name in (SUCCESS, EPISODES, EFFECTIVE)
    )
    n, won = sum(ns), sum(map(mul, rates, ns))
    known = list(filter(math.isfinite, effective))
    alike = len(known) in (0, stop - first)  # of all these updates, or of none
    if alike and 1 <= n < math.inf and 0 <= won <= n and 0 <= sum(known) <= n:
        return Proportion(round(won), int(n), sum(known))
    return pooled([s for u in training.updates[first:stop] if (s := training.success(u))])


def _bins(training: Training, columns: int) -> list[tuple[int, int]]:
    """Return the updates [start, stop) of each column that has any, by their place."""
    width = axis_end(training) + 1
    edges = [-(-column * width // columns) for column in range(columns + 1)]
    places = [bisect_left(training.updates, edge) for edge in edges]
    return [(start, stop) for start, stop in pairwise(places) if stop > start]

"""What each episode did to itself and its surroundings: one row an episode.

Shares are of the episode's control steps; what a trace cannot tell (no object poses, a workspace
that the suite does not give) is null.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from analysis.safety import Safety, columns_of, signals
from analysis.spans import Spans
from analysis.tables import EpisodeTable, read_episodes
from traces.reader import Columns, TraceReader

MEASURES = {
    "contact": "contact",
    "touches": "touches",
    "mean_force_n": "force, N",
    "max_force_n": "force max, N",
    "at_limit": "hand end",
    "joint_limit": "joint end",
    "saturated": "clipped",
    "falls": "falls",
    "drops": "drops",
}
"""Column to what it is called in print."""

MEASURED = dict.fromkeys(MEASURES, pl.Float64)


def safety_table(paths: Iterable[Path | str]) -> pl.DataFrame:
    """Return one row per episode: `tables.IDENTITY` and the columns of `MEASURES`.

    Args:
        paths: traces, as `traces.open_traces` takes them.
    """
    return read_safety(paths).frame


def read_safety(paths: Iterable[Path | str]) -> EpisodeTable:
    """As `safety_table`, with notes."""
    return read_episodes(paths, _measure, MEASURED)


def _measure(trace: TraceReader, episodes: Columns) -> dict[str, np.ndarray]:
    suite = trace.header.suite
    steps = trace.steps(*columns_of(suite))
    spans = Spans.of(episodes)
    of_objects = _objects(trace, spans)
    found = [
        signals({name: column[start : start + n] for name, column in steps.items()}, objects, suite)
        for start, n, objects in zip(spans.first, spans.n, of_objects, strict=True)
    ]
    touching = steps["contact"]
    force = np.where(np.isfinite(steps["contact_force"]), steps["contact_force"], 0.0)
    felt = touching & np.isfinite(steps["contact_force"])
    begins = touching & ~np.roll(touching, 1)
    later = Spans(spans.first + 1, np.maximum(spans.n - 1, 0))
    at_once = spans.head(1).sum(touching)
    touches = np.where(spans.n > 0, at_once + later.sum(begins), np.nan)
    own = {"touches": touches, "mean_force_n": spans.mean(force, where=felt)}
    return own | {name: _column(found, name) for name in MEASURES if name not in own}


def _column(found: list[Safety], name: str) -> np.ndarray:
    """(E,) one signal; NaN where it is unknown."""
    if name == "joint_limit":
        values = [max(one.joints_at_limit.values(), default=None) for one in found]
    else:
        values = [getattr(one, name) for one in found]
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _objects(trace: TraceReader, spans: Spans) -> Iterator[Mapping[str, np.ndarray]]:
    """Yield the columns of objects/ of each episode; empty without such a table."""
    if not trace.has_objects:
        yield from ({} for _ in spans.n)
        return
    table = trace.objects()
    # Steps are rows of the whole file, as spans are.
    start, stop = np.searchsorted(table["step"], [spans.first, spans.first + spans.n])
    for low, high in zip(start, stop, strict=True):
        yield {name: table[name][low:high] for name in ("object", "pos")}

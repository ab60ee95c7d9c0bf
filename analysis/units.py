"""The units of one site, neurons or features: what each follows, and how often it comes back.

One pass, episode by episode; `meaning` says what the columns are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from analysis.episode_means import EpisodeMeans, correlations
from analysis.generality import labels, logits
from analysis.natural import Chosen, by_episode
from analysis.onsets import OFF, CoverageCounter, unit_rows
from analysis.other_episodes import ALIGNMENTS, beside_others
from analysis.signals import CLOCK, SIGNALS

COUNTED = (
    "active_episodes",
    "coverage",
    "onset_count",
    "run_length",
    "relative_run_length",
    "mean_active",
    "mean_peak",
    "effective_episodes",
    "active_tasks",
    "effective_tasks",
)
"""Columns of `onsets.Coverage`."""


class Rows(Protocol):
    """Values of the units of a site: one row a recorded decision."""

    site: str
    shape: tuple[int, ...]
    decisions: np.ndarray

    def __getitem__(self, rows: object) -> np.ndarray:
        """Return some rows."""


@dataclass(frozen=True)
class Units:
    """The tables of the units of one site, before anything is corrected over all."""

    signals: pl.DataFrame
    coverage: pl.DataFrame


def read_units(
    values: Rows,
    layer: int,
    chosen: Chosen,
    scaled: Callable[[np.ndarray], np.ndarray] = unit_rows,
    active: float = OFF,
) -> Units:
    """Go through a site episode by episode.

    Args:
        values: (D, N), with the decision of each row, as `TraceCollection.activation` gives them.
        layer: of the site, for the tables.
        chosen: the episodes that count.
        scaled: from rows (rows, N) to those of which runs and coverage are counted.
        active: what is above it is active, see `onsets`.
    """
    units, shape = values.shape[-1], (len(SIGNALS), values.shape[-1])
    own = EpisodeMeans.of_shape(*shape)
    others, beyond = (EpisodeMeans.of_shape(len(ALIGNMENTS), *shape) for _ in range(2))
    counter = CoverageCounter(units, int(chosen.task.max()) + 1, active=active)
    for episode, decisions, x in by_episode(values, chosen.decisions):
        signals = chosen.signals[:, decisions]
        own.add(correlations(x, signals))
        r, r_other = beside_others(x, signals, _others(chosen, episode))
        others.add(r_other)
        beyond.add(r - r_other)
        counter.add(scaled(x), int(chosen.task[episode]), chosen.durations[decisions])
    unit = {"site": [values.site] * units, "layer": [layer] * units, "neuron": np.arange(units)}
    low, high = own.interval()
    of_signals = {
        "n": own.n,
        "r": own.mean,
        "low": low,
        "high": high,
        "p": own.p(),
        **_compared(own, others, beyond),
    }
    each = [
        pl.DataFrame(unit | {"signal": [name] * units} | {k: v[i] for k, v in of_signals.items()})
        for i, name in enumerate(SIGNALS)
    ]
    counted = counter.result()
    columns = {name: getattr(counted, name) for name in COUNTED}
    columns |= {"episodes": [counted.episodes] * units}
    columns |= {"label": labels(counted), "logit": logits(counted)}
    return Units(pl.concat(each), pl.DataFrame(unit | columns).fill_nan(None))


def _others(chosen: Chosen, episode: int) -> list[np.ndarray]:
    """Signals of the episodes that one is compared with, (S, their decisions) each."""
    first, n = chosen.decisions.first, chosen.decisions.n
    others = chosen.others[episode]
    return [chosen.signals[:, first[e] : first[e] + n[e]] for e in others if e >= 0 and n[e]]


def _compared(own: EpisodeMeans, others: EpisodeMeans, beyond: EpisodeMeans) -> dict:
    """Columns of the comparison with other episodes, in the alignment that explains more."""
    p = beyond.p()  # (ALIGNMENTS, S, N)
    away = beyond.mean * own.mean <= 0  # r_other is as far from 0 as r, or on the other side
    worst = np.where(away, 2.0, np.nan_to_num(p)).argmax(axis=0)[None]
    chosen = {
        "r_other": others.mean,
        "n_other": beyond.n,
        "p_beyond": np.where(np.isnan(p).any(axis=0), np.nan, np.where(away, 1.0, p)),
    }
    columns = {k: np.take_along_axis(v, worst, axis=0)[0] for k, v in chosen.items()}
    clock = list(SIGNALS).index(CLOCK)  # one clock is as good as another
    columns["n_other"][clock] = 0
    columns["r_other"][clock] = columns["p_beyond"][clock] = np.nan
    columns["p_follows"] = np.maximum(own.p(), columns["p_beyond"])
    columns["p_follows"][clock] = own.p()[clock]
    return columns

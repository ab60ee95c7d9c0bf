"""Which episodes and sites of some traces show a policy as it is, and reading them one by one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from analysis.conditions import count_of, without_errors
from analysis.signals import decision_signals
from analysis.spans import Spans
from analysis.tables import read_episodes
from traces.collection import TraceCollection
from traces.errors import UnknownName, UserError
from traces.lazy import LazyActivations

BLOCK_ROWS = 2048
"""Rows read at a time, or those of one episode if it has more."""

OTHERS = 4
"""Episodes of the same task that each is compared with."""


def natural_episodes(paths: Iterable[Path | str]) -> tuple[pl.DataFrame, list[str]]:
    """Return the episodes of the policy as it is, each once, and what to say of the others."""
    table = read_episodes(paths)
    notes = list(table.notes)
    frame = without_errors(table.frame, notes)
    natural = frame.filter(pl.col("role") == "baseline")
    if frame.is_empty():
        raise UserError("no episode in these files; record some with: vla-trace record")
    if natural.is_empty():
        raise UserError("all of these traces are steered; give a baseline: vla-trace record")
    if others := len(frame) - len(natural):
        notes.append(f"{count_of(others)} steered or otherwise told left out: not the policy alone")
    policies = natural["policy"].unique().sort().to_list()
    if natural["policy_id"].n_unique() > 1:
        raise UserError(
            f"these traces are of {len(policies)} policies ({', '.join(policies[:4])}), whose "
            "neurons are not the same; give the traces of one"
        )
    return natural, notes


@dataclass(frozen=True)
class Chosen:
    """The episodes that count, in the order of their rows."""

    decisions: Spans
    """Rows of decisions/ of each."""
    durations: np.ndarray
    """(D,) control steps that each decision of the collection drove."""
    signals: np.ndarray
    """(S, D) of every decision of the collection."""
    task: np.ndarray
    """(E,) number of each episode's task, from 0."""
    others: np.ndarray
    """(E, OTHERS) the next episodes of the same task; -1 where there are no more."""

    @classmethod
    def of(cls, traces: TraceCollection, frame: pl.DataFrame) -> "Chosen":
        """Find the episodes of a frame that `natural_episodes` gave, and what they did."""
        columns = traces.episodes("uid", "session", "first_decision", "n_decisions")
        known = zip(columns["uid"].tolist(), columns["session"].tolist(), strict=True)
        place = {key: row for row, key in enumerate(known)}
        rows = np.array([place[key] for key in frame.select("uid", "session").iter_rows()])
        names = frame.select(pl.struct("suite", "task_id").rank("dense") - 1).to_series().to_numpy()
        order = np.argsort(rows)
        rows, task = rows[order], names[order].astype(int)
        return cls(
            decisions=Spans(columns["first_decision"][rows], columns["n_decisions"][rows]),
            durations=traces.decisions("n_executed")["n_executed"].astype(float),
            signals=decision_signals(traces),
            task=task,
            others=_next_of_task(task),
        )


def _next_of_task(task: np.ndarray) -> np.ndarray:
    """(E, OTHERS) the episodes of the same task that come next, the first ones after the last."""
    others = np.full((len(task), OTHERS), -1)
    for one in np.unique(task):
        members = np.flatnonzero(task == one)
        for i in range(min(OTHERS, len(members) - 1)):
            others[members, i] = np.roll(members, -1 - i)
    return others


def chosen_sites(traces: TraceCollection, wanted: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the sites to read, and what to say of those that are left out."""
    recorded = traces.sites()
    whole = [site.name for site in recorded if site.dims == ("D", "N")]
    neurons = [name for name in whole if name.split(".")[2:3] == ["ffn_act"]]
    if not recorded:
        raise UserError(
            "no activations in these traces; record some with: vla-trace record --capture standard"
        )
    found: list[str] = []
    for name in wanted:
        name = name.replace("expert", "exp", 1)
        under = [one for one in neurons if one.startswith(f"{name}.")]
        matching = [name] if name in whole else under
        if not matching:
            raise UnknownName("site", name, whole)
        found += [one for one in matching if one not in found]
    if not wanted and not neurons:
        raise UserError(
            "no FFN activations in one vector a decision in these traces; name another site with "
            f"--site ({', '.join(whole[:6]) or 'there is none'}), or record some with: vla-trace "
            "record --capture standard"
        )
    notes = []
    if not wanted and (streams := len(whole) - len(neurons)):
        notes.append(
            f"{count_of(streams, 'site')} of the residual stream left out, coordinates not being "
            "neurons; --site NAME reads one"
        )
    if apart := len(recorded) - len(whole):
        notes.append(f"{count_of(apart, 'site')} with a row a token or denoising step left out")
    return found or neurons, notes


def by_episode(
    values: LazyActivations, decisions: Spans
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (episode, its rows of decisions/, its activations (rows, N)), block by block."""
    if (np.diff(values.decisions) <= 0).any():
        raise UserError(
            f"the activations of {values.site} are not in the order of decisions in one of these "
            "files; find it with: vla-trace check FILES"
        )
    first = np.searchsorted(values.decisions, decisions.first)
    rows = Spans(first, np.searchsorted(values.decisions, decisions.first + decisions.n) - first)
    recorded = np.flatnonzero(rows.n)
    block = np.cumsum(rows.n[recorded]) // BLOCK_ROWS
    for some in np.split(recorded, np.flatnonzero(np.diff(block)) + 1):
        spans = Spans(rows.first[some], rows.n[some])
        x, of = values[spans.rows].astype(np.float64), values.decisions[spans.rows]
        ends = np.cumsum(spans.n)
        for episode, start, end in zip(some.tolist(), ends - spans.n, ends, strict=True):
            yield episode, of[start:end], x[start:end]

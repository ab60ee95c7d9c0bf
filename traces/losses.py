"""What of a damaged trace cannot be kept, and what need not be lost with it.

episodes/ steps/ decisions/   the episode, unless the column has a value for "not known",
                              which then takes the place of what was lost
activations/<site>/ frames/   the rows concerned, and no episode
sim_state/ objects/
policies/                     a version that episodes refer to stays, with unknown weights
groups/ advantages/ updates/  the rows concerned
statistics, indices           nothing: they are worked out anew
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from traces.check import UNKNOWN_POLICY, Examined, may_be_unknown
from traces.copying import Contents
from traces.safety import FAILURES, SafeGroup
from traces.scan import Fault, spans
from traces.schema import TABLES, fields_of
from traces.side import EARLY

INDEXED = ("episodes", "steps", "decisions")
STREAM = {"step", "offset", "length", "data"}


@dataclass
class Losses:
    """What a copy of a damaged trace will lack, as masks over rows of the original."""

    episodes: np.ndarray
    """(E,) bool: those left out."""
    why: dict[int, str] = field(default_factory=dict)
    """Row in episodes/ to the reason."""
    unknown: dict[str, np.ndarray] = field(default_factory=dict)
    """Column to the rows that become "not known"."""
    rows: dict[str, np.ndarray] = field(default_factory=dict)
    """Side table to the rows left out."""

    def episode(self, row: int, why: str) -> None:
        """Leave one episode out; the first reason counts."""
        self.episodes[row] = True
        self.why.setdefault(row, why)


def readable_contents(file: SafeGroup, found: Examined) -> Contents:
    """Return the side tables from which rows can be read at all."""
    built = found.structure
    try:
        names = tuple(map(str, json.loads(file["objects"].attrs["names"])))
    except FAILURES:
        names = ()
    cameras = {t.removeprefix("frames/") for t in built.tables if t.startswith("frames/")}
    return Contents(
        sites=tuple(
            site
            for name, site in built.sites.items()
            if {"decision", "values"} <= built.table(f"activations/{name}").keys()
            and name == site.name
        ),
        object_names=names if {"step", "object"} <= built.table("objects").keys() else (),
        cameras=tuple(sorted(c for c in cameras if built.table(f"frames/{c}").keys() >= STREAM)),
        chain="decisions/chain" in built.columns,
        sim_state=built.table("sim_state").keys() >= STREAM,
    )


def losses(found: Examined) -> Losses:
    """Work out what the faults of a file cost."""
    built, costs = found.structure, Losses(~found.holds)
    costs.why = dict.fromkeys(np.flatnonzero(~found.holds).tolist(), "its span is broken")
    for table in built.tables:
        if table not in INDEXED:
            costs.rows[table] = np.arange(_length(found, table)) >= found.rows[table]
    for fault in found.faults:
        if fault.level == "error" and fault.what not in (UNKNOWN_POLICY, EARLY):
            _count(found, fault, costs)
    for table, lost in costs.rows.items():
        if table not in TABLES:
            _keep_ascending(found, table, lost)
    return costs


def _length(found: Examined, table: str) -> int:
    return max(found.structure.rows(table), found.rows[table])


def _count(found: Examined, fault: Fault, costs: Losses) -> None:
    """Add what one fault costs."""
    table, _, name = fault.place.rpartition("/")
    known = next(f for f in fields_of(table) if f.name == name)
    if known.derived and name not in ("decision", "offset", "length"):
        return  # worked out anew
    if may_be_unknown(fault.place, known, found.header):
        length = len(found.structure.columns[fault.place].dataset)
        costs.unknown.setdefault(fault.place, np.zeros(length, bool))[fault.rows] = True
    elif table in INDEXED:
        for row in _episodes_of(found, table, fault.rows):
            costs.episode(row, f"{fault.place}: values {fault.what}")
    elif name == "data":
        costs.rows[table] |= _items_at(found, table, fault.rows)
    else:
        within = fault.rows[fault.rows < len(costs.rows[table])]
        costs.rows[table][within] = True


def _episodes_of(found: Examined, table: str, rows: np.ndarray) -> list[int]:
    """Return the episodes that rows of an indexed table belong to."""
    if table == "episodes":
        return rows.tolist()
    first = found.spans.first_step if table == "steps" else found.spans.first_decision
    n = found.spans.n_steps if table == "steps" else found.spans.n_decisions
    good = np.flatnonzero(found.holds & (n > 0))
    place = np.searchsorted(first[good], rows, side="right") - 1
    episode = good[np.unique(place[place >= 0])]
    return [int(e) for e in episode if np.any((rows >= first[e]) & (rows < first[e] + n[e]))]


def _items_at(found: Examined, table: str, entries: np.ndarray) -> np.ndarray:
    """Mark the rows of a stream (rows,) whose item has a bad entry."""
    count = _length(found, table)
    marked = np.zeros(count, bool)
    columns = found.structure.table(table)
    try:
        offset, length = (columns[name].dataset[:count] for name in ("offset", "length"))
    except FAILURES:
        return ~marked
    for start, stop in spans(entries):
        marked |= (offset < stop) & (offset + length > start)
    return marked


def _keep_ascending(found: Examined, table: str, lost: np.ndarray) -> None:
    """Leave out as few rows as possible so that the others ascend."""
    key = "decision" if table.startswith("activations/") else "step"
    column = found.structure.table(table).get(key)
    kept = np.flatnonzero(~lost)
    if column is None or not len(kept):
        return
    pointers = np.concatenate([column.dataset[first:last] for first, last in spans(kept)])
    chosen = longest_ascending(pointers, strictly=table != "objects")
    lost[np.delete(kept, chosen)] = True


def longest_ascending(values: np.ndarray, *, strictly: bool) -> np.ndarray:
    """Return the places of a longest ascending part of some numbers (n,)."""
    steps = np.diff(values)
    if (steps > 0).all() or (not strictly and (steps >= 0).all()):
        return np.arange(len(values))
    place = bisect_left if strictly else bisect_right
    tops: list[int] = []  # smallest last value of a part of length 1, 2, ...
    ends: list[int] = []  # and where that value is
    before = np.full(len(values), -1)
    for here, value in enumerate(values.tolist()):
        length = place(tops, value)
        tops[length : length + 1], ends[length : length + 1] = [value], [here]
        before[here] = ends[length - 1] if length else -1
    chosen = [ends[-1]]
    while before[chosen[-1]] >= 0:
        chosen.append(int(before[chosen[-1]]))
    return np.array(chosen[::-1])


def told(path: Path, found: Examined, contents: Contents, costs: Losses) -> Iterator[str]:
    """Say in one sentence each what is not in the copy, or not known in it."""
    reasons: dict[str, list[int]] = {}
    for row, why in sorted(costs.why.items()):
        reasons.setdefault(why, []).append(row)
    for why, rows in reasons.items():
        hint = ""
        if why.startswith("decisions/chain"):
            hint = f"; they stay without the chain: vla-trace prune {path} --drop chain"
        yield f"{_counted(rows, 'episode')} left out: {why}{hint}"
    for place, mask in sorted(costs.unknown.items()):
        yield f"{place} is not known in {_counted(np.flatnonzero(mask).tolist(), 'row')}"
    for table, mask in sorted(costs.rows.items()):
        lost = np.flatnonzero(mask[: found.rows[table]]).tolist()
        if lost:
            yield f"{table}: {_counted(lost, 'row')} of {found.rows[table]} left out"
    kept = {f"activations/{site.name}" for site in contents.sites}
    kept |= {f"frames/{camera}" for camera in contents.cameras}
    kept |= {"objects"} if contents.object_names else set()
    kept |= {"sim_state"} if contents.sim_state else set()
    for table in found.structure.tables:
        if table not in kept and table not in TABLES:
            yield f"{table} left out: columns of it are missing or of another type"
    for finding in found.findings:
        if finding.place in INDEXED and "no complete episode" in finding.what:
            yield f"{finding.place}: {finding.what}"
        elif finding.what.endswith("left alone"):
            yield f"{finding.place} {finding.what.removesuffix('; left alone')}; not copied"


def _counted(rows: list[int], what: str) -> str:
    """Return "episode 3", "episodes 3 to 5" or "7 episodes, 3 to 15"."""
    if len(rows) == 1:
        return f"{what} {rows[0]}"
    if rows[-1] - rows[0] == len(rows) - 1:
        return f"{what}s {rows[0]} to {rows[-1]}"
    return f"{len(rows)} {what}s, {rows[0]} to {rows[-1]},"

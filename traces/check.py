"""Does a trace keep what the format promises?  Reads every byte, and says what it finds.

    structure   tables, columns, types, axes, units, what the format does not know
    values      what cannot be read, is not finite, is out of range or physically odd
    indices     spans, decisions, policies, uids, and whatever points to a step or decision
    sites       activation statistics against the values, overflow, units that never change

In a `.partial` only complete episodes count; what lies beyond them is a note.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from traces.errors import MissingFile, UserError
from traces.header import TraceHeader
from traces.root import read_header
from traces.rules import index_faults
from traces.safety import FAILURES, SafeGroup, opened
from traces.scan import Fault, Test, infinite, not_finite, not_text, outside, scan
from traces.schema import Field
from traces.side import examine_sites, side_faults, side_rows
from traces.spans import Spans, find_spans
from traces.structure import LEVELS, Finding, Structure, structure

__all__ = ["Examined", "Finding", "check", "examine", "may_be_unknown"]

KINDS = ("record", "replay", "grpo", "eval")
UNKNOWN_POLICY = "name a policy that policies/ lacks"


def _off_unit(quat: np.ndarray) -> np.ndarray:
    """Mark quaternions (rows, 4) whose length is not 1."""
    return np.abs(np.linalg.norm(quat, axis=1) - 1) > 0.01


NEGATIVE = Test("are negative", outside(0, math.inf))
FAR = Test("lie further than 5 m from the origin", outside(-5, 5), "warning")
TESTS = {
    "episodes/session": NEGATIVE,
    "episodes/wall_s": NEGATIVE,
    "episodes/final_ee_pos": FAR,
    "steps/ee_pos": FAR,
    "steps/ee_quat": Test("have another length than 1", _off_unit, "warning"),
    "steps/gripper": Test("open further than 0.5 m", outside(-0.5, 0.5), "warning"),
    "steps/contact_force": NEGATIVE,
    "decisions/noise_std": NEGATIVE,
    "decisions/policy_ms": NEGATIVE,
    "groups/n_members": NEGATIVE,
    "groups/n_success": NEGATIVE,
}
"""What is wrong with single values of a column, beside not being finite."""


@dataclass(frozen=True)
class Examined:
    """Everything a check found out about an open file; `repair` builds on it."""

    header: TraceHeader
    structure: Structure
    spans: Spans
    """Of the episodes that count: all of a closed file, the complete ones of a `.partial`."""
    holds: np.ndarray
    """(E,) bool: the spans can be relied on."""
    rows: dict[str, int]
    """Table to the rows that count; frames/<camera>/data and sim_state/data to their entries."""
    faults: list[Fault]
    """Of single rows."""
    findings: list[Finding]
    """Of everything else."""


def check(path: Path | str) -> list[Finding]:
    """Check one trace, reading all of it in little memory.

    Args:
        path: a closed trace, or a `.partial`.

    Returns:
        Errors first, then warnings, then notes.

    Raises:
        MissingFile: there is no such file.
    """
    path = Path(path)
    partial = path.suffix == ".partial"
    try:
        file = opened(path, swmr=partial)
        try:
            found = examine(path, file, partial=partial)
        finally:
            file.close()
        findings = [*found.findings, *map(_told, found.faults)]
    except MissingFile:
        raise
    except (UserError, *FAILURES) as error:
        findings = [Finding("error", "file", getattr(error, "why", None) or str(error))]
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


@np.errstate(over="ignore", invalid="ignore")  # odd values are what is looked for
def examine(path: Path, file: SafeGroup, *, partial: bool) -> Examined:
    """Look at everything in an open file.

    Raises:
        UserError: it is no trace at all.
    """
    header = read_header(path, file)
    built = structure(file, header, partial=partial)
    findings = [*built.findings, *_header_findings(header)]
    lengths = {name: built.rows(name) for name in ("episodes", "steps", "decisions")}
    spans, holds, faults = find_spans(file, lengths, partial=partial)
    findings += _rest(lengths, spans, holds, partial)
    rows = {table: built.rows(table) for table in built.tables}
    if partial:
        rows |= spans.used(lengths)
        rows |= side_rows(built, rows)
    faults += _value_faults(header, built, rows)
    faults += index_faults(file, header, spans, holds)
    faults += _identity_faults(built, len(spans))
    faults += side_faults(file, built, rows)
    of_rows, of_sites = examine_sites(built, rows, partial=partial)
    faults, findings = faults + of_rows, findings + of_sites
    return Examined(header, built, spans, holds, rows, faults, findings)


def may_be_unknown(place: str, field: Field, header: TraceHeader) -> bool:
    """Whether a column may hold "not known": where the schema says so, and the sampler allows it.

    The log-probabilities of a run whose sampler has them are always known.
    """
    sampled = place in ("steps/log_prob", "decisions/log_prob")
    known = sampled and bool(header.likelihood.get("stochastic_steps"))
    return field.fill is not None and not known


def _value_faults(header: TraceHeader, built: Structure, rows: dict[str, int]) -> list[Fault]:
    """Read every column from end to end."""
    faults = []
    for place, column in built.columns.items():
        table, kind = place.rpartition("/")[0], column.dataset.dtype.kind
        if column.field.name == "values":
            continue  # activations are read once, by `examine_sites`
        tests = []
        if kind == "S":
            tests.append(Test("are not UTF-8 text", not_text))
        elif kind == "f":
            if may_be_unknown(place, column.field, header):
                tests.append(Test("are infinite", infinite))
            else:
                tests.append(Test("are not finite numbers", not_finite))
        if place in TESTS:
            tests.append(TESTS[place])
        whole = len(column.dataset)
        count = whole if column.field.dims[0] in "N1" else rows.get(place, rows[table])
        if place.endswith("/data") and place not in rows:
            count = whole
        faults += scan(place, column.dataset, min(count, whole), tuple(tests))
    return faults


def _header_findings(header: TraceHeader) -> Iterator[Finding]:
    """Say what is odd about the root attributes."""
    for name in ("run_id", "created_utc"):
        if not getattr(header, name):
            yield Finding("warning", f"attribute {name}", "is missing")
    if header.kind not in KINDS:
        what = f"is {header.kind!r}, expected one of {', '.join(KINDS)}"
        yield Finding("warning", "attribute kind", what)
    try:
        datetime.fromisoformat(header.created_utc or "2026-01-01")
    except ValueError:
        yield Finding("warning", "attribute created_utc", f"{header.created_utc!r} is not a time")
    if not 1 <= header.n_action_steps <= max(1, header.H):
        what = f"is {header.n_action_steps}, expected 1 to H ({header.H})"
        yield Finding("warning", "attribute n_action_steps", what)


def _rest(
    lengths: dict[str, int], spans: Spans, holds: np.ndarray, partial: bool
) -> Iterator[Finding]:
    """Say which rows belong to no episode."""
    if not holds.all():
        return
    level = "note" if partial else "error"
    for table, used in spans.used(lengths).items():
        if lengths[table] > used:
            what = f"its last {lengths[table] - used} rows belong to no complete episode"
            yield Finding(level, table, what)


def _identity_faults(built: Structure, count: int) -> Iterator[Fault]:
    """Find episodes without a name, with one that another has, or of an unknown policy."""
    columns = built.table("episodes")
    try:
        uid, session = (columns[name].dataset[:count] for name in ("uid", "session"))
        yield from _marked("episodes/uid", "are empty", uid == b"")
        first = np.unique(np.rec.fromarrays([uid, session]), return_index=True)[1]
        again = np.ones(count, bool)
        again[first] = False
        again &= uid != b""
        yield from _marked("episodes/uid", "repeat the uid of an earlier episode", again)
    except FAILURES:
        pass  # the scan of the columns says which rows
    try:
        policies = built.table("policies")["policy_version"].dataset[:]
        known = np.isin(columns["policy_version"].dataset[:count], policies)
        yield from _marked("episodes/policy_version", UNKNOWN_POLICY, ~known)
        first = np.unique(policies, return_index=True)[1]
        again = np.ones(len(policies), bool)
        again[first] = False
        yield from _marked("policies/policy_version", "repeat an earlier version", again)
    except FAILURES:
        pass


def _marked(place: str, what: str, mask: np.ndarray) -> Iterator[Fault]:
    if mask.any():
        yield Fault(place, what, np.flatnonzero(mask))


def _told(fault: Fault) -> Finding:
    """Say a fault in words."""
    first, last, count = int(fault.rows[0]), int(fault.rows[-1]), len(fault.rows)
    rows = f"row {first}" if count == 1 else f"{count} rows, {first} to {last}"
    return Finding(fault.level, fault.place, f"values {fault.what} ({rows})")

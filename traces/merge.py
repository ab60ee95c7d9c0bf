"""One file out of several of one condition: shards of a recording, or repeated recordings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from traces.copying import SIDE_TABLES, Source, copy_episode, new_trace, open_source
from traces.errors import DifferentTraces
from traces.header import TraceHeader
from traces.intervention import Intervention
from traces.writer import TraceWriter

SAME = (
    *("kind", "intervention", "suite", "normalisation", "likelihood"),
    *("n_action_steps", "K", "H", "A", "Z", "language_length"),
)
"""Root attributes that make a condition and its setting."""


@dataclass(frozen=True)
class Merged:
    """What a merge wrote."""

    path: Path
    files: int
    episodes: int
    repeated: int
    """Episodes left out because a newer session of the same uid is there."""


def merge(paths: Sequence[Path], out: Path) -> Merged:
    """Write one trace with the episodes of all.

    The oldest comes first. Of equal uids the newest session stays, in the place of the first; of
    equal sessions the one of the newest file.

    Args:
        paths: traces of one condition and setting.
        out: the new file.

    Raises:
        DifferentTraces: they are not of one condition and setting.
        FileExists: `out` is there already.
    """
    with ExitStack() as stack:
        sources = [(path, stack.enter_context(open_source(path))) for path in paths]
        sources.sort(
            key=lambda entry: (entry[1].header.created_utc, entry[1].header.shard, entry[0])
        )
        (first, source), others = sources[0], sources[1:]
        for path, other in others:
            _compare(first, source, path, other)
        chosen, repeated = _chosen([source for _, source in sources])
        header = _header(sources)
        with new_trace(out, header, source.contents) as writer:
            _copy_tables([source for _, source in sources], writer)
            for number, row in chosen:
                copy_episode(sources[number][1], row, source.contents, writer)
    return Merged(out, len(paths), len(chosen), repeated)


def _compare(first: Path, a: Source, path: Path, b: Source) -> None:
    """Refuse a trace that is not of the same condition and setting as the first."""

    def differ(what: str, mine: object, theirs: object) -> None:
        if mine != theirs:
            raise DifferentTraces(first, mine, path, theirs, what)

    for name in SAME:
        mine, theirs = getattr(a.header, name), getattr(b.header, name)
        if name == "intervention":
            mine, theirs = _acting(mine), _acting(theirs)
        differ(f"the attribute {name}", _text(mine), _text(theirs))
    for name in ("sites", "object_names", "cameras", "chain", "sim_state"):
        mine, theirs = getattr(a.contents, name), getattr(b.contents, name)
        if name == "sites":
            for site, other in zip(mine, theirs, strict=False):
                differ(f"the site {site.name}", site, other)
            mine, theirs = ([site.name for site in sites] for sites in (mine, theirs))
        differ(f"what was recorded ({name.replace('_', ' ')})", mine, theirs)
    mine, theirs = _policies(a), _policies(b)
    for version in mine.keys() & theirs.keys():
        differ(f"policy version {version}", mine[version], theirs[version])
    if not a.header.recording or a.header.recording != b.header.recording:
        differ("the task", _tasks(a), _tasks(b))


def _policies(source: Source) -> dict[int, str]:
    """Return policy_version to what identifies the weights."""
    table = source.side_table("policies")
    names = zip(*(table[n].tolist() for n in ("policy_version", "sha256", "path")), strict=True)
    return {version: sha256 or path for version, sha256, path in names}


def _tasks(source: Source) -> list[tuple[str, int]]:
    count = len(source.spans)
    suites, tasks = (source.file[f"episodes/{n}"][:count].tolist() for n in ("suite", "task_id"))
    return sorted({(suite.decode(), task) for suite, task in zip(suites, tasks, strict=True)})


def _chosen(sources: Sequence[Source]) -> tuple[list[tuple[int, int]], int]:
    """Return (number of the source, row in it) of every episode that stays, and how many do not."""
    newest: dict[bytes, tuple[int, int, int]] = {}
    total = 0
    for number, source in enumerate(sources):
        count = len(source.spans)
        uids, sessions = (source.file[f"episodes/{n}"][:count] for n in ("uid", "session"))
        total += count
        for row, (uid, session) in enumerate(zip(uids.tolist(), sessions.tolist(), strict=True)):
            if uid not in newest or session >= newest[uid][0]:
                newest[uid] = session, number, row
    return [(number, row) for _, number, row in newest.values()], total - len(newest)


def _header(sources: Sequence[tuple[Path, Source]]) -> TraceHeader:
    """Return the header of the first, saying which files were merged."""
    first = sources[0][1].header
    files = [
        {"file": path.name, "run_id": s.header.run_id, "created_utc": s.header.created_utc}
        for path, s in sources
    ]
    return replace(first, config=first.config | {"merged": files}, recording="", shard=0)


def _copy_tables(sources: Sequence[Source], writer: TraceWriter) -> None:
    """Copy the side tables of all sources, equal rows once."""
    for table in SIDE_TABLES:
        seen: set[tuple] = set()
        for source in sources:
            columns = source.side_table(table)
            rows = list(zip(*(c.tolist() for c in columns.values()), strict=True))
            if table == "policies":
                rows = [(version,) for version in columns["policy_version"].tolist()]
            new = [i for i, row in enumerate(rows) if repr(row) not in seen]
            seen.update(repr(row) for row in rows)
            if new:
                writer.append(table, {name: np.asarray(c)[new] for name, c in columns.items()})


def _acting(intervention: Intervention | None) -> str:
    """Return what acts, whatever it came from."""
    if intervention is None:
        return "none"
    name, dose = intervention.name, intervention.coefficient
    return f"{name} {intervention.operator} {dose:g} {intervention.fingerprint()[:12]}"


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)

"""What a list shows of each recording: its condition, its success and how far its hand moves.

Reads a few small columns and attributes of each file, so that hundreds take a second.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.motion import meed_cm, step_lengths_cm
from traces.errors import NotATrace, UserError
from traces.header import TraceHeader
from traces.reader import TraceReader
from traces.safety import FAILURES, SafeGroup, opened
from traces.schema import FORMAT

SHOWN = (
    *("run_id", "kind", "created_utc", "suite", "intervention", "prompt", "recording"),
    *("shard", "format", "format_version"),
)
"""Root attributes that a list needs."""

COLUMNS = ("task_name", "success", "error", "first_step", "n_steps", "final_ee_pos")


@dataclass(frozen=True)
class Listed:
    """One file, or the shards of one recording together."""

    paths: tuple[Path, ...]
    run_id: str = ""
    kind: str = ""
    created_utc: str = ""
    recording: str = ""
    shards: tuple[int, ...] = ()
    suite: str = ""
    tasks: tuple[str, ...] = ()
    condition: str = "baseline"
    """Its label."""
    intervention: str = ""
    """Name; empty for the baseline."""
    alpha: float | None = None
    episodes: int = 0
    """Complete ones."""
    counted: int = 0
    """Those that no error cut short."""
    successes: int = 0
    """Of these."""
    meeds_cm: tuple[float, ...] = ()
    """MEED of each of these that has one [cm per control step]."""
    bytes: int = 0
    changed_s: float = 0.0
    """Last change, seconds since 1970."""
    partial: bool = False
    """Not closed: being written, or left by a crash."""
    trouble: str = ""
    """Why it cannot be read."""

    @property
    def meed_cm(self) -> float | None:
        """Mean over its episodes."""
        return float(np.mean(self.meeds_cm)) if self.meeds_cm else None

    @property
    def missing(self) -> tuple[int, ...]:
        """Shards that are not there although a later one is."""
        return tuple(sorted(set(range(max(self.shards, default=-1))) - set(self.shards)))


def listing(paths: Iterable[Path]) -> list[Listed]:
    """Return one entry per recording, the newest first; what cannot be read comes last."""
    together: dict[str, list[Listed]] = {}
    for path in paths:
        found = _glance(path)
        together.setdefault(found.recording or str(path), []).append(found)
    listed = [_joined(shards) for shards in together.values()]
    listed.sort(key=lambda entry: entry.paths)
    listed.sort(key=lambda entry: (not entry.trouble, entry.created_utc), reverse=True)
    return listed


def _joined(shards: list[Listed]) -> Listed:
    """Return the shards of one recording as one entry."""
    if len(shards) == 1:
        return shards[0]
    shards.sort(key=lambda shard: (shard.shards, shard.paths))
    first = shards[0]
    return Listed(
        paths=tuple(path for shard in shards for path in shard.paths),
        **{name: getattr(first, name) for name in ("run_id", "kind", "created_utc", "recording")},
        shards=tuple(number for shard in shards for number in shard.shards),
        **{name: getattr(first, name) for name in ("suite", "condition", "intervention", "alpha")},
        tasks=tuple(dict.fromkeys(task for shard in shards for task in shard.tasks)),
        **{
            name: sum(getattr(shard, name) for shard in shards)
            for name in ("episodes", "counted", "successes", "bytes")
        },
        meeds_cm=tuple(meed for shard in shards for meed in shard.meeds_cm),
        changed_s=max(shard.changed_s for shard in shards),
        partial=any(shard.partial for shard in shards),
    )


def _glance(path: Path) -> Listed:
    """Return what a list shows of one file, or why it cannot."""
    try:
        status = path.stat()
        shown = {"bytes": status.st_size, "changed_s": status.st_mtime}
    except OSError as error:
        return Listed((path,), trouble=error.strerror or str(error))
    partial = path.suffix == ".partial"
    try:
        header, columns, ee_pos = _unfinished(path) if partial else _closed(path)
        return Listed(
            (path,), **shown, partial=partial, **_facts(header), **_counts(columns, ee_pos)
        )
    except NotATrace as error:
        trouble = error.why
    except (UserError, *FAILURES) as error:
        trouble = str(error)
    return Listed((path,), **shown, partial=partial, trouble=trouble)


def _closed(path: Path) -> tuple[TraceHeader, dict[str, np.ndarray], np.ndarray]:
    file = opened(path, swmr=False)
    try:
        told = {name: file.attrs[name] for name in SHOWN if name in file.attrs}
        if told.get("format") != FORMAT:
            raise NotATrace(path, f"its attribute `format` is not '{FORMAT}'")
        columns = {name: _texts(file, name) for name in COLUMNS}
        if len({len(rows) for rows in columns.values()}) > 1:
            raise NotATrace(path, "the columns of episodes differ in length")
        return TraceHeader.from_attributes(told), columns, file["steps/ee_pos"][:]
    finally:
        file.close()


def _texts(file: SafeGroup, name: str) -> np.ndarray:
    rows = file[f"episodes/{name}"][:]
    return np.char.decode(rows, "utf-8") if rows.dtype.kind == "S" else rows


def _unfinished(path: Path) -> tuple[TraceHeader, dict[str, np.ndarray], np.ndarray]:
    with TraceReader(path) as trace:
        return trace.header, trace.episodes(*COLUMNS), trace.steps("ee_pos")["ee_pos"]


def _facts(header: TraceHeader) -> dict[str, object]:
    intervention = header.intervention
    return {
        **{name: getattr(header, name) for name in ("run_id", "kind", "created_utc", "recording")},
        "shards": (header.shard,),
        "suite": str(header.suite.get("name", "")),
        "condition": header.condition.label,
        "intervention": intervention.name if intervention else "",
        "alpha": header.condition.alpha,
    }


def _counts(columns: dict[str, np.ndarray], ee_pos: np.ndarray) -> dict[str, object]:
    counted = columns["error"] == ""
    return {
        "tasks": tuple(dict.fromkeys(columns["task_name"].tolist())),
        "episodes": len(counted),
        "counted": int(counted.sum()),
        "successes": int((columns["success"] & counted).sum()),
        "meeds_cm": tuple(_meeds(columns, ee_pos, np.flatnonzero(counted))),
    }


def _meeds(columns: dict[str, np.ndarray], ee_pos: np.ndarray, rows: np.ndarray) -> Iterator[float]:
    for row in rows:
        start = columns["first_step"][row]
        path_m = ee_pos[start : start + columns["n_steps"][row]]
        meed = meed_cm(step_lengths_cm(path_m, columns["final_ee_pos"][row]))
        if meed is not None:
            yield meed

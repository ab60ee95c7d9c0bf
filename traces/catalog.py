"""Find traces and run folders, and give new ones names that never collide."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from traces.errors import NoFilesMatch
from traces.reader import TraceReader

SUFFIX = ".h5"
PARTIAL_SUFFIX = ".h5.partial"
EVENTS_NAME = "events.jsonl"


@dataclass(frozen=True)
class RunDir:
    """The folder of one run."""

    path: Path

    @property
    def run_id(self) -> str:
        """Name of the folder."""
        return self.path.name

    @property
    def events(self) -> Path:
        """The run's events log."""
        return self.path / EVENTS_NAME


@dataclass(frozen=True)
class TraceSummary:
    """What a list shows of a trace."""

    path: Path
    run_id: str
    kind: str
    suite: str
    task_ids: tuple[int, ...]
    intervention: str
    """Name of the intervention; empty for the baseline."""
    coefficient: float
    """Its dose; NaN for the baseline."""
    episodes: int
    successes: int
    created_utc: str
    bytes: int
    partial: bool
    """Still being written, or left by a crash."""


def find_traces(patterns: Iterable[Path | str], *, partial: bool = False) -> list[Path]:
    """Return the traces that files, folders (searched throughout) and glob patterns name.

    Args:
        patterns: each must match something.
        partial: also find `.h5.partial` files in folders and by patterns; one named in full is
            found in any case.

    Returns:
        Sorted paths, each file once.
    """
    found: dict[Path, Path] = {}
    patterns = list(patterns)
    for pattern in patterns:
        matches = _matches(Path(pattern).expanduser(), partial)
        if not matches:
            raise NoFilesMatch(pattern)
        for path in matches:
            found.setdefault(path.resolve(), path)
    if not patterns:
        raise NoFilesMatch("")
    return sorted(found.values())


def _matches(pattern: Path, partial: bool) -> list[Path]:
    if pattern.is_file():
        return [pattern]
    if pattern.is_dir():
        candidates: Iterable[Path] = (p for p in pattern.rglob("*") if p.is_file())
    else:
        root = Path(pattern.anchor)
        hits = list(root.glob(str(pattern.relative_to(root))))
        folders = [hit for hit in hits if hit.is_dir()]
        candidates = [hit for hit in hits if hit.is_file()]
        candidates += [p for folder in folders for p in folder.rglob("*") if p.is_file()]
    suffixes = (SUFFIX, PARTIAL_SUFFIX) if partial else (SUFFIX,)
    return [path for path in candidates if path.name.endswith(suffixes)]


def summarise(path: Path | str) -> TraceSummary:
    """Read the few numbers of a trace that a list shows."""
    path = Path(path)
    with TraceReader(path) as trace:
        header = trace.header
        episodes = trace.episodes("task_id", "success")
        intervention = header.intervention
        return TraceSummary(
            path=path,
            run_id=header.run_id,
            kind=header.kind,
            suite=str(header.suite.get("name", "")),
            task_ids=tuple(np.unique(episodes["task_id"]).tolist()),
            intervention=intervention.name if intervention else "",
            coefficient=intervention.coefficient if intervention else float("nan"),
            episodes=trace.n_episodes,
            successes=int(episodes["success"].sum()),
            created_utc=header.created_utc,
            bytes=path.stat().st_size,
            partial=trace.partial,
        )


def find_runs(folder: Path | str) -> list[RunDir]:
    """Return the runs in a folder, or the folder itself if it is one; by name, oldest first."""
    folder = Path(folder).expanduser()
    if (folder / EVENTS_NAME).is_file():
        return [RunDir(folder)]
    return [RunDir(log.parent) for log in sorted(folder.glob(f"*/{EVENTS_NAME}"))]


def new_run_id(kind: str) -> str:
    """Return a name that sorts by time and that no other run has: 20260131-235959-record-1f9c."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{kind}-{secrets.token_hex(2)}"


def unused_path(folder: Path | str, stem: str, suffix: str) -> Path:
    """Return folder/stem+suffix, or the first of stem-2, stem-3, ... that is free.

    A name is taken also by what a kill left of a file that was to have it: `.partial`, `.new`.
    """
    folder = Path(folder)
    number = 1
    while True:
        name = f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}"
        path = folder / name
        if not any(path.with_name(name + ending).exists() for ending in ("", ".partial", ".new")):
            return path
        number += 1

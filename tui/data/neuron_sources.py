"""Which policies a folder knows, where their neuron tables are, and which traces speak of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from traces.neuron_file import neuron_file, neuron_files
from tui.data.model import Run, TraceFile
from tui.terminal import one_line

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PolicySource:
    """One set of weights."""

    sha256: str
    path: str
    """Where it was loaded from: a name, a folder; "" when only its table is known."""
    files: tuple[TraceFile, ...] = ()
    """Closed traces of it alone, other than training's."""

    @property
    def name(self) -> str:
        """Last part of its path and the first digits of its hash, for people."""
        last = self.path.rstrip("/").rsplit("/", 1)[-1]
        if last == "pretrained_model":
            last = "/".join(self.path.rstrip("/").rsplit("/", 4)[-4:-1:2])
        return one_line(f"{last or 'policy'}@{self.sha256[:8]}")

    @property
    def table(self) -> Path:
        """Its neuron table; it need not exist."""
        return neuron_file(self.sha256)

    @property
    def stamp(self) -> tuple[str, int] | None:
        """Changes when its table does; None without one."""
        try:
            return self.sha256, self.table.stat().st_mtime_ns
        except OSError:
            return None

    @property
    def unsteered(self) -> tuple[TraceFile, ...]:
        """Its recordings in which nothing was done to it."""
        return tuple(file for file in self.files if file.header.condition.role == "baseline")

    def paths(self, files: Iterable[TraceFile]) -> tuple[Path, ...]:
        """Return the paths of some traces, shard by shard."""
        return tuple(path for file in files for path in file.paths)


def policy_sources(runs: Iterable[Run]) -> tuple[PolicySource, ...]:
    """Return the policies of some runs, newest first, then those of which only a table is left."""
    paths: dict[str, str] = {}
    files: dict[str, list[TraceFile]] = {}
    for run in runs:
        for file in run.files:
            for sha256, path in file.policies:
                if SHA256.fullmatch(sha256):
                    paths.setdefault(sha256, path)
            known = [sha256 for sha256, _ in file.policies]
            if len(known) == 1 and run.kind != "grpo" and not file.error and not file.partial:
                files.setdefault(known[0], []).append(file)
    found = [PolicySource(sha, path, tuple(files.get(sha, ()))) for sha, path in paths.items()]
    left = [PolicySource(sha256, "") for sha256 in neuron_files() if sha256 not in paths]
    return (*found, *left)

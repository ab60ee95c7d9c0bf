"""Write one recording as several files, each complete and readable on its own.

    STEM.h5  STEM.s0001.h5  STEM.s0002.h5 ...

A shard is closed and gets its final name as soon as an episode takes it past a limit, so that it
can be read while the recording goes on; the next one begins with the next write.  The header
attributes `recording`, equal in all shards of a recording and in no other file, and `shard`, from
0, are what puts them together again.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from traces.errors import BadRecord, FileExists
from traces.header import SiteInfo, TraceHeader
from traces.writer import EpisodeRecord, TraceWriter

SHARD = re.compile(r"(?P<stem>.+)\.s(?P<number>\d{4,})")
"""Stem of the name of a shard after the first."""


@dataclass(frozen=True)
class Rotation:
    """When a shard is full: as soon as one of these is reached; None is no limit."""

    episodes: int | None = None
    bytes: int | None = None
    """Size of the file."""
    seconds: float | None = None
    """Since the shard was begun, looked at when an episode has been written."""

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("bytes", 1), ("seconds", 0)):
            limit = getattr(self, name)
            if limit is not None and not limit >= least:
                raise BadRecord(f"rotation by {name}", f"at least {least}, or None", limit)


@dataclass(frozen=True)
class ClosedShard:
    """A shard that is complete and has its final name."""

    path: Path
    number: int
    episodes: int
    bytes: int


class ShardedWriter:
    """Append episodes to the shards of one recording; used like a `TraceWriter`.

    Leaving the `with` block closes the last shard; leaving it through an exception keeps that one
    as `.partial`.  Whatever happens to a shard, those before it are closed already.

    Args:
        path: name of the first shard.
        header: root attributes; `recording` and `shard` are filled in.
        sites: places whose activations every record brings.
        rotation: when a shard is full; without a limit everything goes into one file.
        closed: is told of every shard as soon as it is closed.
        **options: further keyword arguments of `TraceWriter`.

    Raises:
        FileExists: some shard of that name is there already.
    """

    def __init__(
        self,
        path: Path | str,
        header: TraceHeader,
        sites: Sequence[SiteInfo] = (),
        *,
        rotation: Rotation | None = None,
        closed: Callable[[ClosedShard], None] = lambda shard: None,
        **options: object,
    ) -> None:
        self.path = Path(path)
        self.rotation = rotation or Rotation()
        self.paths: list[Path] = []
        """Every shard so far by its final name; the present one last."""
        self._header = replace(header, recording=secrets.token_hex(8))
        self._sites, self._options, self._closed = sites, options, closed
        self._policies: list[tuple] = []
        self._writer: TraceWriter | None = None
        self._over = False
        if taken := sorted(siblings(self.path)):
            raise FileExists(taken[0])
        self._begin()

    def write_policy(
        self, policy_version: int, update: int, sha256: str = "", path: str = ""
    ) -> None:
        """Append one row to policies/, and to that of every later shard."""
        row = (policy_version, update, sha256, path)
        self._present().write_policy(*row)
        self._policies.append(row)

    def append(self, table: str, columns: Mapping[str, Sequence]) -> None:
        """Append rows to a side table of the present shard (see `TraceWriter.append`)."""
        self._present().append(table, columns)

    def write_episode(self, record: EpisodeRecord) -> None:
        """Append one episode, then close the shard if it is full."""
        writer = self._present()
        writer.write_episode(record)
        self._episodes += 1
        if self._full():
            self._finish(writer)

    def close(self) -> list[Path]:
        """Close the last shard; return the paths of all of them.

        After a failed write the last one keeps its `.partial` name.
        """
        self._over = True
        if self._writer is not None:
            self._finish(self._writer)
        return list(self.paths)

    def _present(self) -> TraceWriter:
        if self._over:
            raise BadRecord(str(self.path), "a recording that goes on", "one that was closed")
        return self._writer or self._begin()

    def _begin(self) -> TraceWriter:
        number = len(self.paths)
        path, header = shard_path(self.path, number), replace(self._header, shard=number)
        writer = TraceWriter(path, header, self._sites, **self._options)
        try:
            for row in self._policies:
                writer.write_policy(*row)
        except BaseException as error:
            writer.__exit__(type(error))
            writer.partial.unlink()
            raise
        self.paths.append(path)
        self._writer, self._episodes, self._began = writer, 0, time.monotonic()
        return writer

    def _full(self) -> bool:
        limits = self.rotation
        return (
            (limits.episodes is not None and self._episodes >= limits.episodes)
            or (limits.bytes is not None and self._writer.partial.stat().st_size >= limits.bytes)
            or (limits.seconds is not None and time.monotonic() - self._began >= limits.seconds)
        )

    def _finish(self, writer: TraceWriter) -> None:
        path = writer.close()
        self._writer = None
        self.paths[-1] = path
        if path != writer.partial:
            shard = ClosedShard(path, len(self.paths) - 1, self._episodes, path.stat().st_size)
            self._closed(shard)

    def __enter__(self) -> ShardedWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._over = True
        if kind is None:
            self.close()
        elif self._writer is not None:
            self._writer.__exit__(kind, *exception)
            self.paths[-1] = self._writer.partial


def shard_path(path: Path, number: int) -> Path:
    """Return the name of a shard, given that of the first: STEM.h5, STEM.s0001.h5, ..."""
    return path.with_name(f"{path.stem}.s{number:04d}{path.suffix}") if number else path


def first_shard(path: Path) -> Path:
    """Return the name of the first shard, given that of any."""
    match = SHARD.fullmatch(path.stem)
    return path.with_name(match["stem"] + path.suffix) if match else path


def siblings(path: Path) -> list[Path]:
    """Return the later shards, closed or not, that lie beside a first one and bear its name."""
    found = path.parent.glob(f"{_literal(path.stem)}.s*{path.suffix}*")
    return [p for p in found if first_shard(p.with_name(p.name.removesuffix(".partial"))) == path]


def _literal(name: str) -> str:
    """Return a glob pattern that matches this name only."""
    return re.sub(r"([*?[])", r"[\1]", name)

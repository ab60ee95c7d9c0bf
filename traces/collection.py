"""Read many traces as one: `open_traces`, for notebooks and for whatever looks at whole folders.

Files are numbered, the shards of a recording in their order, and so are the rows of all files
together: what points from one table to another (`steps/episode`, `episodes/first_step`, ...) counts
through them.  Values are read when they are asked for, and few files are open at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from traces.catalog import find_traces
from traces.columns import Moments, merged
from traces.errors import NotATrace, UnknownName, UserError
from traces.header import SiteInfo, TraceHeader
from traces.lazy import LazyActivations
from traces.reader import Columns, TraceReader
from traces.safety import DAMAGE
from traces.shards import first_shard

OPEN_FILES = 8
"""Files that stay open between two reads."""

POINTERS = {
    "episodes": {"first_step": "steps", "first_decision": "decisions"},
    "steps": {"episode": "episodes", "decision": "decisions"},
    "decisions": {"episode": "episodes"},
    "objects": {"step": "steps"},
}
"""Table to its columns that hold rows of another table."""

Chosen = int | slice | Sequence[int] | np.ndarray | None
"""Rows of episodes/, in any form that indexes an array; None for all."""


def open_traces(*patterns: Path | str) -> TraceCollection:
    """Open traces, to be read as one.

    Args:
        *patterns: files, folders (searched throughout) and glob patterns. The plain name of a
            recording stands for all its closed shards. Files that are not closed are left out,
            which `notes` says, unless they are named in full.

    Raises:
        NoFilesMatch: a pattern names no trace.
        NotATrace: one of the files is damaged.
    """
    named = find_traces(patterns)
    beside = [path for path in _later_shards(named) if path not in named]
    unfinished = [
        path
        for path in dict.fromkeys([*find_traces(patterns, partial=True), *beside])
        if path.suffix == ".partial" and path not in named
    ]
    return TraceCollection(named, [p for p in beside if p.suffix != ".partial"], unfinished)


@dataclass(frozen=True)
class Recording:
    """The episodes of one condition, recorded at a stretch: one file, or several shards."""

    header: TraceHeader
    """Of the first shard that is there."""
    files: tuple[int, ...]
    """Numbers of its files, in the order of its shards."""
    paths: tuple[Path, ...]
    missing: tuple[int, ...]
    """Shards that are not there although a later one is."""
    episodes: slice
    """Its rows of episodes/."""
    partial: bool
    """Its last shard is still being written, or was left by a crash."""


class TraceCollection:
    """Open traces (see `open_traces`).

    Methods return dicts of numpy arrays, ready for `polars.DataFrame`. Every table has a column
    `file`, an index into `paths`; episodes also have `recording`, an index into `recordings()`.
    """

    def __init__(
        self, paths: Iterable[Path], beside: Iterable[Path] = (), unfinished: Iterable[Path] = ()
    ) -> None:
        self._recently_used: OrderedDict[TraceReader, None] = OrderedDict()
        headers: dict[str, TraceHeader] = {}
        readers = [self._used(TraceReader(path, headers)) for path in paths]
        known = {_recording_of(reader) for reader in readers}
        others = (self._used(TraceReader(path, headers)) for path in beside)
        readers += [reader for reader in others if _recording_of(reader) in known]
        self._readers, self._copies = _in_order(readers)
        self._unfinished = list(unfinished)
        self.paths = tuple(reader.path for reader in self._readers)
        self._starts = {
            table: np.cumsum([0, *(getattr(reader, f"n_{table}") for reader in self._readers)])
            for table in ("episodes", "steps", "decisions")
        }
        self.n_episodes, self.n_steps, self.n_decisions = (
            int(starts[-1]) for starts in self._starts.values()
        )

    def recordings(self) -> tuple[Recording, ...]:
        """Return the recordings in the order of their files."""
        return self._recordings

    @cached_property
    def _recordings(self) -> tuple[Recording, ...]:
        found = []
        numbered = list(enumerate(self._readers))
        for _, group in groupby(numbered, key=lambda entry: _recording_of(entry[1])):
            files, readers = zip(*group, strict=True)
            shards = [reader.header.shard for reader in readers]
            starts = self._starts["episodes"]
            found.append(
                Recording(
                    header=readers[0].header,
                    files=files,
                    paths=tuple(reader.path for reader in readers),
                    missing=tuple(sorted(set(range(shards[-1])) - set(shards))),
                    episodes=slice(int(starts[files[0]]), int(starts[files[-1] + 1])),
                    partial=readers[-1].partial,
                )
            )
        return tuple(found)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What these files do not say by themselves: one sentence each."""
        notes = [
            f"{path} is unfinished and was not read; name it in full to count it"
            for path in self._unfinished
        ]
        notes += [
            f"{copy} holds the same shard as {path} and was left out" for copy, path in self._copies
        ]
        for reader in self._readers:
            if reader.partial:
                count = _counted(reader.n_episodes, "complete episode")
                notes.append(f"{reader.path} is unfinished: {count} in it")
        for recording in self.recordings():
            if recording.missing:
                which = ", ".join(map(str, recording.missing))
                notes.append(f"{recording.paths[-1]} is not the whole recording: no shard {which}")
        return tuple(notes + self._session_notes())

    def _session_notes(self) -> list[str]:
        episodes = self.episodes("uid", "session")
        runs = np.array([r.header.run_id for r in self.recordings()], str)[episodes["recording"]]
        notes = []
        for run in np.unique(runs):
            rows = runs == run
            sessions = np.unique(episodes["session"][rows])
            repeated = rows.sum() - len(np.unique(episodes["uid"][rows]))
            if len(sessions) > 1 or repeated:
                which = ", ".join(map(str, sessions))
                count = _counted(int(repeated), "episode")
                notes.append(
                    f"run {run} has episodes of session {which}; {count} recorded again under the "
                    "same uid: the one of the largest session counts"
                )
        return notes

    def episodes(self, *columns: str) -> Columns:
        """Return columns of episodes/ (all without arguments), one row per episode."""
        found = self._joined("episodes", lambda reader, _: reader.episodes(*columns))
        sizes = [len(recording.files) for recording in self.recordings()]
        recording_of_file = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        file = found.pop("file")
        return {"file": file, "recording": recording_of_file[file]} | found

    def steps(self, *columns: str, episode: Chosen = None) -> Columns:
        """Return columns of steps/, of all episodes or of some, in the order given."""
        return self._joined("steps", lambda r, rows: r.steps(*columns, episode=rows), episode)

    def decisions(self, *columns: str, episode: Chosen = None) -> Columns:
        """Return columns of decisions/, of all episodes or of some, in the order given."""
        return self._joined(
            "decisions", lambda r, rows: r.decisions(*columns, episode=rows), episode
        )

    def objects(self, *, episode: Chosen = None) -> Columns:
        """Return objects/ with the column `name`; files without object poses add no rows."""
        return self._joined("objects", lambda r, rows: r.objects(episode=rows), episode)

    def table(self, name: str, *columns: str) -> Columns:
        """Return columns of policies/ (once per recording), groups/, advantages/ or updates/."""
        files = None
        if name == "policies":  # every shard repeats those before it
            files = [recording.files[-1] for recording in self.recordings()]
        return self._joined(name, lambda reader, _: reader.table(name, *columns), files=files)

    def sites(self) -> list[SiteInfo]:
        """Return the sites that some recording has, in the order of their towers."""
        found = {site.name: site for sites in self._sites for site in sites}
        return sorted(found.values(), key=lambda site: (site.tower, site.layer, site.name))

    @cached_property
    def _sites(self) -> list[list[SiteInfo]]:
        """The sites of each recording."""
        found = []
        for recording in self.recordings():
            with self.reading(recording.files[0]) as reader:
                found.append(reader.sites())
        return found

    def activation(self, site: str) -> LazyActivations:
        """Return a site's activations as an array that reads what is sliced of it.

        Raises:
            UnknownName: no file has such a site.
            UserError: its rows have different shapes in these files.
        """
        infos = {
            file: info
            for recording, sites in zip(self.recordings(), self._sites, strict=True)
            for info in sites
            for file in recording.files
            if info.name == site
        }
        if not infos:
            raise UnknownName("activation site", site, (info.name for info in self.sites()))
        if len({info.shape for info in infos.values()}) > 1:
            raise UserError(f"the site {site} has different shapes in these files; open them apart")
        return LazyActivations(self, site, infos, self._starts["decisions"])

    def activation_stats(self, site: str) -> Moments:
        """Return (n, mean, std) of every unit over all files, each (N,)."""
        parts = []
        for file in self.activation(site).files:
            with self.reading(file) as reader:
                n, mean, std = reader.activation_stats(site)
            parts.append((n, np.where(n, mean, 0.0), np.where(n, std, 0.0) ** 2 * n))
        n, mean, m2 = reduce(merged, parts)
        return n, np.where(n, mean, np.nan), np.sqrt(np.where(n, m2, np.nan) / np.maximum(n, 1))

    @contextmanager
    def reading(self, file: int) -> Iterator[TraceReader]:
        """Lend the reader of one file: for frames, and whatever else has no method here."""
        reader = self._used(self._readers[file])
        try:
            yield reader
        except DAMAGE as error:
            raise NotATrace(reader.path, f"it is damaged ({error})") from error

    def close(self) -> None:
        """Close every file; what is read afterwards opens it again."""
        for reader in self._readers:
            reader.close()

    def __enter__(self) -> TraceCollection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _used(self, reader: TraceReader) -> TraceReader:
        """Note that a reader is used now; close the one that was not for the longest time."""
        self._recently_used[reader] = None
        self._recently_used.move_to_end(reader)
        if len(self._recently_used) > OPEN_FILES:
            oldest, _ = self._recently_used.popitem(last=False)
            oldest.close()
        return reader

    def _joined(
        self,
        table: str,
        read: Callable[[TraceReader, slice | None], Columns],
        episode: Chosen = None,
        files: Sequence[int] | None = None,
    ) -> Columns:
        """Read a table file by file; join its columns and let its pointers count through."""
        if files is None:
            files = range(len(self.paths))
        spans = [(file, None) for file in files] if episode is None else self._spans(episode)
        parts = []
        for file, rows in spans or [(0, slice(0, 0))]:
            with self.reading(file) as reader:
                columns = read(reader, rows)
            for name, target in POINTERS.get(table, {}).items():
                if name in columns:
                    columns[name] = columns[name] + self._starts[target][file]
            if columns:
                n_rows = len(next(iter(columns.values())))
                parts.append({"file": np.full(n_rows, file, np.int32)} | columns)
        names = [name for name in parts[0] if all(name in part for part in parts)] if parts else []
        return {name: _concatenated(table, name, parts) for name in names}

    def _spans(self, episode: Chosen) -> list[tuple[int, slice]]:
        """Return chosen rows of episodes/ as spans of consecutive ones within a file."""
        starts = self._starts["episodes"]
        rows = np.atleast_1d(np.arange(self.n_episodes)[episode])
        files = np.searchsorted(starts, rows, side="right") - 1
        breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(files) != 0)) + 1
        spans = pairwise([0, *breaks.tolist(), len(rows)]) if len(rows) else ()
        return [
            (
                int(files[i]),
                slice(int(rows[i] - starts[files[i]]), int(rows[j - 1] - starts[files[i]]) + 1),
            )
            for i, j in spans
        ]


def _recording_of(reader: TraceReader) -> str:
    """Return what shards of one recording have in common."""
    return reader.header.recording or str(reader.path)


def _in_order(
    readers: list[TraceReader],
) -> tuple[list[TraceReader], list[tuple[Path, Path]]]:
    """Return readers with the shards of a recording together, and (copy, original) left out."""
    first: dict[str, Path] = {}
    for reader in sorted(readers, key=lambda r: r.path):
        first.setdefault(_recording_of(reader), reader.path)
    kept: dict[tuple[str, int], TraceReader] = {}
    copies = []
    order = sorted(readers, key=lambda r: (first[_recording_of(r)], r.header.shard, r.path))
    for reader in order:
        original = kept.setdefault((_recording_of(reader), reader.header.shard), reader)
        if original is not reader:
            copies.append((reader.path, original.path))
    return list(kept.values()), copies


def _later_shards(paths: Sequence[Path]) -> list[Path]:
    """Return the files, closed or not, that are called like later shards of some of these."""
    known = set(paths)
    found = []
    for folder in sorted({path.parent for path in paths}):
        for path in sorted(folder.glob("*.s[0-9]*.h5*")):
            closed = path.with_name(path.name.removesuffix(".partial"))
            if closed.suffix == ".h5" and first_shard(closed) in known - {closed}:
                found.append(path)
    return found


def _concatenated(table: str, name: str, parts: list[Columns]) -> np.ndarray:
    try:
        return np.concatenate([part[name] for part in parts])
    except ValueError:
        raise UserError(
            f"{table}/{name} has rows of different shapes in these files; open them apart"
        ) from None


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

"""Copy episodes from one trace to another: what repair, merge and prune have in common.

Every episode goes through `TraceWriter`, so a copy is as crash-proof and as checked as a recording,
and indices and statistics are worked out anew.  One episode is in memory at a time, without its
activations, which are read block by block.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from traces.errors import FileExists, NotATrace
from traces.header import SiteInfo, TraceHeader
from traces.reader import TraceReader
from traces.safety import FAILURES, SafeGroup, opened
from traces.scan import spans as runs
from traces.schema import DECISIONS, EPISODES, OBJECTS, STEPS, TABLES, Field, fields_of
from traces.spans import Spans, stored_spans
from traces.writer import EpisodeRecord, TraceWriter

SIDE_TABLES = ("policies", "groups", "advantages", "updates")


@dataclass(frozen=True)
class Contents:
    """What a trace holds beside episodes, steps and decisions."""

    sites: tuple[SiteInfo, ...] = ()
    object_names: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    chain: bool = False
    sim_state: bool = False

    @classmethod
    def of(cls, file: SafeGroup) -> Contents:
        """Return what an open file holds."""
        sites = [
            SiteInfo.from_attributes(group.attrs, str(group["values"].dtype))
            for group in file.get("activations", {}).values()
        ]
        return cls(
            sites=tuple(sorted(sites, key=lambda site: (site.tower, site.layer, site.name))),
            object_names=tuple(json.loads(file["objects"].attrs["names"]))
            if "objects" in file
            else (),
            cameras=tuple(sorted(file.get("frames", {}))),
            chain="decisions/chain" in file,
            sim_state="sim_state" in file,
        )


@dataclass(frozen=True)
class Source:
    """An open trace that is copied from."""

    file: SafeGroup
    header: TraceHeader
    spans: Spans
    contents: Contents
    unknown: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Column to a mask of its rows which become "not known"."""
    lost: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Side table (activations/<site>, objects, ...) to a mask of its rows which are left out."""
    unread: frozenset[str] = frozenset()
    """Columns that become "not known" as a whole."""

    def record(self, episode: int, contents: Contents) -> EpisodeRecord:
        """Read one episode.

        Args:
            episode: its row in episodes/.
            contents: what of it is wanted.
        """
        first_step, stop_step = self.spans.steps(episode)
        first_decision, stop_decision = self.spans.decisions(episode)
        row = self._table("episodes", EPISODES, episode, episode + 1)
        steps = self._table("steps", STEPS, first_step, stop_step)
        steps["decision"] = steps["decision"] - first_decision
        decisions = self._table("decisions", DECISIONS, first_decision, stop_decision)
        if not contents.chain:
            decisions.pop("chain", None)
        record = EpisodeRecord({name: values[0] for name, values in row.items()}, steps, decisions)
        for site in contents.sites:
            self._activations(site, first_decision, stop_decision, record)
        if contents.object_names:
            rows = self._keys["objects"].rows(first_step, stop_step)
            record.objects = self._picked("objects", OBJECTS, rows)
            record.objects["step"] = record.objects["step"] - first_step
        record.frames = {
            camera: self._stream(f"frames/{camera}", first_step, stop_step)
            for camera in contents.cameras
        }
        record.frames = {c: (at, [i.tobytes() for i in f]) for c, (at, f) in record.frames.items()}
        if contents.sim_state:
            record.sim_state = self._stream("sim_state", first_step, stop_step)
        return record

    def side_table(self, table: str) -> dict[str, np.ndarray]:
        """Return policies/, groups/, advantages/ or updates/ without the rows that are lost."""
        if table not in self.file:
            return {}
        fields = [f for f in TABLES[table] if self._has(table, f)]
        length = min((len(self.file[f"{table}/{f.name}"]) for f in fields), default=0)
        rows = np.arange(length)
        if table in self.lost:
            rows = rows[~self.lost[table][:length]]
        return self._picked(table, fields, rows)

    def _has(self, table: str, column: Field) -> bool:
        return column.name in self.file[table] and f"{table}/{column.name}" not in self.unread

    def _table(
        self, table: str, fields: Sequence[Field], start: int, stop: int
    ) -> dict[str, np.ndarray]:
        """Return the columns that a record brings, rows [start, stop)."""
        return {
            f.name: self._column(f"{table}/{f.name}", f, start, stop)
            for f in fields
            if not f.derived and self._has(table, f)
        }

    def _column(self, place: str, known: Field, start: int, stop: int) -> np.ndarray:
        """Return rows [start, stop) of a column; where they are unknown, what stands for that."""
        dataset = self.file[place]
        unknown = self.unknown.get(place, np.zeros(0, bool))[start:stop]
        if not unknown.any():
            return _decoded(dataset[start:stop])
        missing = "" if known.text_bytes else known.fill
        shape, dtype = (stop - start, *dataset.shape[1:]), object if known.text_bytes else None
        rows = np.full(shape, missing, dtype or dataset.dtype)
        for first, last in runs(np.flatnonzero(~unknown)):
            rows[first:last] = _decoded(dataset[start + first : start + last])
        return rows

    def _picked(
        self, table: str, fields: Sequence[Field], rows: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return some rows of a side table, ascending."""
        found = {}
        for known in fields:
            place = f"{table}/{known.name}"
            if self._has(table, known):
                parts = [self._column(place, known, a, b) for a, b in runs(rows)]
                empty = self._column(place, known, 0, 0)
                found[known.name] = np.concatenate([empty, *parts])
        return found

    @cached_property
    def _keys(self) -> dict[str, _Keys]:
        """For every side table the step or decision that each row belongs to."""
        places = {f"activations/{site.name}": "decision" for site in self.contents.sites}
        places |= {"objects": "step"} if self.contents.object_names else {}
        places |= {f"frames/{camera}": "step" for camera in self.contents.cameras}
        places |= {"sim_state": "step"} if self.contents.sim_state else {}
        return {
            place: _Keys(self.file[place], fields_of(place), key, self.lost.get(place))
            for place, key in places.items()
        }

    def _activations(self, site: SiteInfo, start: int, stop: int, record: EpisodeRecord) -> None:
        place = f"activations/{site.name}"
        keys = self._keys[place]
        rows = keys.rows(start, stop)
        overflow = self.file[f"{place}/overflow"][0] if f"{place}/overflow" in self.file else 0
        record.activations[site.name] = _Rows(self.file[f"{place}/values"], rows, overflow > 0)
        record.activation_decisions[site.name] = keys.of(rows) - start

    def _stream(self, place: str, start: int, stop: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the steps within the episode, and the item of each."""
        keys = self._keys[place]
        rows = keys.rows(start, stop)
        data, items = self.file[f"{place}/data"], []
        for first, last in runs(rows):
            offset = self.file[f"{place}/offset"][first:last]
            length = self.file[f"{place}/length"][first:last]
            items += [data[o : o + n] for o, n in zip(offset, length, strict=True)]
        return keys.of(rows) - start, items


class _Keys:
    """Which rows of a side table belong to which steps or decisions."""

    def __init__(
        self, table: SafeGroup, fields: Sequence[Field], key: str, lost: np.ndarray | None
    ) -> None:
        names = [f.name for f in fields if f.dims[0] not in "BN1" and f.name in table]
        length = min(len(table[name]) for name in names)
        kept = np.arange(length) if lost is None else np.flatnonzero(~lost[:length])
        found = [table[key][first:last] for first, last in runs(kept)]
        self._rows, self._keys = kept, np.concatenate([np.zeros(0, np.int64), *found])

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return the rows whose key lies in [start, stop)."""
        return self._rows[slice(*np.searchsorted(self._keys, (start, stop)))]

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return the keys of some rows."""
        return self._keys[np.searchsorted(self._rows, rows)]


class _Rows:
    """Some rows of a site, read when they are asked for (see `traces.activations.ArrayLike`).

    Values that had been too large for the type are given as such again, so that they are counted.
    """

    def __init__(self, values: h5py.Dataset, rows: np.ndarray, overflowed: bool) -> None:
        self._values, self._rows, self._overflowed = values, rows, overflowed
        self.shape, self.dtype = (len(rows), *values.shape[1:]), values.dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        parts = [self._values[first:last] for first, last in runs(self._rows[rows])]
        block = np.concatenate([self._values[:0], *parts]) if len(parts) != 1 else parts[0]
        if self._overflowed and np.isinf(block).any():
            return np.clip(block.astype(np.float64), -1e300, 1e300)
        return block


@contextmanager
def new_trace(path: Path, header: TraceHeader, contents: Contents) -> Iterator[TraceWriter]:
    """Write a trace that appears under its name as a whole or not at all.

    Until then it has another name beside it, which no list of traces shows.

    Raises:
        FileExists: there is a file of that name.
        DiskFull, WriteFailed, UnwritableFolder: nothing is left behind.
    """
    if path.exists():
        raise FileExists(path)
    writer = TraceWriter(
        path.with_name(f"{path.name}.{secrets.token_hex(3)}"),
        header,
        contents.sites,
        keep_chain=contents.chain,
        object_names=contents.object_names,
        cameras=contents.cameras,
        keep_sim_state=contents.sim_state,
    )
    try:
        yield writer
        _named(writer.close(), path)
    except BaseException:
        writer.__exit__(*sys.exc_info())
        writer.partial.unlink(missing_ok=True)
        writer.path.unlink(missing_ok=True)
        raise


def _named(hidden: Path, path: Path) -> None:
    """Give a file its name, unless another file has it by now."""
    try:
        os.link(hidden, path)
    except FileExistsError as error:
        raise FileExists(path) from error
    except OSError:  # no hard links here
        if path.exists():
            raise FileExists(path) from None
        hidden.rename(path)
    else:
        hidden.unlink()


def copy_tables(source: Source, writer: TraceWriter) -> None:
    """Copy policies/, groups/, advantages/ and updates/."""
    for table in SIDE_TABLES:
        columns = source.side_table(table)
        if columns and len(next(iter(columns.values()))):
            writer.append(table, columns)


def copy_episode(source: Source, row: int, contents: Contents, writer: TraceWriter) -> None:
    """Copy one episode of a sound trace.

    Raises:
        NotATrace: it is not sound.
    """
    try:
        writer.write_episode(source.record(row, contents))
    except FAILURES as error:
        path = source.file.path
        raise NotATrace(path, f"it is damaged ({error}); first: vla-trace repair {path}") from error


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a sound trace for copying.

    Raises:
        MissingFile, NotATrace, NewerFormat: it is none.
    """
    with TraceReader(path) as trace:
        n_episodes, header = trace.n_episodes, trace.header
    file = opened(path, swmr=path.suffix == ".partial")
    try:
        spans, contents = stored_spans(file, n_episodes), Contents.of(file)
        yield Source(file, header, spans, contents)
    finally:
        file.close()


def _decoded(rows: np.ndarray) -> np.ndarray:
    return np.char.decode(rows, "utf-8") if rows.dtype.kind == "S" else rows

"""Write one trace: everything is created first, then only appended to, one episode at a time.

    NAME.h5.new       while it is made; holds nothing yet, and is there for some milliseconds
    NAME.h5.partial   while it is written; opens with `swmr=True` up to its last complete episode
    NAME.h5           after `close`; the content is on the disk before the name appears

An episode's uid is written after all the rest of it has been flushed, so whoever finds a uid finds
the whole episode, whenever the writer was killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from traces.activations import ArrayLike, Arriving, SiteWriter, append_activations, appended
from traces.columns import as_table
from traces.errors import BadRecord, DiskFull, FileExists, UnwritableFolder, WriteFailed
from traces.header import SiteInfo, TraceHeader
from traces.layout import create_site, create_tables
from traces.schema import DECISIONS, EPISODES, FRAMES, OBJECTS, SIM_STATE, STEPS, TABLES, Field

__all__ = ["EpisodeRecord", "SiteInfo", "TraceHeader", "TraceWriter"]

PARTIAL = ".partial"
LIBVER = ("v110", "v110")
"""The oldest file format that survives a crash, so that older HDF5 libraries read it too."""
SPARE_BYTES = 64 * 2**20
"""Disk space that a write leaves free, for chunks it begins and for the files of others."""
CACHE_BYTES = 2**19
"""Chunks of one column that stay in memory, so that the last one is not read back to be filled."""
SIDE_TABLES = ("policies", "groups", "advantages", "updates")

Stream = tuple[Sequence[int], Sequence]
"""Steps within the episode (0, 1, ...; ascending), and one item for each."""


@dataclass
class EpisodeRecord:
    """Everything about one finished episode; all indices count from its own start."""

    episode: dict[str, object]
    """One value per column of episodes/."""
    steps: dict[str, np.ndarray]
    """Columns of steps/, (n_steps, ...); `decision` counts within the episode."""
    decisions: dict[str, np.ndarray]
    """Columns of decisions/, (n_decisions, ...); `chain` is dropped unless the trace keeps it."""
    activations: dict[str, ArrayLike] = field(default_factory=dict)
    """Site name to (n_decisions, *shape), for every site of the trace; read block by block."""
    activation_decisions: dict[str, Sequence[int]] = field(default_factory=dict)
    """Site name to the decisions its rows belong to, where these are not all, ascending."""
    objects: dict[str, np.ndarray] | None = None
    """Columns of objects/; `step` counts within the episode, ascending."""
    frames: dict[str, Stream] | None = None
    """Camera to steps and PNG bytes."""
    sim_state: Stream | None = None
    """Steps and 1-D float arrays."""


class TraceWriter:
    """Create a trace and append episodes to it.

    Leaving the `with` block closes and renames the file; leaving it through an exception keeps it
    as `.partial`.  A record is checked whole before the first byte of it is written.

    Args:
        path: the final name; its folder is created.
        header: root attributes.
        sites: places whose activations every record brings.
        keep_chain: whether decisions/ has the column `chain`.
        object_names: names that objects/ refers to by index; none: no such table.
        cameras: cameras that may bring frames.
        keep_sim_state: whether records may bring simulator states.
    """

    def __init__(
        self,
        path: Path | str,
        header: TraceHeader,
        sites: Sequence[SiteInfo] = (),
        *,
        keep_chain: bool = True,
        object_names: Sequence[str] = (),
        cameras: Sequence[str] = (),
        keep_sim_state: bool = False,
    ) -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + PARTIAL)
        self._unready = self.path.with_name(self.path.name + ".new")
        self.header = header
        self.sites = {site.name: site for site in sites}
        if len(self.sites) != len(sites):
            raise BadRecord("sites", "different names", [site.name for site in sites])
        self._decision_fields = tuple(f for f in DECISIONS if keep_chain or f.name != "chain")
        self._object_names = tuple(object_names)
        self._worker = ThreadPoolExecutor(max_workers=1)
        self._whole = True
        self._file = self._created_file()
        try:
            self._file.attrs.update(header.to_attributes())
            tables = TABLES | {"decisions": self._decision_fields}
            tables |= {"objects": OBJECTS} if object_names else {}
            tables |= {f"frames/{camera}": FRAMES for camera in cameras}
            tables |= {"sim_state": SIM_STATE} if keep_sim_state else {}
            self._columns = create_tables(self._file, tables, header.sizes)
            if object_names:
                self._file["objects"].attrs["names"] = json.dumps(self._object_names)
            activations = self._file.create_group("activations")
            self._sites = [SiteWriter(create_site(activations, site), site) for site in sites]
            self._file.flush()
            self._file.swmr_mode = True
            self._unready.rename(self.partial)
        except BaseException:
            self._file.close()
            self._unready.unlink()
            raise

    def _created_file(self) -> h5py.File:
        for taken in (self.path, self.partial, self._unready):
            if taken.exists():
                raise FileExists(taken)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._check_space(0)
            return h5py.File(
                self._unready, "x", libver=LIBVER, locking="best-effort", rdcc_nbytes=CACHE_BYTES
            )
        except OSError as error:
            if self._unready.exists():  # another writer was faster
                raise FileExists(self._unready) from error
            why = os.strerror(error.errno).lower() if error.errno else str(error)
            raise UnwritableFolder(self.path.parent, why) from error

    def write_policy(
        self, policy_version: int, update: int, sha256: str = "", path: str = ""
    ) -> None:
        """Append one row to policies/."""
        row = {"policy_version": policy_version, "update": update, "sha256": sha256, "path": path}
        self.append("policies", {name: [value] for name, value in row.items()})

    def append(self, table: str, columns: Mapping[str, Sequence]) -> None:
        """Append rows to policies/, groups/, advantages/ or updates/."""
        if table not in SIDE_TABLES:
            raise BadRecord("table", f"one of {', '.join(SIDE_TABLES)}", repr(table))
        n_rows = len(next(iter(columns.values()), ()))
        checked = as_table(table, TABLES[table], columns, n_rows, self.header.sizes)
        rows = _placed(table, checked)
        with self._writing(_nbytes(rows)):
            self._append(rows)

    def write_episode(self, record: EpisodeRecord) -> None:
        """Check a record, append all of it, then its uid."""
        n_steps = len(record.steps.get("t", ()))
        n_decisions = len(record.decisions.get("t", ()))
        first_step, first_decision, number = (
            self._rows(name) for name in ("steps/t", "decisions/t", "episodes/uid")
        )
        sizes = self.header.sizes

        _refuse_derived("steps", STEPS, record.steps)
        local = np.asarray(record.steps.get("decision", ()), dtype=np.int64)
        _check_indices("steps/decision", local, n_decisions)
        steps = record.steps | {
            "episode": np.full(n_steps, number),
            "decision": local + first_decision,
        }
        _refuse_derived("decisions", DECISIONS, record.decisions)
        kept = {f.name for f in self._decision_fields}
        decisions = {n: v for n, v in record.decisions.items() if n in kept or n != "chain"}
        decisions["episode"] = np.full(n_decisions, number)
        _refuse_derived("episodes", EPISODES, record.episode)
        episode = {name: [value] for name, value in record.episode.items()} | {
            "first_step": [first_step],
            "n_steps": [n_steps],
            "first_decision": [first_decision],
            "n_decisions": [n_decisions],
        }

        body = _placed("steps", as_table("steps", STEPS, steps, n_steps, sizes)) | _placed(
            "decisions",
            as_table("decisions", self._decision_fields, decisions, n_decisions, sizes),
        )
        arriving = [self._activation(s, record, first_decision, n_decisions) for s in self._sites]
        if unknown := record.activations.keys() - self.sites.keys():
            raise BadRecord("activations", f"the sites {sorted(self.sites)}", sorted(unknown))
        if record.objects is not None:
            body |= self._objects(record.objects, first_step, n_steps)
        for camera, stream in (record.frames or {}).items():
            items = [np.frombuffer(png, np.uint8) for png in stream[1]]
            place = f"frames/{camera}"
            body |= self._stream(place, FRAMES, stream[0], items, first_step, n_steps)
        if record.sim_state is not None:
            items = [np.asarray(state, np.float64) for state in record.sim_state[1]]
            steps_of = record.sim_state[0]
            body |= self._stream("sim_state", SIM_STATE, steps_of, items, first_step, n_steps)
        row = _placed("episodes", as_table("episodes", EPISODES, episode, 1, sizes))
        uid = {"episodes/uid": row.pop("episodes/uid")}
        if not uid["episodes/uid"][0]:
            raise BadRecord("episodes/uid", "a name", "an empty text")
        with self._writing(_nbytes(body) + sum(rows.nbytes for rows in arriving)):
            append_activations(arriving, self._worker)
            self._append(body | row)
            self._append(uid)

    def _activation(
        self, writer: SiteWriter, record: EpisodeRecord, first_decision: int, n_decisions: int
    ) -> Arriving:
        name = writer.site.name
        local = np.asarray(
            record.activation_decisions.get(name, np.arange(n_decisions)), dtype=np.int64
        )
        _check_indices(f"activations/{name}/decision", local, n_decisions, ascending=True)
        return writer.checked(record.activations.get(name), local, first_decision)

    def _objects(
        self, given: Mapping[str, Sequence], first_step: int, n_steps: int
    ) -> dict[str, np.ndarray]:
        self._declared("objects", "object_names")
        step = np.asarray(given.get("step", ()), dtype=np.int64)
        _check_indices("objects/step", step, n_steps)
        if np.any(np.diff(step) < 0):
            raise BadRecord("objects/step", "ascending steps", step)
        _check_indices("objects/object", np.asarray(given["object"]), len(self._object_names))
        columns = dict(given) | {"step": step + first_step}
        return _placed(
            "objects", as_table("objects", OBJECTS, columns, len(step), self.header.sizes)
        )

    def _stream(
        self,
        place: str,
        fields: Sequence[Field],
        steps: Sequence[int],
        items: Sequence[np.ndarray],
        first_step: int,
        n_steps: int,
    ) -> dict[str, np.ndarray]:
        """Return the columns which append items of any length to one stream."""
        self._declared(place, "cameras" if place.startswith("frames") else "keep_sim_state")
        step = np.asarray(steps, dtype=np.int64)
        _check_indices(f"{place}/step", step, n_steps, ascending=True)
        if len(step) != len(items) or any(item.ndim != 1 for item in items):
            raise BadRecord(place, "one flat item per step", f"{len(items)} for {len(step)} steps")
        length = np.array([len(item) for item in items], dtype=np.int64)
        offset = self._rows(f"{place}/data") + np.cumsum(length) - length
        data = np.concatenate(items) if items else np.zeros(0, fields[-1].dtype)
        columns = {"step": step + first_step, "offset": offset, "length": length, "data": data}
        return _placed(place, columns)

    def _declared(self, place: str, argument: str) -> None:
        if place not in self._file:
            raise BadRecord(place, f"what `{argument}` of the writer announced", "a new table")

    def _rows(self, name: str) -> int:
        return len(self._columns[name])

    @contextmanager
    def _writing(self, n_bytes: int | None = None) -> Iterator[None]:
        """Refuse what cannot succeed; whatever fails nevertheless leaves the file for good."""
        if not self._whole:
            raise BadRecord(str(self.partial), "a file whose last write succeeded", "a failed one")
        if n_bytes is not None:
            self._check_space(n_bytes)
        self._whole = False
        try:
            yield
        except BaseException as error:
            self._abandon()
            if isinstance(error, (OSError, RuntimeError)):
                raise WriteFailed(self.partial, str(error)) from error
            raise
        self._whole = True

    def _abandon(self) -> None:
        """Leave the file open for good: HDF5 crashes when it closes one whose last write failed.

        Nobody gives these references back, so nothing is closed when the interpreter ends either.
        """
        self._worker.shutdown()
        datasets = [*self._columns.values(), *(c for s in self._sites for c in s.columns.values())]
        for item in (self._file, *datasets):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(item.id))

    def _append(self, columns: Mapping[str, np.ndarray]) -> None:
        """Append rows to some columns and hand everything so far to the system."""
        for name, rows in columns.items():
            appended(self._columns[name], rows)
        self._file.flush()

    def _check_space(self, n_bytes: int) -> None:
        """Refuse while the file is still sound: after a failed write HDF5 cannot be trusted."""
        needed, free = n_bytes + SPARE_BYTES, shutil.disk_usage(self.path.parent).free
        if free < needed:
            raise DiskFull(self.partial, needed, free)

    def close(self) -> Path:
        """Close, force to disk and give the file its final name; return its path.

        After a failed write the file keeps its `.partial` name, under which it stays readable.
        """
        if not self._whole:
            return self.partial
        if not self._file:
            return self.path
        self._worker.shutdown()
        with self._writing():
            for site in self._sites:
                site.write_statistics()
            self._file.close()
        _sync(self.partial)
        if self.path.exists():
            raise FileExists(self.path)
        self.partial.rename(self.path)
        _sync(self.path.parent)
        return self.path

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is None or not self._whole:
            self.close()
        else:
            self._worker.shutdown()
            self._file.close()


def _placed(place: str, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{place}/{name}": rows for name, rows in columns.items()}


def _nbytes(columns: Mapping[str, np.ndarray]) -> int:
    return sum(rows.nbytes for rows in columns.values())


def _refuse_derived(place: str, fields: Sequence[Field], given: Mapping[str, object]) -> None:
    for column in fields:
        if column.derived and column.name in given:
            raise BadRecord(f"{place}/{column.name}", "nothing: the writer fills it in", "values")


def _check_indices(place: str, indices: np.ndarray, size: int, ascending: bool = False) -> None:
    """Check that indices lie in [0, size), and optionally that they strictly ascend."""
    if indices.size and (indices.min() < 0 or indices.max() >= size):
        raise BadRecord(place, f"indices from 0 to {size - 1}", f"{indices.min()}..{indices.max()}")
    if ascending and np.any(np.diff(indices) <= 0):
        raise BadRecord(place, "strictly ascending indices", indices)


def _sync(path: Path) -> None:
    """Force a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

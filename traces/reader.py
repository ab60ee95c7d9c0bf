"""Read one trace: columns by name, rows by episode, and no more than what is asked for.

A closed file is read as it is.  In a `.partial`, left by a crash or still growing, only complete
episodes count: whatever lies beyond the last of them is not shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import h5py
import numpy as np

from traces.columns import merged, moments, no_moments
from traces.errors import NotATrace, UnknownName, UserError
from traces.header import SiteInfo, TraceHeader
from traces.root import read_header
from traces.safety import DAMAGE, SafeGroup, opened, walk
from traces.schema import OBJECTS, TABLES

Columns = dict[str, np.ndarray]

BLOCK_ROWS = 1024
"""Rows of activations that are in memory while statistics are computed."""


class TraceReader:
    """An open trace, read without locks, so that no reader ever stops a writer.

    Text columns come back as numpy `str` arrays, all others as they are stored.  Asked for no
    column by name, a method returns all columns of the format; one that somebody added to the
    file is read when it is named.  `episode` is a row of episodes/, a slice of consecutive ones, or
    None for all.
    """

    def __init__(self, path: Path | str, known: dict[str, TraceHeader] | None = None) -> None:
        """Open a trace.

        Args:
            path: the file.
            known: recordings to their headers, added to: shards share theirs, read once.
        """
        self.path = Path(path)
        self.partial = self.path.suffix == ".partial"
        self._open: SafeGroup | None = None
        try:
            self.header = read_header(self.path, self._file, known)
            self.n_episodes, self.n_steps, self.n_decisions = self._complete()
        except DAMAGE as error:
            self.close()
            raise NotATrace(self.path, f"it is damaged ({error})") from error
        except BaseException:
            self.close()
            raise

    @property
    def _file(self) -> SafeGroup:
        """The open file; after `close`, opened once more."""
        if self._open is None:
            self._open = opened(self.path, swmr=self.partial)
        return self._open

    def _complete(self) -> tuple[int, int, int]:
        """Return how many episodes are complete, and the steps and decisions that they have."""
        tables = ("episodes", "steps", "decisions")
        if self.partial:
            lengths = {name: self._length(name) for name in tables}
        else:  # one column stands for all: those which are read are looked at again then
            columns = zip(tables, ("n_steps", "t", "t"), strict=True)
            lengths = {table: len(self._file[f"{table}/{name}"]) for table, name in columns}
        spans = [
            self._file[f"episodes/{name}"][: lengths["episodes"]]
            for name in ("first_step", "n_steps", "first_decision", "n_decisions")
        ]
        step_stop, decision_stop = spans[0] + spans[1], spans[2] + spans[3]  # (E,), (E,)
        whole = (step_stop <= lengths["steps"]) & (decision_stop <= lengths["decisions"])
        whole &= (np.minimum.reduce(spans) >= 0) & (step_stop >= 0) & (decision_stop >= 0)
        if self.partial:
            whole &= self._file["episodes/uid"][: lengths["episodes"]] != b""
            n_episodes = int(np.argmin(whole)) if not whole.all() else len(whole)
        elif whole.all():
            n_episodes = len(whole)
        else:
            raise NotATrace(self.path, "its episodes point beyond its steps or decisions")
        if n_episodes == 0:
            return 0, 0, 0
        return n_episodes, int(step_stop[n_episodes - 1]), int(decision_stop[n_episodes - 1])

    def _length(self, table: str) -> int:
        """Return the rows that all columns of a table have (a crash may leave them uneven)."""
        group = self._file[table]
        if not (columns := _columns(table, group)):
            raise NotATrace(self.path, f"its table '{table}' has no columns")
        return min(len(group[name]) for name in columns)

    def episodes(self, *columns: str) -> Columns:
        """Return columns of episodes/, one row per episode."""
        return self._read("episodes", columns, 0, self.n_episodes)

    def steps(self, *columns: str, episode: int | slice | None = None) -> Columns:
        """Return columns of steps/, of all episodes or of some."""
        return self._read("steps", columns, *self.step_span(episode))

    def decisions(self, *columns: str, episode: int | slice | None = None) -> Columns:
        """Return columns of decisions/, of all episodes or of some."""
        return self._read("decisions", columns, *self.decision_span(episode))

    def table(self, name: str, *columns: str) -> Columns:
        """Return columns of policies/, groups/, advantages/ or updates/."""
        if name not in TABLES or name not in self._file:
            raise UnknownName("table", name, TABLES)
        return self._read(name, columns, 0, self._length(name))

    def policies(self) -> Columns:
        """Return policies/: the weights that acted."""
        return self.table("policies")

    def step_span(self, episode: int | slice | None) -> tuple[int, int]:
        """Return the rows [start, stop) of steps/ of all episodes or of some."""
        return self._span("step", episode, self.n_steps)

    def decision_span(self, episode: int | slice | None) -> tuple[int, int]:
        """Return the rows [start, stop) of decisions/ of all episodes or of some."""
        return self._span("decision", episode, self.n_decisions)

    def _span(self, what: str, episode: int | slice | None, total: int) -> tuple[int, int]:
        if episode is None:
            return 0, total
        if isinstance(episode, slice):
            first, stop, _ = episode.indices(self.n_episodes)
            if first >= stop:
                return 0, 0
            return self._span(what, first, total)[0], self._span(what, stop - 1, total)[1]
        if not 0 <= episode < self.n_episodes:
            raise IndexError(f"episode {episode} of {self.n_episodes} in {self.path}")
        start = int(self._file[f"episodes/first_{what}"][episode])
        return start, start + int(self._file[f"episodes/n_{what}s"][episode])

    def sites(self) -> list[SiteInfo]:
        """Return the sites whose activations were recorded, in the order of their towers."""
        infos = [
            _site_info(self.path, name, group)
            for name, group in self._file.get("activations", {}).items()
        ]
        return sorted(infos, key=lambda site: (site.tower, site.layer, site.name))

    def activation(
        self,
        site: str,
        rows: slice | np.ndarray = slice(None),
        *,
        episode: int | slice | None = None,
    ) -> np.ndarray:
        """Return activations of a site, (rows, *shape of the site).

        Args:
            site: name of the site.
            rows: which rows; an array of indices must ascend.
            episode: count `rows` within these episodes rather than in the whole trace.
        """
        start, stop = self._activation_span(site, episode)
        values = self._site(site)["values"]
        if isinstance(rows, slice):
            first, last, stride = rows.indices(stop - start)
            if stride < 1:
                raise IndexError(f"slices of activations go forward, not by {stride}")
            return values[start + first : start + max(first, last) : stride]
        rows = np.arange(stop - start)[rows]
        return values[start + rows] if rows.size else values[:0]

    def activation_decisions(self, site: str, *, episode: int | slice | None = None) -> np.ndarray:
        """Return the row of decisions/ that each row of a site belongs to."""
        start, stop = self._activation_span(site, episode)
        return self._site(site)["decision"][start:stop]

    def activation_stats(self, site: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (n, mean, std) of every unit, each (N,); std is that of the sample itself.

        A `.partial` has no statistics yet, so there they are computed from the values.
        """
        group = self._site(site)
        if self.partial:
            n, mean, m2 = reduce(
                merged, map(moments, self._blocks(site)), no_moments(len(group["n"]))
            )
        else:
            n, mean, m2 = group["n"][:], group["mean"][:], group["m2"][:]
        known = n > 0
        divisor = np.maximum(n, 1)
        return n, np.where(known, mean, np.nan), np.where(known, np.sqrt(m2 / divisor), np.nan)

    def activation_overflow(self, site: str) -> int:
        """Return how many finite values of a site were too large for its type.

        A `.partial` does not say so yet; there, infinite values are counted.
        """
        if self.partial:
            return sum(int(np.isinf(block).sum()) for block in self._blocks(site))
        return int(self._site(site)["overflow"][0])

    def _blocks(self, site: str) -> Iterator[np.ndarray]:
        """Yield the activations of a site, some rows at a time."""
        for start in range(0, len(self.activation_decisions(site)), BLOCK_ROWS):
            yield self.activation(site, slice(start, start + BLOCK_ROWS))

    def _site(self, site: str) -> SafeGroup:
        sites = self._file.get("activations", {})
        if site not in sites:
            raise UnknownName("activation site", site, sites)
        return sites[site]

    def _activation_span(self, site: str, episode: int | slice | None) -> tuple[int, int]:
        group = self._site(site)
        length = min(len(group["values"]), len(group["decision"]))
        span = self.decision_span(episode)
        if length == self.n_decisions:  # one row for every decision
            return span
        start, stop = np.searchsorted(group["decision"][:length], span)
        return int(start), int(stop)

    @property
    def object_names(self) -> tuple[str, ...]:
        """Names that the column `object` of objects/ counts through."""
        return tuple(json.loads(self._file["objects"].attrs["names"])) if self.has_objects else ()

    @property
    def has_objects(self) -> bool:
        """Whether object poses were recorded."""
        return "objects" in self._file

    def objects(self, *, episode: int | slice | None = None) -> Columns:
        """Return objects/ with an additional text column `name`; empty without such a table.

        Raises:
            NotATrace: it counts objects that have no name.
        """
        if not self.has_objects:
            return {}
        columns = self._read("objects", (), *self._keyed_by_step("objects", episode))
        names, counted = np.array(self.object_names, dtype=str), columns["object"]
        if len(unnamed := counted[(counted < 0) | (counted >= len(names))]):
            why = f"objects/object counts object {unnamed[0]} of {len(names)}"
            raise NotATrace(self.path, why)
        return columns | {"name": names[counted]}

    def cameras(self) -> list[str]:
        """Return the cameras whose frames may have been recorded."""
        return sorted(self._file.get("frames", {}))

    def frames(
        self, camera: str, *, episode: int | slice | None = None
    ) -> tuple[np.ndarray, list[bytes]]:
        """Return the rows of steps/ at which a camera was recorded, and the PNG file of each."""
        steps, items = self._stream(self._camera(camera), episode)
        return steps, [item.tobytes() for item in items]

    def frame_steps(self, camera: str, *, episode: int | slice | None = None) -> np.ndarray:
        """Return the rows of steps/ at which a camera was recorded."""
        place = self._camera(camera)
        return self._read(place, ("step",), *self._keyed_by_step(place, episode))["step"]

    def frame(self, camera: str, step: int) -> bytes:
        """Return the PNG file of a camera at one of its `frame_steps`, and read no other.

        Raises:
            KeyError: it was not recorded at that step.
        """
        place = self._camera(camera)
        row = int(np.searchsorted(self._file[place]["step"][:], step))
        found = self._read(place, ("step", "offset", "length"), row, row + 1)
        if found["step"][0] != step:
            raise KeyError(f"{camera} has no picture of step {step}")
        first, length = int(found["offset"][0]), int(found["length"][0])
        return self._file[place]["data"][first : first + length].tobytes()

    def _camera(self, camera: str) -> str:
        if camera not in self.cameras():
            raise UnknownName("camera", camera, self.cameras())
        return f"frames/{camera}"

    def sim_states(
        self, *, episode: int | slice | None = None
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the rows of steps/ with a simulator state, and the states."""
        if "sim_state" not in self._file:
            return np.zeros(0, np.int64), []
        return self._stream("sim_state", episode)

    @property
    def has_sim_states(self) -> bool:
        """Whether the simulator's states were recorded."""
        return "sim_state" in self._file

    def sim_path(self, episode: int) -> np.ndarray:
        """Return the states before every step of an episode and the one at its end, (T+1, S).

        Raises:
            UserError: they were not recorded.
            NotATrace: there are some, but not those of every step.
        """
        if not self.has_sim_states:
            raise UserError(
                f"{self.path} kept no simulator states; record with: vla-trace record --keep sim"
            )
        steps, items = self.sim_states(episode=episode)
        start, stop = self.step_span(episode)
        size = len(items[-1]) // 2 if items else 0
        expected = [size] * len(items[1:]) + [2 * size] * len(items[:1])  # the last has two
        if steps.tolist() != list(range(start, stop)) or [len(i) for i in items] != expected:
            raise NotATrace(self.path, f"episode {episode} lacks simulator states of some steps")
        return np.concatenate(items).reshape(-1, size) if items else np.zeros((0, 0))

    def _stream(
        self, place: str, episode: int | slice | None
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        start, stop = self._keyed_by_step(place, episode)
        columns = self._read(place, ("step", "offset", "length"), start, stop)
        if start == stop:
            return columns["step"], []
        first = columns["offset"][0]
        ends = columns["offset"] + columns["length"] - first
        data = self._file[place]["data"][first : first + ends[-1]]
        return columns["step"], np.split(data, ends[:-1])

    def _keyed_by_step(self, place: str, episode: int | slice | None) -> tuple[int, int]:
        """Return the rows [start, stop) of a table whose ascending `step` lies in an episode."""
        group = self._file[place]
        length = min(len(group[name]) for name in group if name != "data")
        start, stop = np.searchsorted(group["step"][:length], self.step_span(episode))
        return int(start), int(stop)

    def datasets(self) -> list[tuple[str, h5py.Dataset]]:
        """Return every dataset of the file by its path, also those the format does not know."""
        found = sorted(walk(self._file), key=lambda entry: entry[0])
        return [(name, dataset) for name, dataset in found if not isinstance(dataset, str)]

    def _read(self, table: str, names: tuple[str, ...], start: int, stop: int) -> Columns:
        group = self._file[table]
        for name in names:
            if name not in group:
                raise UnknownName(f"column of {table}", name, group)
        columns = {}
        for name in names or _columns(table, group):
            columns[name] = _decoded(group[name], start, stop)
            if len(columns[name]) != stop - start:
                what = f"{table}/{name} ends before row {stop}"
                raise NotATrace(self.path, f"it is damaged ({what})")
        return columns

    def close(self) -> None:
        """Close the file; what is read afterwards opens it again."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def __enter__(self) -> TraceReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _columns(table: str, group: SafeGroup) -> list[str]:
    """Return the columns of the format that a table has."""
    fields = TABLES.get(table) or OBJECTS
    return [field.name for field in fields if field.name in group]


def _site_info(path: Path, name: str, group: SafeGroup) -> SiteInfo:
    try:
        site = SiteInfo.from_attributes(group.attrs, str(group["values"].dtype))
        if site.name != name:
            raise ValueError(f"it calls itself {site.name}")
        if group["values"].shape[1:] != site.shape:
            raise ValueError(
                f"its rows have the shape {group['values'].shape[1:]}, not {site.shape}"
            )
        return site
    except (AttributeError, KeyError, TypeError, UserError, ValueError) as error:
        raise NotATrace(path, f"activations/{name} does not say what it is ({error})") from error


def _decoded(column: h5py.Dataset, start: int, stop: int) -> np.ndarray:
    rows = column[start:stop]
    return np.char.decode(rows, "utf-8") if rows.dtype.kind == "S" else rows

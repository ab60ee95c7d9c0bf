"""Parquet: the tables of the trace as they are, for polars, DuckDB, pandas and whatever reads it.

    OUT/episodes/00000.parquet       and steps, decisions, objects, policies, ...
    OUT/activations/<site>/          `decision` (a row of decisions) and `values`, float32
    OUT/frames/<camera>/             `step` and `png`
    OUT/sim_state/                   `step` and `state`
    OUT/vla-trace.json               headers of the recordings; unit and meaning of every column

Each folder is one table in parts. Rows count through all parts: `steps.episode` is a row of
`episodes`, `activations.decision` one of `decisions`. Beside the columns of the trace, `episodes`
has `intervention` and `coefficient` (NaN for a baseline), and `superseded`: what a later session
recorded again is marked, not dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from traces.collection import TraceCollection
from traces.export.episodes import provenance, superseded
from traces.export.target import MARK
from traces.schema import OPTIONAL_TABLES, TABLES

ROWS = 65_536
"""Episodes, steps, ... of a part at most, beside whole episodes."""
PART_BYTES = 64 * 2**20
"""Activations of a part at most, or one row."""
SIDE_TABLES = ("policies", "groups", "advantages", "updates")


def export(
    traces: TraceCollection, out: Path, *, frames: bool = True, activations: bool = True
) -> list[str]:
    """Write the folder and return what is to be said about it: nothing.

    Args:
        traces: what to export.
        out: name of the new folder.
        frames: with the pictures that were kept.
        activations: with what was recorded inside the policy.
    """
    out.mkdir()
    columns = traces.episodes() | _conditions(traces) | {"superseded": superseded(traces)}
    _write(out / "episodes", 0, columns)
    for name in SIDE_TABLES:
        _write(out / name, 0, traces.table(name))
    for part, rows in enumerate(_spans(columns["n_steps"])):
        _write(out / "steps", part, traces.steps(episode=rows))
        _write(out / "decisions", part, traces.decisions(episode=rows))
        _write(out / "objects", part, traces.objects(episode=rows))
    _write_streams(traces, out, columns, frames)
    if activations:
        for site in traces.sites():
            _write_activations(traces, out / "activations" / site.name, site.name)
    units = {
        table: {field.name: {"unit": field.unit, "about": field.doc} for field in fields}
        for table, fields in (TABLES | OPTIONAL_TABLES).items()
    }
    (out / MARK).write_text(json.dumps(provenance(traces) | {"columns": units}, indent=1))
    return []


def _conditions(traces: TraceCollection) -> dict[str, list]:
    """Name and dose of the intervention on each episode; none on a baseline."""
    recordings = traces.recordings()
    acting = [recordings[r].header.intervention for r in traces.episodes("uid")["recording"]]
    return {
        "intervention": [i.name if i else "" for i in acting],
        "coefficient": np.array([i.coefficient if i else np.nan for i in acting], np.float64),
    }


def _spans(n_steps: np.ndarray) -> Iterator[slice]:
    """Runs of episodes with about ROWS steps."""
    part = np.cumsum(n_steps) // ROWS
    for number in np.unique(part):
        rows = np.flatnonzero(part == number)
        yield slice(int(rows[0]), int(rows[-1]) + 1)


def _write_streams(traces: TraceCollection, out: Path, episodes: Mapping, frames: bool) -> None:
    """Pictures and simulator states, in parts of whole episodes."""
    first_row = np.searchsorted(episodes["file"], np.arange(len(traces.paths)))
    found: dict[Path, _Parts] = {}

    def parts_of(folder: Path, name: str) -> _Parts:
        return found.setdefault(folder, _Parts(folder, name))

    for row, file in enumerate(episodes["file"]):
        episode = int(row - first_row[file])
        with traces.reading(file) as reader:
            shift = int(episodes["first_step"][row]) - reader.step_span(episode)[0]
            for camera in reader.cameras() if frames else ():
                steps, pictures = reader.frames(camera, episode=episode)
                parts_of(out / "frames" / camera, "png").add(steps + shift, pictures)
            if reader.has_sim_states:
                steps, states = reader.sim_states(episode=episode)
                parts_of(out / "sim_state", "state").add(steps + shift, states)
    for parts in found.values():
        parts.flush()


class _Parts:
    """Items by step, written whenever there are many."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name, self.number = folder, name, 0
        self.steps: list[np.ndarray] = []
        self.items: list[bytes | np.ndarray] = []
        self.bytes = 0

    def add(self, steps: np.ndarray, items: list) -> None:
        """Take the items of an episode."""
        self.steps.append(steps)
        self.items += items
        self.bytes += sum(memoryview(item).nbytes for item in items)
        if self.bytes >= PART_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if self.items:
            columns = {"step": np.concatenate(self.steps), self.name: self.items}
            _write(self.folder, self.number, columns)
            self.number += 1
        self.steps, self.items, self.bytes = [], [], 0


def _write_activations(traces: TraceCollection, folder: Path, site: str) -> None:
    """One site: float32 holds every float16, and more tools read it."""
    values = traces.activation(site)
    row_bytes = 4 * int(np.prod(values.shape[1:]))
    rows = max(1, PART_BYTES // row_bytes)
    for part, start in enumerate(range(0, len(values), rows)):
        some = slice(start, start + rows)
        block = {"decision": values.decisions[some], "values": values[some].astype(np.float32)}
        _write(folder, part, block)


def _write(folder: Path, part: int, columns: Mapping[str, object]) -> None:
    """Write one part of a table; a table without columns or rows is left out."""
    import polars as pl

    frame = pl.DataFrame(columns)
    if not frame.height:
        return
    folder.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(folder / f"{part:05d}.parquet")

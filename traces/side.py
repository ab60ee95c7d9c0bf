"""What belongs to steps and decisions: activations, objects, frames, simulator states."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import numpy as np

from traces.columns import merged, moments
from traces.errors import NotATrace
from traces.safety import DAMAGE, SafeGroup
from traces.scan import Fault, read_blocks
from traces.schema import TABLES
from traces.structure import Column, Finding, Structure

PNG = b"\x89PNG\r\n\x1a\n"
RTOL = 1e-6
"""Of statistics against those of the values: the order of summation differs."""


def side_rows(built: Structure, rows: Mapping[str, int]) -> dict[str, int]:
    """Return the rows of side tables that belong to the first decisions and steps.

    Args:
        built: what a file is made of.
        rows: how many rows of steps/ and decisions/ count.

    Returns:
        Table to rows; frames/<camera>/data and sim_state/data to entries.
    """
    found = {}
    for table in built.tables:
        columns = built.table(table)
        key = "decision" if table.startswith("activations/") else "step"
        if table in TABLES or key not in columns:
            continue
        try:
            pointers = columns[key].dataset[: built.rows(table)]
            count = int(np.count_nonzero(pointers < rows[f"{key}s"]))
            found[table] = count
            if "data" in columns:
                ends = (columns[name].dataset[:count] for name in ("offset", "length"))
                found[f"{table}/data"] = int(max(sum(ends), default=0))
        except DAMAGE:
            continue  # the scan of the columns says what is damaged
    return found


def side_faults(file: SafeGroup, built: Structure, rows: Mapping[str, int]) -> Iterator[Fault]:
    """Find rows that point to no step or decision, or not in order, or to no item.

    Args:
        file: an open trace.
        built: what it is made of.
        rows: how many rows of each table count.
    """
    for table in built.tables:
        columns, count = built.table(table), rows[table]
        if table.startswith("activations/"):
            pointer = columns.get("decision")
            yield from _pointers(pointer, count, rows["decisions"], strictly=True)
        elif table == "objects":
            yield from _pointers(columns.get("step"), count, rows["steps"], strictly=False)
            yield from _object_numbers(file, columns.get("object"), count)
        elif table == "sim_state" or table.startswith("frames/"):
            yield from _pointers(columns.get("step"), count, rows["steps"], strictly=True)
            if {"offset", "length", "data"} <= columns.keys():
                yield from _items(table, columns, count)


def _pointers(column: Column | None, rows: int, size: int, *, strictly: bool) -> Iterator[Fault]:
    """Check that the first rows are indices in [0, size) that ascend."""
    if column is None:
        return
    bad, early = [], []
    before = -1
    for start, index in read_blocks(column.dataset, rows):
        bad.append(start + np.flatnonzero((index < 0) | (index >= size)))
        previous = np.concatenate([[before], index[:-1]])
        early.append(start + np.flatnonzero(index <= previous if strictly else index < previous))
        before = int(index[-1])
    target = column.field.name
    yield from _fault(column.place, f"point to no {target}", bad)
    yield from _fault(column.place, f"point to a {target} before that of the row above", early)


def _object_numbers(file: SafeGroup, column: Column | None, rows: int) -> Iterator[Fault]:
    if column is None:
        return
    try:
        names = json.loads(file["objects"].attrs["names"])
    except (NotATrace, *DAMAGE):
        names = []
    bad = [
        start + np.flatnonzero((block < 0) | (block >= len(names)))
        for start, block in read_blocks(column.dataset, rows)
    ]
    yield from _fault(column.place, f"name none of the {len(names)} objects", bad)


def _items(table: str, columns: Mapping[str, Column], rows: int) -> Iterator[Fault]:
    """Check that the items of a stream lie in it, one after the other, and that frames are PNG."""
    try:
        offset, length = (columns[name].dataset[:rows] for name in ("offset", "length"))
    except DAMAGE:
        return
    data = columns["data"].dataset
    expected = np.concatenate([[0], offset[:-1] + length[:-1]])[:rows]
    lost = (offset < 0) | (length < 0) | (offset > len(data)) | (length > len(data) - offset)
    lost |= offset != expected
    yield from _fault(f"{table}/offset", "point to no item of the stream", [np.flatnonzero(lost)])
    if not table.startswith("frames/"):
        return
    blank = []
    for row in np.flatnonzero(~lost):
        try:
            start = data[offset[row] : offset[row] + min(length[row], len(PNG))]
        except DAMAGE:
            continue
        if start.tobytes() != PNG:
            blank.append(row)
    yield from _fault(f"{table}/offset", "point to what is no PNG picture", [np.array(blank, int)])


def _fault(place: str, what: str, parts: list[np.ndarray]) -> Iterator[Fault]:
    rows = np.concatenate([np.zeros(0, np.int64), *parts])
    if len(rows):
        yield Fault(place, what, rows)


def site_findings(built: Structure, rows: Mapping[str, int], *, partial: bool) -> Iterator[Finding]:
    """Compare the statistics of every site with its values, and say what they tell.

    Args:
        built: what a file is made of.
        rows: how many rows of each site count.
        partial: the statistics may be one episode ahead, so they are not compared.
    """
    for name in built.sites:
        place, columns = f"activations/{name}", built.table(f"activations/{name}")
        if not {"values", "n", "mean", "m2", "overflow"} <= columns.keys():
            continue  # said by the structure
        try:
            found = _Statistics(columns["values"].dataset, rows[place])
            told = [columns[key].dataset[:] for key in ("n", "mean", "m2")]
            overflow = int(columns["overflow"].dataset[0])
        except DAMAGE:
            continue
        yield from found.findings(place, overflow)
        if not partial and not found.damaged:
            yield from found.compared(place, told)


class _Statistics:
    """Statistics of the first rows of a site, computed anew."""

    def __init__(self, values: object, rows: int) -> None:
        self.n_units = values.shape[-1]
        self.moments = moments(np.zeros((0, self.n_units)))
        self.samples = rows * int(np.prod(values.shape[1:-1]))
        self.infinite = self.unknown = 0
        self.first = -1
        seen = 0
        for start, block in read_blocks(values, rows):
            seen += len(block)
            part = moments(block)
            self.moments = merged(self.moments, part)
            if int(part[0].sum()) < block.size:
                self._not_finite(start, block)
        self.damaged = seen < rows

    def _not_finite(self, start: int, block: np.ndarray) -> None:
        self.infinite += int(np.isinf(block).sum())
        self.unknown += int(np.isnan(block).sum())
        if self.first < 0:
            rows = ~np.isfinite(block.reshape(len(block), -1)).all(axis=1)
            self.first = start + int(np.argmax(rows))

    def findings(self, place: str, overflow: int) -> Iterator[Finding]:
        """Say what the values themselves tell."""
        bad = self.unknown + max(0, self.infinite - overflow)
        if bad:
            what = f"{bad} values are not finite, and no overflow explains them; first in row"
            yield Finding("error", f"{place}/values", f"{what} {self.first}")
        if overflow > 0:
            what = f"{overflow} values were too large for its type and are infinite"
            yield Finding("warning", f"{place}/overflow", what)
        n, mean, m2 = self.moments
        if self.samples < 2:
            return
        constant = (n > 0) & (m2 == 0)
        zero = constant & (mean == 0)
        if constant.all():
            what = "every unit is always 0" if zero.all() else "no unit ever changes"
            yield Finding("warning", place, what)
        elif constant.any():
            what = f"{np.count_nonzero(constant)} of {self.n_units} units never change"
            yield Finding("warning", place, f"{what}, {np.count_nonzero(zero)} of them are 0")

    def compared(self, place: str, told: list[np.ndarray]) -> Iterator[Finding]:
        """Say where the stored statistics differ from those of the values."""
        n, mean, m2 = self.moments
        spread = np.sqrt(m2 / np.maximum(n, 1))
        scale = {"n": 0 * mean, "mean": np.abs(mean) + spread, "m2": m2 + mean**2 * n * RTOL}
        for key, ours, theirs in zip(("n", "mean", "m2"), (n, mean, m2), told, strict=True):
            wrong = ~(np.abs(theirs - ours) <= RTOL * scale[key])
            if wrong.any():
                unit = int(np.argmax(wrong))
                what = f"differs from the values in {np.count_nonzero(wrong)} of {len(n)} units"
                what += f"; unit {unit} has {theirs[unit]:g}, its values {ours[unit]:g}"
                yield Finding("error", f"{place}/{key}", what)

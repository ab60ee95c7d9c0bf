"""What belongs to steps and decisions: activations, objects, frames, simulator states."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import h5py
import numpy as np

from traces.columns import merged, moments
from traces.safety import FAILURES, SafeGroup
from traces.scan import Fault, Test, read_blocks, scan
from traces.schema import TABLES
from traces.structure import Column, Finding, Structure

EARLY = "point to what lies before that of the row above"
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
        except FAILURES:
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
    yield from _fault(column.place, EARLY, early)


def _object_numbers(file: SafeGroup, column: Column | None, rows: int) -> Iterator[Fault]:
    if column is None:
        return
    try:
        names = json.loads(file["objects"].attrs["names"])
    except FAILURES:
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
    except FAILURES:
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
        except FAILURES:
            continue
        if start.tobytes() != PNG:
            blank.append(row)
    yield from _fault(f"{table}/offset", "point to what is no PNG picture", [np.array(blank, int)])


def _fault(place: str, what: str, parts: list[np.ndarray]) -> Iterator[Fault]:
    rows = np.concatenate([np.zeros(0, np.int64), *parts])
    if len(rows):
        yield Fault(place, what, rows)


def examine_sites(
    built: Structure, rows: Mapping[str, int], *, partial: bool
) -> tuple[list[Fault], list[Finding]]:
    """Read the values of every site: what is wrong with their rows, and what else they tell.

    Args:
        built: what a file is made of.
        rows: how many rows of each site count.
        partial: the statistics may be one episode ahead, so they are not compared.
    """
    faults: list[Fault] = []
    findings: list[Finding] = []
    for name in built.sites:
        place, columns = f"activations/{name}", built.table(f"activations/{name}")
        if "values" not in columns:
            continue  # said by the structure
        try:
            overflow = int(columns["overflow"].dataset[0])
        except FAILURES:
            overflow = 0
        found = _Site(place, columns["values"].dataset, rows[place], overflow)
        faults += found.faults
        findings += found.findings(overflow)
        if not partial and not found.faults:
            findings += found.compared(columns)
    return faults, findings


class _Site:
    """The values of a site, read once: their bad rows and their statistics."""

    def __init__(self, place: str, values: h5py.Dataset, rows: int, overflow: int) -> None:
        self.place, self.n_units = place, values.shape[-1]
        self.samples = rows * int(np.prod(values.shape[1:-1]))
        self.infinite = 0
        self.moments = moments(np.zeros((0, self.n_units)))
        tests = (Test("are NaN", self._unknown),)
        if overflow <= 0:
            tests = (Test("are not finite, though none was too large", self._not_finite),)
        self.faults = scan(f"{place}/values", values, rows, tests)

    def _unknown(self, block: np.ndarray) -> np.ndarray:
        """Mark rows with a NaN that is not padding; a test that sums up on the way."""
        part = moments(block)
        self.moments = merged(self.moments, part)
        if int(part[0].sum()) == block.size:
            return np.zeros(len(block), bool)
        self.infinite += int(np.isinf(block).sum())
        unknown = np.isnan(block.reshape(len(block), -1, self.n_units))
        bad = unknown.any(axis=-1)  # (rows, samples)
        if block.ndim > 2:
            bad &= ~unknown.all(axis=-1)  # a token that is padding has no values at all
        return bad.any(axis=1)

    def _not_finite(self, block: np.ndarray) -> np.ndarray:
        before = self.infinite
        marked = self._unknown(block)
        if self.infinite > before:
            marked |= np.isinf(block.reshape(len(block), -1)).any(axis=1)
        return marked

    def findings(self, overflow: int) -> Iterator[Finding]:
        """Say what the values tell."""
        if overflow > 0:
            what = f"{overflow} values were too large for its type and became infinite"
            yield Finding("warning", f"{self.place}/overflow", what)
            if self.infinite > overflow:
                what = f"{self.infinite} values are infinite, more than were too large"
                yield Finding("warning", f"{self.place}/values", what)
        n, mean, m2 = self.moments
        constant = (n > 0) & (m2 == 0)
        zero = constant & (mean == 0)
        if self.samples < 2 or not constant.any():
            return
        what = f"{np.count_nonzero(constant)} of {self.n_units} units never change"
        what += f", {np.count_nonzero(zero)} of them are 0" if zero.any() else ""
        if constant.all():
            what = "every unit is always 0" if zero.all() else "no unit ever changes"
        yield Finding("warning", self.place, what)

    def compared(self, columns: Mapping[str, Column]) -> Iterator[Finding]:
        """Say where the stored statistics differ from those of the values."""
        n, mean, m2 = self.moments
        spread = np.sqrt(m2 / np.maximum(n, 1))
        allowed = {"n": 0 * mean, "mean": RTOL * (np.abs(mean) + spread), "m2": RTOL * m2}
        allowed["m2"] = allowed["m2"] + RTOL**2 * mean**2 * n
        for key, ours in (("n", n), ("mean", mean), ("m2", m2)):
            try:
                theirs = columns[key].dataset[:]
            except FAILURES:
                continue  # said by the structure or the scan of the columns
            wrong = ~(np.abs(theirs - ours) <= allowed[key])
            if wrong.any():
                unit = int(np.argmax(wrong))
                what = f"differs from the values in {np.count_nonzero(wrong)} of {len(n)} units"
                what += f"; unit {unit} has {theirs[unit]:g}, its values {ours[unit]:g}"
                yield Finding("error", f"{self.place}/{key}", what)

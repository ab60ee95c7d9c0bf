"""Compare the tables, columns and attributes of a file with the schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import h5py
import numpy as np
from h5py import h5z

from traces.errors import NotATrace
from traces.header import SiteInfo, TraceHeader
from traces.safety import FAILURES, SafeGroup, walk
from traces.schema import ACTIVATIONS, FRAMES, OBJECTS, SIM_STATE, TABLES, Field

LEVELS = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that a check has to say."""

    level: str
    """error: the file contradicts the format; warning: look at it; note: good to know."""
    place: str
    """Dataset, group, attribute, or "file"."""
    what: str

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level {self.level!r}, expected one of {LEVELS}")


@dataclass(frozen=True)
class Column:
    """A dataset that the schema knows, and that can be read as what it should be."""

    place: str
    field: Field
    dataset: h5py.Dataset


@dataclass(frozen=True)
class Structure:
    """What a file is made of."""

    columns: dict[str, Column]
    """Path to column, of those that agree with the schema in kind and axes."""
    sites: dict[str, SiteInfo]
    findings: list[Finding]

    @property
    def tables(self) -> list[str]:
        """Every table with a column that can be read."""
        return sorted({place.rpartition("/")[0] for place in self.columns})

    def table(self, name: str) -> dict[str, Column]:
        """Return the columns of one table by their own names."""
        prefix = f"{name}/"
        return {p[len(prefix) :]: c for p, c in self.columns.items() if p.startswith(prefix)}

    def rows(self, table: str) -> int:
        """Return the rows that all growing columns of a table have."""
        columns = self.table(table).values()
        return min((len(c.dataset) for c in columns if c.field.dims[0] not in "BN1"), default=0)


def structure(file: SafeGroup, header: TraceHeader, *, partial: bool) -> Structure:
    """Look at everything in a file but its values.

    Args:
        file: an open file.
        header: its root attributes.
        partial: columns of one table may differ in length.
    """
    findings: list[Finding] = []
    sites = dict(_sites(file, findings))
    columns: dict[str, Column] = {}
    known: set[str] = set()
    for table, fields in _tables(file, sites).items():
        known |= {f"{table}/{field.name}" for field in fields}
        if table not in file and table in TABLES:
            findings.append(Finding("error", table, "the table is missing"))
            continue
        for field in fields:
            site = sites.get(table.removeprefix("activations/"))
            column = _column(file, table, field, header, site, findings)
            if column:
                columns[column.place] = column
        if not partial:
            findings += _uneven(table, columns)
    findings += _unknown(file, known)
    findings += _unprotected(columns)
    return Structure(columns, sites, findings)


def _tables(file: SafeGroup, sites: Mapping[str, SiteInfo]) -> dict[str, Sequence[Field]]:
    """Return the fields of every table that the file has or must have."""
    tables: dict[str, Sequence[Field]] = dict(TABLES)
    tables |= {f"activations/{name}": ACTIVATIONS for name in sites}
    tables |= {"objects": OBJECTS} if "objects" in file else {}
    tables |= {f"frames/{camera}": FRAMES for camera in _entries(file, "frames")}
    tables |= {"sim_state": SIM_STATE} if "sim_state" in file else {}
    return tables


def _entries(file: SafeGroup, place: str) -> list[str]:
    try:
        return list(file[place]) if place in file else []
    except FAILURES:
        return []


def _sites(file: SafeGroup, findings: list[Finding]) -> Iterator[tuple[str, SiteInfo]]:
    for name in _entries(file, "activations"):
        place = f"activations/{name}"
        try:
            group = file[place]
            site = SiteInfo.from_attributes(group.attrs, str(group["values"].dtype))
            if site.name != name:
                findings.append(Finding("error", place, f"calls itself {site.name}"))
            yield name, site
        except NotATrace as error:
            findings.append(Finding("error", place, error.why))
        except (AttributeError, KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
            findings.append(Finding("error", place, f"does not say what it is ({error})"))


def _column(
    file: SafeGroup,
    table: str,
    field: Field,
    header: TraceHeader,
    site: SiteInfo | None,
    findings: list[Finding],
) -> Column | None:
    """Return a column if values can be read from it; say how it differs from the schema."""
    place = f"{table}/{field.name}"
    values = site is not None and field.name == "values"
    try:
        if place not in file:
            if not field.optional:
                findings.append(Finding("error", place, "the column is missing"))
            return None
        dataset = file[place]
        dims = site.dims if values else field.dims
        shape = site.shape if values else _row(field, header, site)
        dtype = np.dtype(site.dtype) if values else _dtype(field)
        told = file.attributes_of(dataset)
        found = {name: str(told[name]) for name in ("unit", "dims") if name in told}
    except NotATrace as error:
        why = error.why.removeprefix(f"{place} ")
        findings.append(Finding("error", place, why))
        return None
    except FAILURES as error:
        findings.append(Finding("error", place, f"cannot be opened: {error}"))
        return None
    expected = {"unit": field.unit, "dims": ",".join(dims)}
    for name, value in expected.items():
        if name not in found:
            findings.append(Finding("warning", place, f"has no attribute {name} ('{value}')"))
        elif found[name] != value:
            what = f"the attribute {name} is '{found[name]}', the format says '{value}'"
            findings.append(Finding("error", place, what))
            if name == "unit":
                return None  # nobody knows what its numbers mean
    if dataset.dtype != dtype:
        what = f"is stored as {_type(dataset.dtype)}, the format says {_type(dtype)}"
        findings.append(Finding("error", place, what))
    if dataset.shape[1:] != shape:
        what = f"has rows of shape {dataset.shape[1:]}, the header says {shape}"
        findings.append(Finding("error", place, what))
        return None
    if site and field.dims[0] == "N" and len(dataset) != site.shape[-1]:
        what = f"has {len(dataset)} values, the site has {site.shape[-1]} units"
        findings.append(Finding("error", place, what))
        return None
    return Column(place, field, dataset)


def _row(field: Field, header: TraceHeader, site: SiteInfo | None) -> tuple[int, ...]:
    return field.row_shape(header.sizes | ({"N": site.shape[-1]} if site else {}))


def _dtype(field: Field) -> np.dtype:
    return np.dtype(f"S{field.text_bytes}" if field.text_bytes else field.dtype)


def _type(dtype: np.dtype) -> str:
    return f"text{dtype.itemsize}" if dtype.kind == "S" else str(dtype)


def _uneven(table: str, columns: Mapping[str, Column]) -> Iterator[Finding]:
    """Say when the columns of one table differ in length."""
    lengths = {
        column.field.name: len(column.dataset)
        for column in columns.values()
        if column.place.rpartition("/")[0] == table and column.field.dims[0] not in "BN1"
    }
    if len(set(lengths.values())) > 1:
        rows = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        what = " and ".join(f"{name} has {lengths[name]} rows" for name in rows)
        yield Finding("error", table, f"its columns differ in length: {what}")


def _unknown(file: SafeGroup, known: set[str]) -> Iterator[Finding]:
    """Say what the format does not know."""
    for place, entry in sorted(walk(file), key=lambda found: found[0]):
        if place in known:
            continue
        if isinstance(entry, str):
            yield Finding("warning", place, f"{entry.removeprefix(f'{place} ')}; left alone")
        else:
            yield Finding("note", place, "is not part of the format; left alone")


def _unprotected(columns: Mapping[str, Column]) -> Iterator[Finding]:
    """Say when damage could go unseen."""
    bare = 0
    for column in columns.values():
        creation = column.dataset.id.get_create_plist()
        filters = {creation.get_filter(i)[0] for i in range(creation.get_nfilters())}
        bare += h5z.FILTER_FLETCHER32 not in filters
    if bare:
        what = f"{bare} of {len(columns)} columns have no checksums; flipped bits in them go unseen"
        yield Finding("note", "file", what)

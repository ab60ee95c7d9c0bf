"""Create the empty datasets of a trace, each with the attributes that explain it.

Every dataset carries HDF5's Fletcher32 checksums, chunk by chunk: a flipped bit is an error when it
is read, never a wrong number.  (Attributes and indices are checked by the v110 file format itself.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import h5py
import numpy as np
from h5py import h5a, h5s, h5t

from traces.header import SiteInfo
from traces.schema import ACTIVATIONS, Field, missing

CHUNK_BYTES = 256 * 2**10
CHUNK_ROWS = {"E": 64, "T": 1024, "D": 256, "R": 256, "B": CHUNK_BYTES}
"""Rows of a chunk at most; fewer where CHUNK_BYTES is reached first.

A column occupies at least one chunk, so these also set the size of a trace of one episode.
"""

TEXT = h5py.string_dtype()
TEXT_TYPE, SCALAR = h5t.py_create(TEXT, logical=True), h5s.create(h5s.SCALAR)


def create_tables(
    file: h5py.File, tables: Mapping[str, Sequence[Field]], sizes: dict[str, int]
) -> dict[str, h5py.Dataset]:
    """Create and return the columns of every table; `sizes` gives the size of each axis letter."""
    columns = {}
    for place, fields in tables.items():
        for field in fields:
            text = field.text_bytes
            dtype = h5py.string_dtype("utf-8", text) if text else np.dtype(field.dtype)
            name = f"{place}/{field.name}"
            row = field.row_shape(sizes)
            columns[name] = _create_column(file, name, field, field.dims, row, dtype)
    return columns


def create_site(activations: h5py.Group, site: SiteInfo) -> dict[str, h5py.Dataset]:
    """Create activations/<site>/ and return its columns."""
    group = activations.create_group(site.name)
    group.attrs.update(site.to_attributes())
    columns = {}
    for field in ACTIVATIONS:
        name = field.name
        if name == "values":
            dtype = np.dtype(site.dtype)
            columns[name] = _create_column(group, name, field, site.dims, site.shape, dtype)
        elif name == "decision":
            dtype = np.dtype(field.dtype)
            columns[name] = _create_column(group, name, field, field.dims, (), dtype)
        else:
            size = 1 if name == "overflow" else site.shape[-1]
            zeros = np.zeros(size, field.dtype)
            columns[name] = group.create_dataset(name, data=zeros, chunks=(size,), fletcher32=True)
            _describe(columns[name], field, field.dims)
    return columns


def _create_column(
    group: h5py.Group,
    name: str,
    field: Field,
    dims: Sequence[str],
    row: tuple[int, ...],
    dtype: np.dtype,
) -> h5py.Dataset:
    """Create a dataset of no rows which grows along its first axis."""
    row_bytes = max(1, dtype.itemsize * int(np.prod(row)))
    rows = max(1, min(CHUNK_ROWS[dims[0]], CHUNK_BYTES // row_bytes))
    dataset = group.create_dataset(
        name,
        shape=(0, *row),
        maxshape=(None, *(size or None for size in row)),  # no chunk fits an axis fixed at 0
        chunks=(rows, *(max(1, size) for size in row)),
        dtype=dtype,
        fletcher32=True,
    )
    _describe(dataset, field, dims)
    return dataset


def _describe(dataset: h5py.Dataset, field: Field, dims: Sequence[str]) -> None:
    _text(dataset, "unit", field.unit)
    _text(dataset, "dims", ",".join(dims))
    _text(dataset, "doc", field.doc)
    if missing(field):
        _text(dataset, "missing", missing(field))
    if field.wall_clock:
        dataset.attrs["wall_clock"] = True


def _text(dataset: h5py.Dataset, name: str, text: str) -> None:
    """Do what `dataset.attrs[name] = text` does, for thousands of attributes."""
    attribute = h5a.create(dataset.id, name.encode(), TEXT_TYPE, SCALAR)
    attribute.write(np.array(text, TEXT))

"""Create the empty datasets of a trace, each with the attributes that explain it.

Every dataset carries HDF5's Fletcher32 checksums, chunk by chunk: a flipped bit is an error when it
is read, never a wrong number.  (Attributes and indices are checked by the v110 file format itself.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import h5py
import numpy as np

from traces.header import SiteInfo
from traces.schema import ACTIVATIONS, Field, missing

CHUNK_BYTES = 256 * 2**10
CHUNK_ROWS = {"E": 64, "T": 1024, "D": 256, "R": 256, "B": CHUNK_BYTES}
"""Rows of a chunk at most; fewer where CHUNK_BYTES is reached first.

A column occupies at least one chunk, so these also set the size of a trace of one episode.
"""


def create_tables(
    file: h5py.File, tables: Mapping[str, Sequence[Field]], sizes: dict[str, int]
) -> None:
    """Create the datasets of every table; `sizes` gives the size of each axis letter."""
    for place, fields in tables.items():
        for field in fields:
            text = field.text_bytes
            dtype = h5py.string_dtype("utf-8", text) if text else np.dtype(field.dtype)
            name = f"{place}/{field.name}"
            _create_column(file, name, field, field.dims, field.row_shape(sizes), dtype)


def create_sites(file: h5py.File, sites: Sequence[SiteInfo]) -> None:
    """Create activations/<site>/ for every site."""
    file.create_group("activations")
    for site in sites:
        place = f"activations/{site.name}"
        for field in ACTIVATIONS:
            name = f"{place}/{field.name}"
            if field.name == "values":
                _create_column(file, name, field, site.dims, site.shape, np.dtype(site.dtype))
            elif field.name == "decision":
                _create_column(file, name, field, field.dims, (), np.dtype(field.dtype))
            else:
                size = 1 if field.name == "overflow" else site.shape[-1]
                zeros = np.zeros(size, field.dtype)
                dataset = file.create_dataset(name, data=zeros, chunks=(size,), fletcher32=True)
                _describe(dataset, field, field.dims)
        file[place].attrs.update(site.to_attributes())


def _create_column(
    file: h5py.File,
    name: str,
    field: Field,
    dims: Sequence[str],
    row: tuple[int, ...],
    dtype: np.dtype,
) -> None:
    """Create a dataset of no rows which grows along its first axis."""
    row_bytes = max(1, dtype.itemsize * int(np.prod(row)))
    rows = max(1, min(CHUNK_ROWS[dims[0]], CHUNK_BYTES // row_bytes))
    dataset = file.create_dataset(
        name,
        shape=(0, *row),
        maxshape=(None, *(size or None for size in row)),  # no chunk fits an axis fixed at 0
        chunks=(rows, *(max(1, size) for size in row)),
        dtype=dtype,
        fletcher32=True,
    )
    _describe(dataset, field, dims)


def _describe(dataset: h5py.Dataset, field: Field, dims: Sequence[str]) -> None:
    dataset.attrs["unit"] = field.unit
    dataset.attrs["dims"] = ",".join(dims)
    dataset.attrs["doc"] = field.doc
    if missing(field):
        dataset.attrs["missing"] = missing(field)
    if field.wall_clock:
        dataset.attrs["wall_clock"] = True

"""Look into a file nobody vouches for: open nothing outside it, believe no size it claims.

HDF5 has several ways to lead a reader elsewhere: soft and external links, datasets stored in other
files, virtual datasets, filters that are loaded from a folder of plugins.  A trace uses none of
them, so they are refused before anything follows them.  Everything is looked at on the way, when
it is asked for; what nobody asks for is never opened.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, cached_property
from math import prod
from pathlib import Path

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5l, h5o, h5p, h5pl, h5s, h5t, h5z
from h5py._objects import phil

from traces.errors import MissingFile, NotATrace
from traces.heaps import damaged_heap
from traces.memory import ROOM_BYTES, limited_growth
from traces.schema import OPTIONAL_TABLES, TABLES, Field, fields_of
from traces.torn import GrowingDataset

ATTEMPTS = 20
"""Of reading a place whose checksum is wrong, because it is being written: 1 ms altogether."""
ATTRIBUTE_BYTES = 16 * 2**20
CHUNK_BYTES = 64 * 2**20
UNWRITTEN_BYTES = 32 * 2**20
"""What a killed writer may have announced in one dataset and not written."""
TIMES_THE_FILE = 32
"""How much larger than its whole file a compressed dataset may be."""
MANY = 10_000
"""Entries of one group, or chunks announced and not written, far beyond any trace."""
FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, h5z.FILTER_LZF}
"""Filters that come with h5py; any other would be loaded from elsewhere."""
COMPRESSION = {h5z.FILTER_DEFLATE, h5z.FILTER_LZF}
GROUPS = {*TABLES, *(name.partition("/")[0] for name in OPTIONAL_TABLES)}
DAMAGE = (KeyError, OSError, RuntimeError, TypeError, ValueError)
"""What h5py raises where a file is damaged."""
FAILURES = (NotATrace, *DAMAGE)
"""What reading raises where a file is damaged or refused."""


def opened(path: Path, *, swmr: bool) -> SafeGroup:
    """Open a file without locks.

    Args:
        path: an HDF5 file.
        swmr: open it as a growing file, or one whose writer was killed.

    Raises:
        MissingFile: there is none.
        NotATrace: HDF5 cannot open it.
    """
    if not path.exists():
        raise MissingFile(path)
    if not path.is_file() and not path.is_dir():
        raise NotATrace(path, "it is not a file but a pipe or a device")
    flags = h5f.ACC_RDONLY | (h5f.ACC_SWMR_READ if swmr else 0)
    try:
        with _no_plugins():
            file = h5py.File(h5f.open(bytes(path), flags, _access()))
    except (OSError, RuntimeError) as error:
        raise NotATrace(path, _why(path, str(error))) from error
    if why := damaged_heap(path):
        file.close()
        raise NotATrace(path, f"it is damaged ({why})")
    return SafeGroup(path, file, path.stat().st_size, growing=swmr)


@cache
def _access() -> h5p.PropFAID:
    """How a file is opened: no lock, a small cache, and an end to trying damaged places again.

    Where a checksum in a growing file fails, HDF5 reads again up to 100 times and waits twice as
    long before each: damage would take it centuries.  h5py does not offer the setting.
    """
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_file_locking(False, True)
    access.set_cache(0, 521, 2**20, 0.75)
    with phil:
        library = ctypes.PyDLL(h5p.__file__)
        library.H5Pset_metadata_read_attempts(ctypes.c_int64(access.id), ctypes.c_uint(ATTEMPTS))
    return access


@contextmanager
def _no_plugins() -> Iterator[None]:
    """What HDF5 does not recognise it offers to plugins, from folders on the disk: not here."""
    folders = [h5pl.get(i) for i in range(h5pl.size())]
    for _ in folders:
        h5pl.remove(0)
    try:
        yield
    finally:
        for folder in folders:
            h5pl.append(folder)


def _why(path: Path, complaint: str) -> str:
    """Say in a person's words why HDF5 did not open a file."""
    if path.is_dir():
        return "it is a folder"
    if "signature not found" in complaint:
        return "it is not an HDF5 file"
    if "truncated" in complaint:
        return f"the file is cut off; save what is left of it with: vla-trace repair {path}"
    if "already open for write" in complaint:
        return f"it was never closed; rename it to {path.name}.partial to read what is complete"
    return complaint


class SafeGroup(Mapping):
    """A group of a trace, read like an `h5py.Group`; datasets come as `h5py.Dataset`.

    Raises:
        NotATrace: on the way to something that leads out of the file, or claims what cannot be.
        KeyError: there is no such entry.
    """

    def __init__(self, path: Path, group: h5py.Group, n_bytes: int, growing: bool) -> None:
        self.path = path
        self.group = group
        self.attrs = SafeAttributes(path, group, n_bytes)
        self._n_bytes = n_bytes
        self._growing = growing
        self._seen: dict[str, SafeGroup | h5py.Dataset] = {}

    def __getitem__(self, name: str) -> SafeGroup | h5py.Dataset:
        first, _, rest = name.strip("/").partition("/")
        if first not in self._seen:
            self._seen[first] = self._opened(first)
        entry = self._seen[first]
        if not rest:
            return entry
        if not isinstance(entry, SafeGroup):
            raise KeyError(f"{self._place(first)} is not a group")
        return entry[rest]

    def __iter__(self) -> Iterator[str]:
        with self._limited():
            if len(self.group) > MANY:
                raise NotATrace(self.path, f"{self.group.name} has {len(self.group)} entries")
            names = list(self.group)
        yield from names

    def __len__(self) -> int:
        return len(self.group)

    def __bool__(self) -> bool:
        return bool(self.group)

    def __contains__(self, name: object) -> bool:
        first, _, rest = str(name).strip("/").partition("/")
        with self._limited():
            if first not in self._seen and not self.group.id.links.exists(_raw(first)):
                return False
        return not rest or (isinstance(entry := self[first], SafeGroup) and rest in entry)

    def attributes_of(self, dataset: h5py.Dataset) -> SafeAttributes:
        """Return the attributes of a dataset of this file."""
        return SafeAttributes(self.path, dataset, self._n_bytes)

    def close(self) -> None:
        """Close the whole file."""
        self._seen.clear()
        self.group.file.close()

    def _place(self, name: str) -> str:
        return f"{self.group.name}/{name}".lstrip("/")

    def _limited(self) -> AbstractContextManager:
        """Names of a growing file may lie beyond its end: HDF5 takes memory for all they claim."""
        return limited_growth() if self._growing else nullcontext()

    def _opened(self, name: str) -> SafeGroup | h5py.Dataset:
        with self._limited():
            return self._found(name)

    def _found(self, name: str) -> SafeGroup | h5py.Dataset:
        place, raw = self._place(name), _raw(name)
        if not self.group.id.links.exists(raw):
            raise KeyError(f"there is no {place}")
        if self.group.id.links.get_info(raw).type != h5l.TYPE_HARD:
            raise NotATrace(
                self.path, f"{place} is a link to somewhere else, which is not followed"
            )
        found = h5o.open(self.group.id, raw)
        if isinstance(found, h5d.DatasetID):
            creation = found.get_create_plist()
            why = _outside(creation) or _incredible(found, creation, self._n_bytes)
            if not why and (field := _field(place)):
                why = _mismatch(found, field)
            if not why and place in GROUPS:
                why = "is a column, not a table"
            if why:
                raise NotATrace(self.path, f"{place} {why}")
            return (GrowingDataset if self._growing else h5py.Dataset)(found)
        if isinstance(found, h5py.h5g.GroupID):
            if _field(place):
                raise NotATrace(self.path, f"{place} is a table, not a column")
            return SafeGroup(self.path, h5py.Group(found), self._n_bytes, self._growing)
        raise NotATrace(self.path, f"{place} is neither a table nor a column")


class SafeAttributes(Mapping):
    """Attributes of a group or dataset: numbers and texts of a credible size."""

    def __init__(self, path: Path, owner: h5py.Group | h5py.Dataset, n_bytes: int) -> None:
        self._path = path
        self._owner = owner
        self._n_bytes = n_bytes

    def __getitem__(self, name: str) -> object:
        with limited_growth():  # whatever the size of the file: a text may claim any length
            return self._read(name)

    def _limited(self) -> AbstractContextManager:
        return limited_growth() if self._n_bytes > ROOM_BYTES else nullcontext()

    @cached_property
    def _attributes(self) -> h5py.AttributeManager:
        return self._owner.attrs

    def _read(self, name: str) -> object:
        attribute = h5a.open(self._owner.id, _raw(name))
        n_bytes = attribute.get_storage_size()
        kind = attribute.get_type()
        plain = isinstance(kind, (h5t.TypeIntegerID, h5t.TypeFloatID, h5t.TypeStringID))
        if not plain and not isinstance(kind, h5t.TypeEnumID):
            raise NotATrace(self._path, f"{self._place(name)} is neither number nor text")
        if n_bytes > ATTRIBUTE_BYTES:
            raise NotATrace(self._path, f"{self._place(name)} has {n_bytes} bytes")
        found = self._attributes[name]
        if isinstance(found, (str, bytes)) and len(found) > ATTRIBUTE_BYTES:
            raise NotATrace(self._path, f"{self._place(name)} has {len(found)} characters")
        if isinstance(found, str):  # bytes that are no text: nobody could write them anywhere
            found = found.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return found

    def __contains__(self, name: object) -> bool:
        with self._limited():
            return h5a.exists(self._owner.id, _raw(str(name)))

    def __iter__(self) -> Iterator[str]:
        if len(self) > MANY:
            n_attributes = len(self)
            raise NotATrace(self._path, f"{self._owner.name} has {n_attributes} attributes")
        with self._limited():
            names = list(self._attributes)
        yield from names

    def __len__(self) -> int:
        return len(self._attributes)

    def _place(self, name: str) -> str:
        owner = self._owner.name.strip("/")
        return f"the attribute {name}{' of ' if owner else ''}{owner}"


def walk(group: SafeGroup) -> Iterator[tuple[str, h5py.Dataset | str]]:
    """Yield the path and dataset of everything below a group, or the reason it is not opened."""
    visited = {_address(group.group)}
    waiting = [("", group)]
    while waiting:
        prefix, here = waiting.pop()
        try:
            names = list(here)
        except FAILURES as error:
            yield prefix.rstrip("/"), _reason(error)
            continue
        for name in names:
            try:
                entry = here[name]
            except FAILURES as error:
                yield prefix + name, _reason(error)
                continue
            if not isinstance(entry, SafeGroup):
                yield prefix + name, entry
            elif (address := _address(entry.group)) not in visited:
                visited.add(address)
                waiting.append((f"{prefix}{name}/", entry))


def _reason(error: Exception) -> str:
    return error.why if isinstance(error, NotATrace) else f"cannot be opened: {error}"


def _raw(name: str) -> bytes:
    """Return a name as h5py encodes it."""
    return name.encode("utf-8", "surrogateescape")


def _address(group: h5py.Group) -> int:
    return h5o.get_info(group.id).addr


def _outside(creation: h5p.PropDCID) -> str:
    """Say how reading a dataset would open another file; empty when it would not."""
    if creation.get_layout() == h5d.VIRTUAL:
        return "is a virtual dataset, whose values lie in other files"
    if creation.get_external_count():
        return "has its values in another file"
    if unknown := _filters(creation) - FILTERS:
        return f"needs the filters {sorted(unknown)}, which are not loaded"
    return ""


def _incredible(dataset: h5d.DatasetID, creation: h5p.PropDCID, file_bytes: int) -> str:
    """Say why the size that a dataset claims cannot be; empty when it can."""
    if dataset.get_space().get_simple_extent_type() == h5s.NULL:
        return "has no values"
    item, chunks, chunk = dataset.get_type().get_size(), 0, 1
    if creation.get_layout() == h5d.CHUNKED:
        chunk = item * prod(creation.get_chunk())
        if chunk > CHUNK_BYTES:
            return f"has chunks of {chunk} bytes"
        pairs = zip(dataset.shape, creation.get_chunk(), strict=True)
        chunks = prod(-(-size // step) for size, step in pairs)
    claimed = item * prod(dataset.shape)
    if claimed <= UNWRITTEN_BYTES and chunks <= MANY:
        return ""
    stored, packed = dataset.get_storage_size(), bool(_filters(creation) & COMPRESSION)
    most = TIMES_THE_FILE * file_bytes if packed else stored
    if stored > file_bytes or claimed > most + UNWRITTEN_BYTES:
        return f"claims {claimed} bytes, of which {stored} are in a file of {file_bytes}"
    if chunks > MANY + stored // (1 if packed else chunk):
        return f"claims {chunks} chunks, which the file cannot hold"
    return ""


def _filters(creation: h5p.PropDCID) -> set[int]:
    return {creation.get_filter(i)[0] for i in range(creation.get_nfilters())}


def _field(place: str) -> Field | None:
    """Return what the schema says of a dataset, if it knows it."""
    table, _, name = place.rpartition("/")
    return next((field for field in fields_of(table) if field.name == name), None)


def _mismatch(dataset: h5d.DatasetID, field: Field) -> str:
    """Say how a column differs from its field in type or axes; narrower numbers are as good."""
    found, shape = dataset.dtype, dataset.shape
    if field.text_bytes:
        fits, wanted = found.kind == "S", "text"
    else:
        wanted = np.dtype(field.dtype)
        fits = found.kind == "f" if wanted.kind == "f" else np.can_cast(found, wanted)
    if not fits or (found.kind == "b") != (wanted == np.bool_):
        return f"holds {found}, not {wanted}"
    if field.dims[0] == "1" and shape[:1] != (1,):
        return f"has the shape {shape}, not (1)"
    free = "…" in field.dims
    row = [int(dim) if dim.isdigit() else None for dim in field.dims[1:]]
    if (len(shape) < 2) if free else (len(shape) != 1 + len(row)):
        return f"has the shape {shape}, not ({', '.join(field.dims)})"
    if not free and any(n not in (None, size) for n, size in zip(row, shape[1:], strict=True)):
        return f"has the shape {shape}, not ({', '.join(field.dims)})"
    return ""

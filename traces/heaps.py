"""Look at the global heaps of a file before HDF5 does: it walks a damaged one for ever.

HDF5 keeps the texts of attributes in collections of objects, one after the other, without a
checksum.  It steps from object to object by sizes that it believes; one that leads back to where it
is, or to some place before, never lets it go, and no signal reaches Python meanwhile.

Our writer makes all texts before the first value, so the collections lie close together at the
beginning of a file; whoever adds an attribute later adds a collection at its end.  Searched is what
follows the last one found, and the end: not all of a large file, so somebody who means harm can
still hide one between the values.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

SIGNATURE = b"GCOL\1\0\0\0"
"""What a collection begins with, version and padding included; then comes its size (8 bytes)."""
HEADER_BYTES = 16
LEAST_BYTES, MOST_BYTES = 2**12, 2**28
"""Size of a collection: HDF5 makes none smaller, and a text has at most some megabytes."""
OBJECT = struct.Struct("<HHIQ")
"""Before each object: index (0: the free rest), references, padding, bytes."""
MOST_OBJECTS = 2**16
"""In one collection: there are no more indices."""
BLOCK_BYTES = 2**18
FAR_BYTES = 2**18
"""Searched behind the last collection; in our files the next one follows within 20 kB."""


def damaged_heap(path: Path) -> str:
    """Say what is wrong with the global heaps of an HDF5 file; empty when nothing is.

    Takes half a millisecond; a file that has not changed since is not read again.
    """
    known = path.stat()
    return _damaged(path, known.st_ino, known.st_size, known.st_mtime_ns)


@lru_cache(maxsize=4096)
def _damaged(path: Path, inode: int, n_bytes: int, written_ns: int) -> str:
    with path.open("rb") as file:
        for place in _collections(file, n_bytes):
            file.seek(place + 8)
            size = int.from_bytes(file.read(8), "little")
            if not LEAST_BYTES <= size <= MOST_BYTES:
                return f"the texts at byte {place} claim {size} bytes"
            if not _is_tiled(file.read(size - HEADER_BYTES)):
                return f"the texts at byte {place} are damaged"
    return ""


def _collections(file: BinaryIO, n_bytes: int) -> Iterator[int]:
    """Yield where collections begin."""
    start = last = 0
    while start < n_bytes and start - last < FAR_BYTES:
        for last in _within(file, start, BLOCK_BYTES):
            yield last
        start += BLOCK_BYTES
    yield from _within(file, max(start, n_bytes - BLOCK_BYTES), BLOCK_BYTES)


def _within(file: BinaryIO, start: int, n_bytes: int) -> Iterator[int]:
    """Yield the collections that begin in some bytes of a file."""
    file.seek(start)
    block = file.read(n_bytes + len(SIGNATURE) - 1)
    place = block.find(SIGNATURE)
    while place >= 0:
        yield start + place
        place = block.find(SIGNATURE, place + len(SIGNATURE))


def _is_tiled(objects: bytes) -> bool:
    """Whether stepping by sizes, as HDF5 does, ends where the collection ends."""
    place = 0
    for _ in range(MOST_OBJECTS):
        if place + OBJECT.size > len(objects):
            return True
        index, _, _, size = OBJECT.unpack_from(objects, place)
        step = OBJECT.size + (size + 7) // 8 * 8 if index else size
        if not OBJECT.size <= step <= len(objects) - place:
            return False
        place += step
    return False

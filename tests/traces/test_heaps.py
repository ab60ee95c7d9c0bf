import struct

import h5py
import numpy as np
import pytest

from traces.errors import NotATrace
from traces.heaps import FAR_BYTES, damaged_heap
from traces.reader import TraceReader


@pytest.fixture(params=["v110", "earliest"])
def path(build, tmp_path, request):
    """A trace of ours, and a copy of it in the oldest file format."""
    ours = build.trace(tmp_path / "a.h5")
    if request.param == "v110":
        return ours
    with h5py.File(ours) as new, h5py.File(tmp_path / "old.h5", "w", libver="earliest") as old:
        old.attrs.update(new.attrs)
        for name in new:
            new.copy(name, old)
    return tmp_path / "old.h5"


def collections(path):
    raw, found = path.read_bytes(), []
    while (place := raw.find(b"GCOL", found[-1] + 1 if found else 0)) >= 0:
        found.append(place)
    return found


def objects(path, start):
    """Yield the place and index of every object in a collection."""
    raw = path.read_bytes()
    (length,) = struct.unpack_from("<Q", raw, start + 8)
    place = start + 16
    while place + 16 <= start + length:
        index, _, _, size = struct.unpack_from("<HHIQ", raw, place)
        yield place, index
        place += 16 + (size + 7) // 8 * 8 if index else size


def put(path, place, number):
    raw = bytearray(path.read_bytes())
    struct.pack_into("<Q", raw, place, number)
    path.write_bytes(raw)


def test_sound_heaps_are_sound(path):
    assert damaged_heap(path) == ""
    assert len(collections(path)) > 2
    assert len(list(objects(path, collections(path)[0]))) > 20


@pytest.mark.parametrize("size", [2**64 - 16, 2**64 - 1, 2**63, 10**6])
@pytest.mark.parametrize("which", [0, -1])
def test_a_size_that_hdf5_would_follow_for_ever_is_refused(path, size, which):
    """Without the look at the heaps, the first of these sizes never returns."""
    start = collections(path)[which]
    place, _ = list(objects(path, start))[1]
    put(path, place + 8, size)
    assert damaged_heap(path) == f"the texts at byte {start} are damaged"
    with pytest.raises(NotATrace, match=r"it is damaged \(the texts at byte"):
        TraceReader(path)


def test_free_space_of_no_size_is_refused(path):
    found = [entry for start in collections(path) for entry in objects(path, start)]
    free = [place for place, index in found if index == 0]
    put(path, free[0] + 8, 0)
    assert "are damaged" in damaged_heap(path)


def test_a_collection_of_no_credible_size_is_refused(path):
    start = collections(path)[0]
    put(path, start + 8, 2**40)
    assert damaged_heap(path) == f"the texts at byte {start} claim {2**40} bytes"


def test_texts_added_later_are_looked_at_too(path):
    with h5py.File(path, "r+", locking=False) as file:
        file["mine"] = np.zeros(2 * FAR_BYTES, np.uint8)
        for number in range(200):  # more than the last collection has room for
            file.attrs[f"note {number}"] = "x" * 100
    before = collections(path)
    place, _ = next(objects(path, before[-1]))
    assert before[-1] > FAR_BYTES
    assert damaged_heap(path) == ""
    put(path, place + 8, 2**64 - 16)
    assert damaged_heap(path) == f"the texts at byte {before[-1]} are damaged"


def test_values_that_look_like_a_collection_are_values(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = b"GCOL\1" * 1000
    assert damaged_heap(tmp_path / "a.h5") == ""

import gc
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces.errors import DiskFull, UnwritableFolder
from traces.spool import Spill
from traces.writer import TraceWriter


@given(
    appended=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 7)), max_size=12),
    limit=st.integers(0, 400),
    start=st.integers(-20, 20),
    stop=st.integers(-20, 20),
)
def test_spools_hold_what_was_appended(appended, limit, start, stop):
    spill = Spill(limit)
    shapes = ((3,), (2, 2), (0,))
    spools = [spill.spool(shape, "float32") for shape in shapes]
    rows = [[] for _ in shapes]
    number = 0.0
    for which, count in appended:
        for _ in range(count):
            rows[which].append(np.full(shapes[which], number := number + 1, np.float32))
            spools[which].append(rows[which][-1])
    for spool, shape, expected in zip(spools, shapes, rows, strict=True):
        whole = np.array(expected, np.float32).reshape(len(expected), *shape)
        assert spool.shape == whole.shape
        assert spool.nbytes == whole.nbytes
        np.testing.assert_array_equal(spool[start:stop], whole[start:stop])
        np.testing.assert_array_equal(np.asarray(spool), whole)
        assert np.asarray(spool).dtype == np.float32
    assert spill.held_bytes <= limit


def test_memory_stays_below_the_limit_and_the_file_has_no_name(tmp_path):
    spill = Spill(10_000, tmp_path)
    spool = spill.spool((100,), "float32")
    for number in range(1000):
        spool.append(np.full(100, number))
        assert spill.held_bytes <= 10_000
    assert spill.spilled_bytes + spill.held_bytes == spool.nbytes == 400_000
    assert list(tmp_path.iterdir()) == []
    assert spool[998:999][0, 0] == 998


def test_a_spool_copies_what_it_is_given():
    spool = Spill(1000).spool((2,), "float32")
    row = np.zeros(2, np.float32)
    spool.append(row)
    row[:] = 1
    assert spool[0:1].tolist() == [[0, 0]]


def test_what_a_spool_does_not_hold_is_refused():
    spool = Spill(1000).spool((2,), "float32")
    with pytest.raises(ValueError, match=r"shape \(2,\), not \(3,\)"):
        spool.append(np.zeros(3))
    with pytest.raises(IndexError, match="consecutive, not every 2"):
        spool[::2]


def test_a_full_disk_and_a_missing_folder_are_said(tmp_path):
    spool = Spill(0, tmp_path / "gone").spool((2,), "float32")
    with pytest.raises(UnwritableFolder, match="gone: no such file or directory"):
        spool.append(np.zeros(2))
    full = Spill(0, tmp_path)
    full._file = os.open("/dev/full", os.O_RDWR)
    with pytest.raises(DiskFull, match="too full to write"):
        full.spool((2,), "float32").append(np.zeros(2))
    os.close(full._file)


def test_its_file_is_closed_with_it(tmp_path):
    def unnamed():
        links = [fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
        return [link for link in links if str(link).startswith(str(tmp_path))]

    spool = Spill(0, tmp_path).spool((2,), "float32")
    spool.append(np.zeros(2))
    assert len(unnamed()) == 1
    del spool
    gc.collect()
    assert unnamed() == []


def stored(path):
    """Every dataset's bytes."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = (item.dtype, item.shape, item[...].tobytes())

    with h5py.File(path, locking=False) as file:
        file.visititems(visit)
    return found


@settings(max_examples=15, deadline=None)
@given(
    limit=st.sampled_from([0, 300, 10**9]),
    block_bytes=st.sampled_from([1, 100, 4 * 2**20]),
    n_steps=st.lists(st.integers(0, 9), min_size=1, max_size=3),
)
def test_spilled_and_held_activations_give_the_same_file(
    build, tmp_path_factory, limit, block_bytes, n_steps
):
    """The bytes of a file do not depend on where its activations waited."""
    folder = tmp_path_factory.mktemp("spill")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("traces.activations.BLOCK_BYTES", block_bytes)
        with (
            build.writer(folder / "array.h5") as arrays,
            build.writer(folder / "spool.h5") as spools,
        ):
            for number, n in enumerate(n_steps):
                record = build.record(number, n_steps=n)
                record.activations["vlm.1.ffn_act"][:1, 0] = 1e6  # overflows
                arrays.write_episode(record)
                spill = Spill(limit, folder)
                for given in (record.activations, record.decisions):
                    for name, rows in given.items():
                        if name == "chain" or given is record.activations:
                            spool = spill.spool(rows.shape[1:], rows.dtype)
                            for row in rows:
                                spool.append(row)
                            given[name] = spool
                spools.write_episode(record)
    assert stored(folder / "array.h5") == stored(folder / "spool.h5")


class Counted:
    """An array-like that remembers the largest slice taken of it."""

    def __init__(self, rows, shape):
        self.shape, self.dtype = (rows, *shape), np.dtype(np.float32)
        self.largest = 0

    def __getitem__(self, rows):
        self.largest = max(self.largest, rows.stop - rows.start)
        return np.full((rows.stop - rows.start, *self.shape[1:]), 0.5, np.float32)


def test_a_writer_never_holds_all_activations(build, tmp_path):
    site = replace(build.sites[0], shape=(100_000,))
    record = build.record(n_steps=100, replan=1)
    given = Counted(100, site.shape)
    record.activations = {site.name: given}
    record.objects = record.frames = record.sim_state = None
    with TraceWriter(tmp_path / "a.h5", build.header(), [site], keep_chain=False) as writer:
        writer.write_episode(record)
    assert given.largest * 100_000 * 4 <= 4 * 2**20
    with h5py.File(tmp_path / "a.h5", locking=False) as file:
        group = file[f"activations/{site.name}"]
        assert group["values"].shape == (100, 100_000)
        assert (group["n"][:] == 100).all()
        assert (group["mean"][:] == 0.5).all()
        assert (group["m2"][:] == 0).all()

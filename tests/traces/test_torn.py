import shutil

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.errors import NotATrace
from traces.reader import TraceReader
from traces.torn import rows_vouched_for

PAGE = 4096


@given(
    rows=st.integers(1, 40),
    used=st.integers(0, 40),
    row_bytes=st.integers(1, 5),
    tear=st.integers(0, 200),
    seed=st.integers(0, 999),
)
def test_the_checksum_of_hdf5_finds_the_old_rows(
    tmp_path_factory, rows, used, row_bytes, tear, seed
):
    """New rows are written over a stored chunk up to some byte; the old rows are found again."""
    used = min(used, rows - 1)
    rng = np.random.default_rng(seed)
    old = np.zeros((rows, row_bytes), np.uint8)
    old[:used] = rng.integers(0, 256, (used, row_bytes))
    new = old.copy()
    new[used:] = rng.integers(1, 256, (rows - used, row_bytes))
    with h5py.File(tmp_path_factory.mktemp("chunk") / "a.h5", "w") as file:
        dataset = file.create_dataset("x", data=old, chunks=old.shape, fletcher32=True)
        file.flush()
        _, raw = dataset.id.read_direct_chunk((0, 0))
    tear = min(tear, old.nbytes)
    torn = new.tobytes()[:tear] + raw[tear:]
    found = rows_vouched_for(torn, rows)
    assert found is not None
    trusted = old.copy()
    trusted[found:] = 0
    np.testing.assert_array_equal(trusted, old)


def test_a_flipped_bit_is_no_tear():
    rng = np.random.default_rng(0)
    chunk = rng.integers(0, 256, (64, 16), np.uint8)
    with h5py.File.in_memory() as file:
        dataset = file.create_dataset("x", data=chunk, chunks=chunk.shape, fletcher32=True)
        file.flush()
        _, raw = dataset.id.read_direct_chunk((0, 0))
    for place in rng.integers(0, len(raw), 200):
        bad = bytearray(raw)
        bad[place] ^= 1 << int(rng.integers(8))
        assert rows_vouched_for(bytes(bad), 64) is None


def columns(file):
    found = []
    file.visititems(lambda name, item: found.append(name) if hasattr(item, "chunks") else None)
    return found


def stored_chunks(path, name):
    """Place in the file and size of every chunk of a dataset."""
    with h5py.File(path, "r", swmr=True, locking=False) as file:
        dataset = file[name]
        infos = [dataset.id.get_chunk_info(i) for i in range(dataset.id.get_num_chunks())]
    return {info.chunk_offset[0]: (info.byte_offset, info.size) for info in infos}


@pytest.fixture
def before_and_after(build, tmp_path):
    """A growing trace before and after its fourth episode, and what its readers know."""
    writer = build.writer(tmp_path / "a.h5")
    for number in range(3):
        writer.write_episode(build.record(number, n_steps=90, replan=1))
    before = shutil.copy(writer.partial, tmp_path / "before.h5.partial")
    writer.write_episode(build.record(3, n_steps=90, replan=1))
    after = shutil.copy(writer.partial, tmp_path / "after.h5.partial")
    writer.close()
    return before, after


@pytest.mark.parametrize("share", [0.3, 0.5, 0.99])
def test_torn_chunks_keep_the_complete_episodes(build, tmp_path, before_and_after, share):
    """Every chunk that the fourth episode touched is torn; the first three are whole."""
    before, after = before_and_after
    content, newer = bytearray(before.read_bytes()), after.read_bytes()
    with h5py.File(before, "r", swmr=True, locking=False) as file:
        names = [n for n in columns(file) if n.rpartition("/")[2] not in ("n", "mean", "m2")]
    torn = 0
    for name in names:
        for place, size in stored_chunks(before, name).values():
            cut = place + int(share * (size - 4))
            torn += content[place:cut] != newer[place:cut]
            content[place:cut] = newer[place:cut]
    assert torn > 20
    path = tmp_path / "torn.h5.partial"
    path.write_bytes(content)
    with h5py.File(path, "r", swmr=True, locking=False) as file, pytest.raises(OSError):
        for name in names:
            file[name][:]
    with TraceReader(path) as left, TraceReader(before) as expected:
        assert left.n_episodes == expected.n_episodes == 3
        for table in ("episodes", "steps", "decisions", "objects"):
            a, b = getattr(left, table)(), getattr(expected, table)()
            for column in b:
                np.testing.assert_array_equal(a[column], b[column])
        for site in build.sites:
            for rows in (slice(None), slice(80, 270, 3), np.array([3, 200, 269])):
                a, b = (trace.activation(site.name, rows) for trace in (left, expected))
                np.testing.assert_array_equal(a, b)
        assert left.frames("agentview")[1] == expected.frames("agentview")[1]
        assert len(left.sim_states()[1]) == 270


def test_a_flipped_bit_in_a_partial_is_an_error(tmp_path, before_and_after):
    before, _ = before_and_after
    content = bytearray(before.read_bytes())
    place, _ = stored_chunks(before, "steps/action")[0]
    content[place + 100] ^= 1
    path = tmp_path / "flipped.h5.partial"
    path.write_bytes(content)
    with TraceReader(path) as trace:
        trace.steps("t")
        with pytest.raises((OSError, NotATrace)):
            trace.steps("action")


def test_a_flipped_bit_in_any_chunk_of_a_closed_trace_is_an_error(build, tmp_path):
    path = build.trace(tmp_path / "a.h5")
    with h5py.File(path, locking=False) as file:
        names = columns(file)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    flipped = 0
    for name in names:
        for place, size in stored_chunks(path, name).values():
            bad = bytearray(content)
            bad[place + int(rng.integers(size))] ^= 1 << int(rng.integers(8))
            (tmp_path / "bad.h5").write_bytes(bad)
            with h5py.File(tmp_path / "bad.h5", locking=False) as file, pytest.raises(OSError):
                file[name][...]
            flipped += 1
    assert flipped > 60

import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from traces.errors import NotATrace
from traces.reader import TraceReader
from traces.safety import ATTRIBUTE_BYTES, SafeGroup, opened, walk


@pytest.fixture
def path(build, tmp_path):
    return build.trace(tmp_path / "a.h5")


def change(path, act):
    with h5py.File(path, "r+", locking=False) as file:
        act(file)
    return path


@pytest.fixture
def outside(tmp_path):
    """A file that nobody may open: whoever does hangs, as nobody writes into a pipe."""
    os.mkfifo(tmp_path / "outside.h5")
    return tmp_path / "outside.h5"


def link(place, target):
    def act(file):
        del file[place]
        file[place] = target

    return act


def external(outside):
    def act(file):
        del file["steps/ee_pos"]
        file.create_dataset("steps/ee_pos", (15, 3), "f8", external=[(str(outside), 0, 360)])

    return act


def virtual(outside):
    def act(file):
        del file["steps/ee_pos"]
        layout = h5py.VirtualLayout((15, 3), "f8", maxshape=(None, 3))
        source = h5py.VirtualSource(str(outside), "x", (15, 3), maxshape=(None, 3))
        layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
        file.create_virtual_dataset("steps/ee_pos", layout)

    return act


def test_nothing_outside_the_file_is_opened(path, outside):
    whole = path.read_bytes()
    for act, said in (
        (link("steps/ee_pos", h5py.ExternalLink(str(outside), "/x")), "is a link"),
        (link("steps/ee_pos", h5py.SoftLink("/steps/state")), "is a link"),
        (link("steps", h5py.ExternalLink(str(outside), "/")), "is a link"),
        (external(outside), "has its values in another file"),
        (virtual(outside), "is a virtual dataset"),
    ):
        path.write_bytes(whole)
        change(path, act)
        began = time.monotonic()
        with pytest.raises(NotATrace, match=said), TraceReader(path) as trace:
            trace.steps()
        assert time.monotonic() - began < 30  # a pipe would have kept it for ever


def test_an_unknown_filter_is_not_looked_for(path):
    def act(file):
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((15,))
        creation.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
        del file["steps/reward"]
        space = h5py.h5s.create_simple((15,))
        h5py.h5d.create(file["steps"].id, b"reward", h5py.h5t.IEEE_F64LE, space, creation)

    said = r"steps/reward needs the filters \[32015\]"
    with pytest.raises(NotATrace, match=said), TraceReader(change(path, act)) as trace:
        trace.steps()


def test_plugins_come_back_after_opening(path):
    before = [h5py.h5pl.get(i) for i in range(h5py.h5pl.size())]
    assert before
    TraceReader(path).close()
    with pytest.raises(NotATrace):
        TraceReader(Path(__file__))
    assert [h5py.h5pl.get(i) for i in range(h5py.h5pl.size())] == before


def resized(place, rows):
    return lambda file: file[place].resize(rows, axis=0)


def huge_chunks(file):
    del file["steps/state"]
    file.create_dataset("steps/state", (15, 8), "f8", chunks=(2**21, 8), maxshape=(None, 8))


def bomb(file):
    del file["steps/state"]
    shape = (2**22, 8)
    file.create_dataset("steps/state", shape, "f8", chunks=(2**16, 8), compression="gzip")


def many_chunks(file):
    del file["steps/t"]
    file.create_dataset("steps/t", (10**6,), "i4", chunks=(2,), maxshape=(None,))


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (many_chunks, "steps/t claims 500000 chunks, which the file cannot hold"),
        (resized("activations/vlm.1.ffn_act/overflow", 0), "has the shape"),
        (resized("steps/state", 2**40), "steps/state claims 70368744177664 bytes, of which"),
        (huge_chunks, "steps/state has chunks of 134217728"),
        (bomb, "steps/state claims 268435456 bytes"),
    ],
)
def test_no_size_is_believed(path, act, said):
    change(path, act)
    with pytest.raises(NotATrace, match=said), TraceReader(path) as trace:
        trace.steps()
        trace.activation_overflow("vlm.1.ffn_act")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("i4", "holds int32, not float64"),
        (h5py.string_dtype(), "holds object, not float64"),
        ([("a", "i4")], "holds"),
        ("S5", "not float64"),
    ],
)
def test_another_type_is_refused(path, kind, said):
    def act(file):
        del file["steps/ee_pos"]
        file.create_dataset("steps/ee_pos", (15, 3), kind)

    with pytest.raises(NotATrace, match=said), TraceReader(change(path, act)) as trace:
        trace.steps("ee_pos")


def test_narrower_numbers_are_read(path):
    def act(file):
        values = file["steps/ee_pos"][:]
        del file["steps/ee_pos"]
        file["steps/ee_pos"] = values.astype("f4")

    with TraceReader(change(path, act)) as trace:
        assert trace.steps("ee_pos")["ee_pos"].dtype == np.float32


@pytest.mark.parametrize("shape", [(), (15,), (15, 4), (15, 3, 1)])
def test_another_shape_is_refused(path, shape):
    def act(file):
        del file["steps/ee_pos"]
        file.create_dataset("steps/ee_pos", shape, "f8")

    with pytest.raises(NotATrace, match="has the shape"), TraceReader(change(path, act)) as trace:
        trace.steps("ee_pos")


def test_attributes_are_numbers_and_texts_of_a_credible_size(path):
    def act(file):
        file.attrs["large"] = np.zeros(ATTRIBUTE_BYTES // 8 + 1)
        file.attrs["compound"] = np.array((1, 2.0), dtype=[("a", "i4"), ("b", "f8")])
        file.attrs["reference"] = file["steps"].ref

    with h5py.File(path, "r+", libver=("v110", "v110"), locking=False) as file:
        act(file)
    file = opened(path, swmr=False)
    for name, said in (
        ("large", "has 16777224 bytes"),
        ("compound", "neither number nor text"),
        ("reference", "neither number nor text"),
    ):
        with pytest.raises(NotATrace, match=said):
            file.attrs[name]
    assert file.attrs["kind"] == "record"
    assert file.attrs.get("nothing") is None
    file.close()


def test_texts_are_of_a_credible_size_too(path):
    def act(file):
        file.attrs["large"] = "x" * (ATTRIBUTE_BYTES + 1)

    file = opened(change(path, act), swmr=False)
    with pytest.raises(NotATrace, match="large has 16777217 characters"):
        file.attrs["large"]
    file.close()


def test_a_text_takes_no_more_memory_than_there_is_of_it(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="earliest") as file:
        file.attrs["text"] = "x" * 12345
    raw, length = path.read_bytes(), (12345).to_bytes(4, "little")
    assert raw.count(length) == 2  # in the attribute, and in the heap
    path.write_bytes(raw.replace(length, (2**30).to_bytes(4, "little"), 1))
    file = opened(path, swmr=False)
    with pytest.raises(OSError, match="memory"):  # else HDF5 would fill a gigabyte first
        file.attrs["text"]
    file.close()


def test_names_take_no_more_memory_than_there_is_of_them(tmp_path):
    """A growing file is read beyond its end, twenty times, into memory that fills."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="earliest") as file:
        for i in range(100):  # so many that their names lie away from what says how many
            file[f"steps {i}"] = i
    raw = bytearray(path.read_bytes())
    place = raw.index(b"HEAP") + 8
    raw[place : place + 8] = (2**29).to_bytes(8, "little")
    path.write_bytes(raw)
    file = opened(path, swmr=True)
    for look in (list, lambda group: "steps 1" in group, lambda group: group["steps 1"]):
        with pytest.raises((OSError, RuntimeError), match="memory"):
            look(file)
    file.close()


def test_groups_read_as_in_h5py(path):
    safe, plain = opened(path, swmr=False), h5py.File(path, locking=False)
    assert list(safe) == list(plain)
    assert len(safe["steps"]) == len(plain["steps"])
    assert safe["steps/t"][:].tolist() == plain["steps/t"][:].tolist()
    assert safe["steps"]["t"] == plain["steps/t"]
    assert isinstance(safe["activations/vlm.1.ffn_act"], SafeGroup)
    assert "steps/t" in safe
    assert "steps/none" not in safe
    assert "none/t" not in safe
    assert "steps/t/deeper" not in safe
    assert safe.get("none") is None
    for name in ("none", "steps/t/deeper"):
        with pytest.raises(KeyError):
            safe[name]
    plain.close()
    safe.close()


def test_walking_ends_and_names_what_it_does_not_open(path, outside):
    def act(file):
        file["loop"] = file["/"]
        file["steps/loop"] = file["steps"]
        file["soft"] = h5py.SoftLink("/soft")
        file["away"] = h5py.ExternalLink(str(outside), "/")
        file["deep/er/and/deeper"] = 1

    file = opened(change(path, act), swmr=False)
    found = dict(walk(file))
    assert found["away"] == found["soft"].replace("soft", "away")
    assert "is a link" in found["away"]
    assert found["deep/er/and/deeper"][()] == 1
    assert "loop/steps/t" not in found
    with TraceReader(path) as trace:
        assert {name for name, _ in trace.datasets()} == set(found) - {"away", "soft"}
    file.close()


def test_a_crowded_group_is_not_walked(path):
    def act(file):
        group = file.create_group("frames/crowd")
        for i in range(10_001):
            group.id.links.create_soft(b"%d" % i, b"/nowhere")

    file = opened(change(path, act), swmr=False)
    with pytest.raises(NotATrace, match="has 10001 entries"):
        list(file["frames/crowd"])
    file.close()


def test_a_damaged_growing_file_keeps_nobody_waiting(build, tmp_path):
    writer = build.writer(tmp_path / "a.h5")
    writer.write_episode(build.record(0))
    raw = bytearray(writer.partial.read_bytes())
    writer.close()
    start = raw.index(b"OHDR", 2000)
    raw[start + 20] ^= 1  # its checksum is wrong for good
    path = tmp_path / "b.h5.partial"
    path.write_bytes(raw)
    code = "import sys; from traces.reader import TraceReader; TraceReader(sys.argv[1]).datasets()"
    command = [sys.executable, "-P", "-c", code, str(path)]
    subprocess.run(command, capture_output=True, timeout=100, check=False)


def test_a_pipe_is_no_trace(outside):
    with pytest.raises(NotATrace, match="a pipe or a device"):
        TraceReader(outside)

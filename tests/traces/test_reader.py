import gc
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from traces.errors import MissingFile, NewerFormat, NotATrace, UnknownName
from traces.reader import TraceReader


@pytest.fixture
def path(build, tmp_path):
    return build.trace(tmp_path / "a.h5")


def test_header_comes_back(build, path):
    with TraceReader(path) as trace:
        header = trace.header
    expected = build.header()
    assert header.normalisation == {"action_mean": [0.1, 0.2]}
    assert header.intervention == expected.intervention
    assert header.config == expected.config
    assert header.sizes == expected.sizes
    assert (header.run_id, header.kind) == (expected.run_id, expected.kind)


def test_a_large_header_comes_back(build, tmp_path):
    hook_map = {f"site {i}": "é" * 100 for i in range(2000)}
    path = build.trace(tmp_path / "a.h5", numbers=(0,), hook_map=hook_map)
    with TraceReader(path) as trace:
        assert trace.header.hook_map == hook_map


def test_sites_come_back(build, path):
    with TraceReader(path) as trace:
        assert set(trace.sites()) == set(build.sites)


def test_only_the_asked_columns_and_rows_are_read(path):
    with TraceReader(path) as trace:
        assert list(trace.episodes("success", "uid")) == ["success", "uid"]
        steps = trace.steps("t", episode=1)
        assert steps["t"].tolist() == [0, 1, 2, 3, 4]
        assert trace.decisions("t", episode=2)["t"].tolist() == [0, 2, 4]
        assert trace.episodes("task_name")["task_name"].dtype.kind == "U"


def test_activation_rows(path):
    with TraceReader(path) as trace:
        whole = trace.activation("vlm.1.ffn_act")
        assert whole.shape == (8, 16)
        one = trace.activation("vlm.1.ffn_act", episode=1)
        np.testing.assert_array_equal(one, whole[2:5])
        for rows in (
            slice(1, 2),
            slice(-2, None),
            slice(0, 99, 2),
            slice(3, 1),
            np.array([0, 2]),
            np.array([True, False, True]),
            np.array([], int),
        ):
            got = trace.activation("vlm.1.ffn_act", rows, episode=1)
            np.testing.assert_array_equal(got, whole[2:5][rows])
        with pytest.raises(IndexError, match="go forward"):
            trace.activation("vlm.1.ffn_act", slice(None, None, -1))


def test_unknown_names_offer_near_ones(path):
    with TraceReader(path) as trace:
        with pytest.raises(UnknownName, match="did you mean success"):
            trace.episodes("succes")
        with pytest.raises(UnknownName, match=r"activation site 'vlm.1.ffn'; did you mean vlm"):
            trace.activation("vlm.1.ffn")
        with pytest.raises(UnknownName, match="camera 'roof'; available: agentview, wrist"):
            trace.frames("roof")
        with pytest.raises(UnknownName, match="did you mean updates"):
            trace.table("update")
        for episode in (3, -1):
            with pytest.raises(IndexError, match=f"episode {episode} of 3"):
                trace.steps(episode=episode)


def test_unknown_additions_are_tolerated(path):
    with h5py.File(path, "a") as file:
        file.attrs["mood"] = "good"
        file["steps/mine"] = np.arange(15)
        file["steps/short"] = np.arange(2)
        file.create_group("steps/deeper")
        file["more/things"] = 3
    with TraceReader(path) as trace:
        assert "mine" not in trace.steps()
        assert trace.steps("mine", episode=1)["mine"].tolist() == [4, 5, 6, 7, 8]


def test_absent_optional_attributes_are_tolerated(path):
    with h5py.File(path, "a") as file:
        for name in set(file.attrs) - {"format", "format_version"}:
            del file.attrs[name]
    with TraceReader(path) as trace:
        assert trace.header.run_id == ""
        assert trace.header.config == {}
        assert trace.n_episodes == 3


def changed(path, change):
    with h5py.File(path, "a") as file:
        change(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.attrs.pop("format"), "attribute `format` is not 'vla-trace'"),
        (lambda file: file.attrs.__setitem__("config", "{"), "attributes cannot be read"),
        (lambda file: file.pop("steps"), "has no table 'steps'"),
        (lambda file: file.pop("episodes/n_steps"), "it is damaged"),
        (lambda file: file["steps/t"].resize(3, axis=0), "point beyond its steps"),
        (lambda file: file["episodes/n_steps"].resize(5, axis=0), "it is damaged"),
        (lambda file: file.attrs.__setitem__("run_id", "x" * 2000), "at most 1000 characters"),
    ],
)
def test_damage_is_named(path, change, message):
    changed(path, change)
    with pytest.raises(NotATrace, match=message):
        TraceReader(path)


@pytest.mark.parametrize("number", [-1, 3])
def test_an_object_without_a_name_is_named(path, number):
    changed(path, lambda file: file["objects/object"].__setitem__(4, number))
    with TraceReader(path) as trace, pytest.raises(NotATrace, match=f"object {number} of 3"):
        trace.objects()


def test_an_unfinished_file_without_columns_is_named(path):
    def change(file):
        for name in list(file["steps"]):
            del file[f"steps/{name}"]

    changed(path, change)
    with pytest.raises(NotATrace, match="its table 'steps' has no columns"):
        TraceReader(path.rename(f"{path}.partial"))


def test_a_newer_format_is_refused(path):
    changed(path, lambda file: file.attrs.__setitem__("format_version", 2))
    with pytest.raises(NewerFormat, match="format version 2, this vla-trace reads up to version 1"):
        TraceReader(path)


def test_what_is_no_trace_is_refused(path, tmp_path):
    with pytest.raises(MissingFile, match=r"did you mean a\.h5"):
        TraceReader(tmp_path / "aa.h5")
    with pytest.raises(NotATrace, match="it is a folder"):
        TraceReader(tmp_path)
    for content in (b"", b"not HDF5"):
        (tmp_path / "text.h5").write_bytes(content)
        with pytest.raises(NotATrace, match="it is not an HDF5 file"):
            TraceReader(tmp_path / "text.h5")
    raw = path.read_bytes()
    (tmp_path / "cut.h5").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(NotATrace, match="the file is cut off"):
        TraceReader(tmp_path / "cut.h5")


def test_a_partial_under_a_final_name_says_what_to_do(build, tmp_path):
    writer = build.writer(tmp_path / "a.h5")
    writer.write_episode(build.record())
    copy = tmp_path / "copy.h5"
    copy.write_bytes(writer.partial.read_bytes())
    writer.close()
    with pytest.raises(NotATrace, match=r"rename it to copy\.h5\.partial"):
        TraceReader(copy)
    copy.rename(tmp_path / "copy.h5.partial")
    with TraceReader(tmp_path / "copy.h5.partial") as trace:
        assert trace.n_episodes == 1


def test_nothing_stays_open(path):
    def open_files():
        gc.collect()
        return [
            target for fd in Path("/proc/self/fd").iterdir() if (target := fd.resolve()) == path
        ]

    with TraceReader(path) as trace:
        trace.steps()
        assert open_files()
    assert not open_files()
    changed(path, lambda file: file.attrs.pop("format"))
    with pytest.raises(NotATrace):
        TraceReader(path)
    assert not open_files()


def test_a_reader_never_stops_a_writer(path):
    with TraceReader(path):
        code = (
            "import h5py, sys\n"
            "with h5py.File(sys.argv[1], 'a') as file: file.attrs['note'] = 'written'"
        )
        subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    with h5py.File(path, locking=False) as file:
        assert file.attrs["note"] == "written"


@pytest.mark.parametrize("shard", [np.inf, "many", [1, 2]])
def test_a_shard_number_that_is_none_is_refused(build, tmp_path, shard):
    path = build.trace(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["shard"] = shard
    with pytest.raises(NotATrace, match="attributes cannot be read"):
        TraceReader(path)


def test_bytes_that_are_no_text_can_be_shown_and_written(build, tmp_path):
    path = build.trace(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["created_utc"] = b"\xff\xfe2026"
    with TraceReader(path) as trace:
        assert trace.header.created_utc == "\ufffd\ufffd2026"
        trace.header.created_utc.encode()

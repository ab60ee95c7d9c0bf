import subprocess
import sys
import types
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces.errors import BadRecord, DiskFull, FileExists, TextTooLong, UnwritableFolder
from traces.reader import TraceReader
from traces.schema import TABLES
from traces.writer import TraceWriter

ROOT = Path(__file__).parents[2]


def contents(path):
    """Every dataset's bytes and every attribute, the clock's apart."""
    found = {}

    def visit(name, item):
        found[name, "attributes"] = {k: str(v) for k, v in item.attrs.items()}
        if isinstance(item, h5py.Dataset) and not item.attrs.get("wall_clock", False):
            found[name] = (item.dtype, item.shape, item[...].tobytes())

    with h5py.File(path, locking=False) as file:
        file.visititems(visit)
    return found


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), max_size=4),
    replan=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_what_is_written_is_read(build, tmp_path_factory, lengths, replan, seed):
    path = tmp_path_factory.mktemp("trace") / "a.h5"
    records = [build.record(i, n, replan, seed) for i, n in enumerate(lengths)]
    with build.writer(path) as writer:
        for record in records:
            writer.write_episode(record)
    with TraceReader(path) as trace:
        episodes = trace.episodes()
        assert trace.n_episodes == len(records)
        assert episodes["n_steps"].tolist() == lengths
        for i, record in enumerate(records):
            for name, value in record.episode.items():
                np.testing.assert_array_equal(episodes[name][i], value)
            assert episodes["session"][i] == 0
            assert episodes["error"][i] == ""
            check_rows(trace, i, record)


def check_rows(trace, i, record):
    steps, decisions = trace.steps(episode=i), trace.decisions(episode=i)
    first_step, first_decision = trace.step_span(i)[0], trace.decision_span(i)[0]
    for name, values in record.steps.items():
        if name != "decision":
            np.testing.assert_array_equal(steps[name], values)
    np.testing.assert_array_equal(steps["decision"], record.steps["decision"] + first_decision)
    assert (steps["episode"] == i).all()
    for name, values in record.decisions.items():
        np.testing.assert_array_equal(decisions[name], np.asarray(values))
    assert np.isnan(decisions["log_prob_base"]).all()
    for site in trace.sites():
        given = record.activations[site.name].astype(site.dtype)
        np.testing.assert_array_equal(trace.activation(site.name, episode=i), given)
    objects = trace.objects(episode=i)
    np.testing.assert_array_equal(objects["step"], record.objects["step"] + first_step)
    np.testing.assert_array_equal(objects["pos"], record.objects["pos"])
    assert np.isnan(objects["joint"]).all()
    at, frames = trace.frames("agentview", episode=i)
    np.testing.assert_array_equal(at, record.frames["agentview"][0] + first_step)
    assert frames == record.frames["agentview"][1]
    _, states = trace.sim_states(episode=i)
    assert len(states) == len(record.sim_state[1])
    for state, given in zip(states, record.sim_state[1], strict=True):
        np.testing.assert_array_equal(state, given)
    assert trace.frames("wrist", episode=i)[1] == []


def test_equal_inputs_give_equal_bytes_but_for_the_clock(build, tmp_path):
    a = build.trace(tmp_path / "a.h5")
    with build.writer(tmp_path / "b.h5") as writer:
        writer.write_policy(policy_version=0, update=0, sha256="00" * 32, path="weights")
        for number in range(3):
            record = build.record(number, n_steps=4 + number)
            record.episode["wall_s"] += 1.0
            record.decisions["policy_ms"] += 1.0
            writer.write_episode(record)
    assert contents(a) == contents(tmp_path / "b.h5")
    with TraceReader(a) as x, TraceReader(tmp_path / "b.h5") as y:
        assert (x.episodes("wall_s")["wall_s"] != y.episodes("wall_s")["wall_s"]).all()


def test_other_inputs_give_other_bytes(build, tmp_path):
    a = build.trace(tmp_path / "a.h5", numbers=(0, 1))
    b = build.trace(tmp_path / "b.h5", numbers=(0, 2))
    assert contents(a) != contents(b)


def test_every_dataset_explains_itself(build, tmp_path):
    with h5py.File(build.trace(tmp_path / "a.h5"), locking=False) as file:
        seen = []

        def visit(name, item):
            if isinstance(item, h5py.Dataset):
                seen.append(name)
                assert {"unit", "dims", "doc"} <= set(item.attrs)
                assert len(item.attrs["dims"].split(",")) == item.ndim
                assert h5py.check_vlen_dtype(item.dtype) is None

        file.visititems(visit)
        assert len(seen) > sum(len(fields) for fields in TABLES.values())
        clock = [name for name in seen if "wall_clock" in file[name].attrs]
        assert clock == ["decisions/policy_ms", "episodes/wall_s", "updates/wall_s"]
        assert file["steps/ee_pos"].attrs["unit"] == "m"
        assert file["episodes/final_ee_pos"].attrs["missing"] == "NaN"


KILLED = """
import os, runpy, signal, sys
import traces.activations, traces.writer
build = runpy.run_path("tests/traces/conftest.py")
writer = build["make_writer"](sys.argv[1])
for number in range(3):
    writer.write_episode(build["make_record"](number, n_steps=4 + number))
moment, place = sys.argv[2:]

def killing(write, name_of):
    def wrapper(*args):
        if name_of(*args) == place:
            writer._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        write(*args)
    return wrapper

site = traces.activations.SiteWriter
for module in (traces.activations, traces.writer):
    module.appended = killing(module.appended, lambda column, rows: column.name)
site.write = killing(site.write, lambda self, *rest: self.columns["values"].name)
if moment == "within":
    writer.write_episode(build["make_record"](3))
elif moment == "closing":
    site.write_statistics = killing(site.write_statistics, lambda self: self.site.name)
    writer.close()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    "moment",
    [
        ("between", ""),
        ("within", "/steps/t"),
        ("within", "/decisions/chain"),
        ("within", "/activations/expert.0.ffn_act/decision"),
        ("within", "/activations/vlm.1.ffn_act/values"),
        ("within", "/sim_state/data"),
        ("within", "/episodes/first_step"),
        ("within", "/episodes/wall_s"),
        ("within", "/episodes/uid"),
        ("closing", "expert.0.ffn_act"),
    ],
    ids=lambda moment: "-".join(moment),
)
def test_a_killed_writer_leaves_its_complete_episodes(build, tmp_path, moment):
    path = tmp_path / "a.h5"
    command = [sys.executable, "-c", KILLED, str(path), *moment]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode < 0, done.stderr
    assert not path.exists()
    whole = build.trace(tmp_path / "whole.h5")
    with TraceReader(f"{path}.partial") as left, TraceReader(whole) as expected:
        assert left.partial
        assert left.n_episodes == 3
        for name in ("episodes", "steps", "decisions", "objects"):
            a, b = getattr(left, name)(), getattr(expected, name)()
            assert a.keys() == b.keys()
            for column in a:
                np.testing.assert_array_equal(a[column], b[column])
        for site in build.sites:
            a, b = left.activation(site.name), expected.activation(site.name)
            np.testing.assert_array_equal(a, b)
            a, b = left.activation_stats(site.name), expected.activation_stats(site.name)
            np.testing.assert_allclose(a, b, rtol=1e-12)
            assert left.activation_overflow(site.name) == expected.activation_overflow(site.name)
        assert left.frames("agentview")[1] == expected.frames("agentview")[1]
        assert len(left.sim_states()[1]) == len(expected.sim_states()[1])


def test_a_live_trace_is_read_by_another_process(build, tmp_path):
    script = (
        "import sys; from traces.reader import TraceReader\n"
        "with TraceReader(sys.argv[1]) as trace: print(trace.n_episodes, trace.n_steps)"
    )
    writer = build.writer(tmp_path / "a.h5")
    seen = []
    for number in range(2):
        writer.write_episode(build.record(number))
        command = [sys.executable, "-c", script, str(writer.partial)]
        seen.append(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True))
    assert [done.stdout.split() for done in seen] == [["1", "6"], ["2", "12"]]
    writer.close()


def test_an_exception_leaves_a_readable_partial(build, tmp_path):
    with pytest.raises(KeyboardInterrupt), build.writer(tmp_path / "a.h5") as writer:
        writer.write_episode(build.record(0))
        raise KeyboardInterrupt
    assert not (tmp_path / "a.h5").exists()
    with TraceReader(tmp_path / "a.h5.partial") as trace:
        assert trace.n_episodes == 1


FILLED = """
import os, resource, runpy, sys
import traces.writer
from traces.errors import BadRecord, WriteFailed
if sys.argv[2] == "unforeseen":  # by the look at the free space that precedes every write
    traces.writer.SPARE_BYTES = -10**12
build = runpy.run_path("tests/traces/conftest.py")
written = 0
try:
    with build["make_writer"](sys.argv[1]) as writer:
        if sys.argv[2] == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
        while True:
            writer.write_episode(build["make_record"](written, n_steps=40))
            written += 1
except WriteFailed as failed:
    print(failed)
    try:
        writer.write_episode(build["make_record"](0))
    except BadRecord as refused:
        print(refused)
print(written)
"""


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
    if subprocess.run(mounting, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(path, how):
    """Write until it fails; return what was said and how many episodes were written."""
    command = [sys.executable, "-c", FILLED, str(path), how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    failed, refused, written = done.stdout.splitlines()
    assert failed.startswith(f"could not write {path}.partial: ")
    assert failed.endswith(f"are in it: vla-trace show {path}.partial")
    assert "expected a file whose last write succeeded" in refused
    assert int(written) > 2
    assert not path.exists()
    with TraceReader(f"{path}.partial") as trace:
        assert trace.n_episodes == int(written)
        assert trace.steps()["t"].tolist() == list(range(40)) * int(written)
        trace.decisions(), trace.objects(), trace.frames("agentview"), trace.sim_states()
        for site in trace.sites():
            trace.activation(site.name)
    return failed


def test_a_failed_write_spares_the_process_and_what_was_written(tmp_path):
    assert "File too large" in fill(tmp_path / "a.h5", "limit")


def test_a_disk_that_fills_up_spares_what_was_written(small_disk):
    assert "the disk is full; the episodes" in fill(small_disk / "a.h5", "unforeseen")


def test_a_full_disk_is_noticed_before_anything_is_written(build, tmp_path, monkeypatch):
    with build.writer(tmp_path / "a.h5") as writer:
        writer.write_episode(build.record(0))
        with monkeypatch.context() as patch:
            nearly_full = types.SimpleNamespace(free=64 * 2**20)
            patch.setattr("traces.writer.shutil.disk_usage", lambda folder: nearly_full)
            with pytest.raises(DiskFull, match=r"a\.h5\.partial: 67 MB needed, 67 MB free"):
                writer.write_episode(build.record(1))
        writer.write_episode(build.record(1))
    with TraceReader(tmp_path / "a.h5") as trace:
        assert trace.n_episodes == 2


def test_a_refused_record_leaves_no_mark(build, tmp_path):
    with build.writer(tmp_path / "a.h5") as writer:
        writer.write_episode(build.record(0))
        bad = build.record(1)
        bad.activations["expert.0.ffn_act"] = bad.activations["expert.0.ffn_act"][1:]
        with pytest.raises(BadRecord):
            writer.write_episode(bad)
        writer.write_episode(build.record(1))
    with build.writer(tmp_path / "b.h5") as writer:
        writer.write_episode(build.record(0))
        writer.write_episode(build.record(1))
    assert contents(tmp_path / "a.h5") == contents(tmp_path / "b.h5")


def test_nothing_is_overwritten(build, tmp_path):
    path = build.trace(tmp_path / "a.h5", numbers=())
    before = path.read_bytes()
    with pytest.raises(FileExists, match=r"a\.h5 already exists"):
        build.writer(path)
    left = build.writer(tmp_path / "b.h5")
    with pytest.raises(FileExists, match=r"b\.h5\.partial already exists"):
        build.writer(tmp_path / "b.h5")
    (tmp_path / "b.h5").write_text("came in between")
    with pytest.raises(FileExists):
        left.close()
    assert path.read_bytes() == before
    assert (tmp_path / "b.h5").read_text() == "came in between"
    assert (tmp_path / "b.h5.partial").exists()


def test_the_folder_is_made_or_refused(build, tmp_path):
    assert build.trace(tmp_path / "new" / "folder" / "a.h5", numbers=()).exists()
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableFolder):
        build.writer(tmp_path / "file" / "a.h5")


def test_a_folder_that_takes_no_files_is_refused(build, tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(folder)]
    if subprocess.run(mounting, capture_output=True).returncode != 0:
        folder.chmod(0o500)  # which root would write into all the same
    try:
        for path in (folder / "a.h5", folder / "deeper" / "a.h5"):
            with pytest.raises(UnwritableFolder, match=r"cannot write in .*; choose another"):
                build.writer(path)
    finally:
        subprocess.run(["umount", str(folder)], capture_output=True)


def test_closing_twice_is_harmless(build, tmp_path):
    writer = build.writer(tmp_path / "a.h5")
    assert writer.close() == writer.close() == tmp_path / "a.h5"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.h5"]


def test_a_faulty_header_leaves_no_file(build, tmp_path):
    with pytest.raises(TypeError, match="cannot hold object"):
        build.writer(tmp_path / "a.h5", config={"x": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("table", "name", "value", "message"),
    [
        ("steps", "episode", np.zeros(6, int), "steps/episode: expected nothing: the writer"),
        ("episode", "n_steps", 6, "episodes/n_steps: expected nothing"),
        ("steps", "decision", np.full(6, 3), "steps/decision: expected indices from 0 to 2"),
        ("steps", "action", np.zeros((6, 6)), r"steps/action: expected shape \(6, 7\) \(T, A\)"),
        ("steps", "contact", np.zeros(6), "steps/contact: expected values of type bool"),
        ("steps", "colour", np.zeros(6), "unknown column 'colour'"),
        ("episode", "uid", "", "episodes/uid: expected a name"),
        ("episode", "task_id", "lift", "episodes/task_id: expected values of type int32"),
        ("activations", "vlm.9", np.zeros((3, 16)), "activations: expected the sites"),
        ("activations", "vlm.1.ffn_act", None, "vlm.1.ffn_act: expected values for every episode"),
        ("objects", "object", np.full(18, 3), "objects/object: expected indices from 0 to 2"),
        ("objects", "step", np.arange(18)[::-1] // 3, "objects/step: expected ascending"),
        ("frames", "roof", ([0], [b"png"]), "frames/roof: expected what `cameras`"),
        ("frames", "wrist", ([6], [b"png"]), "frames/wrist/step: expected indices from 0 to 5"),
        ("frames", "wrist", ([0, 1], [b"png"]), "frames/wrist: expected one flat item per step"),
        ("frames", "wrist", ([1, 0], [b"a", b"b"]), "strictly ascending"),
    ],
)
def test_what_the_format_does_not_hold_is_refused(build, tmp_path, table, name, value, message):
    record = build.record()
    getattr(record, table)[name] = value
    with build.writer(tmp_path / "a.h5") as writer, pytest.raises(BadRecord, match=message):
        writer.write_episode(record)


def test_long_names_are_refused_and_long_errors_shortened(build, tmp_path):
    with build.writer(tmp_path / "a.h5") as writer:
        record = build.record()
        record.episode["error"] = "worker died: " + "é" * 600
        writer.write_episode(record)
        record.episode["instruction"] = "pick up " * 60
        with pytest.raises(TextTooLong, match="episodes/instruction holds at most 256 bytes"):
            writer.write_episode(record)
    with TraceReader(tmp_path / "a.h5") as trace:
        (error,) = trace.episodes("error")["error"]
    assert error.startswith("worker died: ééé")
    assert error.endswith("é…")


def test_an_episode_that_failed_before_its_first_step_is_kept(build, tmp_path):
    record = build.record()
    record.episode["error"] = "the renderer did not start"
    record.steps, record.decisions, record.activations = {}, {}, {}
    record.objects = record.frames = record.sim_state = None
    with build.writer(tmp_path / "a.h5") as writer:
        writer.write_episode(record)
        writer.write_episode(build.record(1))
    with TraceReader(tmp_path / "a.h5") as trace:
        assert trace.episodes("n_steps", "first_step") == {
            "n_steps": pytest.approx([0, 6]),
            "first_step": pytest.approx([0, 0]),
        }
        assert trace.activation("vlm.1.ffn_act", episode=0).shape == (0, 16)
        assert trace.activation("vlm.1.ffn_act", episode=1).shape == (3, 16)


def test_overflow_and_statistics_run_over_all_episodes(build, tmp_path):
    site = "vlm.1.ffn_act"
    given = []
    with build.writer(tmp_path / "a.h5") as writer:
        for number in range(4):
            record = build.record(number)
            record.activations[site][0, number] = 1e6
            given.append(record.activations[site])
            writer.write_episode(record)
    values = np.concatenate(given).astype(float)
    values[values == 1e6] = np.nan
    with TraceReader(tmp_path / "a.h5") as trace:
        n, mean, std = trace.activation_stats(site)
        assert trace.activation_overflow(site) == 4
        assert trace.activation_overflow("expert.0.ffn_act") == 0
    assert n.tolist() == [11] * 4 + [12] * 12
    np.testing.assert_allclose(mean, np.nanmean(values, axis=0), atol=1e-3)
    np.testing.assert_allclose(std, np.nanstd(values, axis=0), atol=1e-3)


def test_a_site_may_cover_some_decisions(build, tmp_path):
    site = "expert.0.ffn_act"
    with build.writer(tmp_path / "a.h5") as writer:
        for number in range(3):
            record = build.record(number)
            record.activation_decisions[site] = [1]
            record.activations[site] = record.activations[site][[1]]
            writer.write_episode(record)
    with TraceReader(tmp_path / "a.h5") as trace:
        assert trace.activation_decisions(site).tolist() == [1, 4, 7]
        one = trace.activation(site, episode=2)
    np.testing.assert_array_equal(one, build.record(2).activations[site][[1]])


def test_the_chain_is_kept_when_asked_for(build, tmp_path):
    with TraceWriter(
        tmp_path / "a.h5",
        build.header(),
        build.sites,
        keep_chain=False,
        object_names=build.object_names,
        cameras=("agentview",),
        keep_sim_state=True,
    ) as writer:
        writer.write_episode(build.record())
    with TraceReader(tmp_path / "a.h5") as trace:
        assert "chain" not in trace.decisions()
    with build.writer(tmp_path / "b.h5") as writer:
        record = build.record()
        del record.decisions["chain"]
        with pytest.raises(BadRecord, match="decisions/chain: expected values for every row"):
            writer.write_episode(record)


def test_a_policy_without_denoising_needs_no_chain(build, tmp_path):
    header = build.header(K=0, H=1, Z=0, language_length=0, intervention=None)
    record = build.record(replan=1)
    record.decisions |= {
        "chain": np.zeros((6, 1, 1, 0)),
        "noise_std": np.zeros((6, 0)),
        "tokens": np.zeros((6, 0), int),
        "token_mask": np.zeros((6, 0), bool),
    }
    record.activations, record.objects, record.frames, record.sim_state = {}, None, None, None
    with TraceWriter(tmp_path / "a.h5", header) as writer:
        writer.write_episode(record)
    with TraceReader(tmp_path / "a.h5") as trace:
        assert trace.decisions("noise_std")["noise_std"].shape == (6, 0)
        assert trace.sites() == []
        assert trace.objects() == {}
        assert trace.cameras() == []
        assert trace.sim_states()[1] == []
        assert trace.header.intervention is None


def test_side_tables_grow(build, tmp_path):
    with build.writer(tmp_path / "a.h5") as writer:
        writer.write_policy(0, 0, sha256="aa", path="x")
        writer.write_policy(1, 1)
        names = ("uid", "update", "group", "member", "return", "advantage")
        columns = (["a", "b"], [0, 0], [1, 1], [0, 1], [0.0, 1.0], [-1.0, 1.0])
        writer.append("advantages", dict(zip(names, columns, strict=True)))
        with pytest.raises(BadRecord, match="advantages/uid"):
            writer.append("advantages", {"update": [0]})
        with pytest.raises(BadRecord, match="one of policies, groups"):
            writer.append("episodes", {})
    with TraceReader(tmp_path / "a.h5") as trace:
        assert trace.policies()["policy_version"].tolist() == [0, 1]
        assert trace.policies()["path"].tolist() == ["x", ""]
        assert trace.table("advantages", "advantage")["advantage"].tolist() == [-1.0, 1.0]
        assert trace.table("groups")["accepted"].tolist() == []


def test_site_names_are_different(build, tmp_path):
    with pytest.raises(BadRecord, match="sites: expected different names"):
        TraceWriter(tmp_path / "a.h5", build.header(), build.sites * 2)
    assert list(tmp_path.iterdir()) == []

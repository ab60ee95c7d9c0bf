import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces import collection, open_traces
from traces.errors import NoFilesMatch, NotATrace, UnknownName, UserError
from traces.reader import TraceReader
from traces.shards import Rotation, ShardedWriter
from traces.writer import TraceWriter

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "tui" / "recorded" / "traces"
SITE = "vlm.1.ffn_act"


def write_shards(build, path, n_episodes=5, size=2, **changes):
    """A recording of episodes with 4, 5, 6, ... steps, `size` episodes a shard."""
    with ShardedWriter(
        path,
        build.header(**changes),
        build.sites,
        rotation=Rotation(episodes=size),
        object_names=build.object_names,
        cameras=("agentview", "wrist"),
        keep_sim_state=True,
    ) as writer:
        writer.write_policy(policy_version=0, update=0, sha256="00" * 32, path="weights")
        for number in range(n_episodes):
            writer.write_episode(build.record(number, n_steps=4 + number))
    return writer.paths


@pytest.fixture
def shards(build, tmp_path):
    return write_shards(build, tmp_path / "a.h5")


def test_what_a_shard_says_of_itself_is_what_it_says_when_it_is_opened_alone(build, tmp_path):
    """The header is read once a recording, `shard` and `created_utc` from every file."""
    first = write_shards(build, tmp_path / "a.h5")
    other = write_shards(build, tmp_path / "b.h5", run_id="another", intervention=None)
    known = {}
    for path in [*first, *other]:
        with TraceReader(path, known) as one, TraceReader(path) as alone:
            assert one.header == alone.header
    assert len(known) == 2


def test_shards_read_like_one_file(build, tmp_path):
    """Every column, pointer and activation is what one file with all episodes has."""
    write_shards(build, tmp_path / "shards" / "a.h5")
    whole = build.trace(tmp_path / "whole.h5", numbers=range(5))
    with open_traces(tmp_path / "shards") as traces, TraceReader(whole) as one:
        assert len(traces.paths) == 3
        assert (traces.n_episodes, traces.n_steps) == (one.n_episodes, one.n_steps)
        assert traces.n_decisions == one.n_decisions
        for table in ("episodes", "steps", "decisions", "objects"):
            found, expected = getattr(traces, table)(), getattr(one, table)()
            assert found["file"].dtype == np.int32
            assert list(found)[-len(expected) :] == list(expected)
            for name, values in expected.items():
                np.testing.assert_array_equal(found[name], values)
        assert traces.episodes("uid")["file"].tolist() == [0, 0, 1, 1, 2]
        assert traces.episodes("uid")["recording"].tolist() == [0] * 5
        policies = traces.table("policies", "policy_version")
        assert policies["policy_version"].tolist() == [0]
        assert set(traces.sites()) == set(one.sites())
        lazy = traces.activation(SITE)
        np.testing.assert_array_equal(lazy, one.activation(SITE))
        np.testing.assert_array_equal(lazy.decisions, one.activation_decisions(SITE))
        for a, b in zip(traces.activation_stats(SITE), one.activation_stats(SITE), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_chosen_episodes_come_in_the_order_given(build, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "chosen" / "a.h5"
    if not path.exists():
        write_shards(build, path)
    rows = st.integers(0, 4)
    chosen = data.draw(
        rows
        | st.lists(rows, max_size=6).map(lambda r: np.array(r, int))
        | st.lists(st.booleans(), min_size=5, max_size=5).map(np.array)
        | st.builds(slice, rows | st.none(), rows | st.none(), st.sampled_from([None, 1, 2, -1]))
    )
    with open_traces(path) as traces:
        steps = traces.steps("episode", "t", "ee_pos", "decision")
        decisions = traces.decisions("episode", "t", "tokens")
        episodes = np.atleast_1d(np.arange(5)[chosen])
        for found, whole in (
            (traces.steps(*list(steps)[1:], episode=chosen), steps),
            (traces.decisions(*list(decisions)[1:], episode=chosen), decisions),
        ):
            for name, values in whole.items():
                parts = [values[whole["episode"] == e] for e in episodes]
                expected = np.concatenate(parts) if parts else values[:0]
                np.testing.assert_array_equal(found[name], expected)
        objects = traces.objects(episode=chosen)
        steps_of = [np.flatnonzero(steps["episode"] == e) for e in episodes]
        expected = np.repeat(np.concatenate(steps_of) if len(episodes) else [], 3)
        np.testing.assert_array_equal(objects["step"], expected)


index = st.integers(-8, 7)
rows_of = (
    index
    | st.builds(slice, st.none() | index, st.none() | index, st.sampled_from([None, 1, 2, 3, -1]))
    | st.lists(index, max_size=9).map(lambda i: np.array(i, int))
    | st.lists(st.booleans(), min_size=8, max_size=8).map(np.array)
)


@settings(max_examples=50, deadline=None)
@given(rows=rows_of, units=st.none() | st.sampled_from([3, slice(2, 9), slice(None, None, 5)]))
def test_a_lazy_slice_is_the_slice_of_all(build, tmp_path_factory, rows, units):
    path = tmp_path_factory.getbasetemp() / "lazy" / "a.h5"
    if not path.exists():
        write_shards(build, path, n_episodes=3, size=1)
    with open_traces(path) as traces:
        lazy = traces.activation(SITE)
        whole = np.asarray(lazy)
        assert lazy.shape == whole.shape == (8, 16)
        assert (len(lazy), lazy.ndim, lazy.dtype) == (8, 2, np.float16)
        wanted = rows if units is None else (rows, units)
        np.testing.assert_array_equal(lazy[wanted], whole[wanted])


def test_a_lazy_slice_reads_its_rows_only(shards, monkeypatch):
    read = []
    whole = TraceReader.activation

    def counted(self, site, rows=slice(None), **options):
        values = whole(self, site, rows, **options)
        read.append((self.path, len(values)))
        return values

    monkeypatch.setattr(TraceReader, "activation", counted)
    with open_traces(shards[0]) as traces:
        lazy = traces.activation(SITE)
        assert read == []
        lazy[1:3], lazy[-1]
        assert read == [(shards[0], 2), (shards[2], 1)]
        assert "(16, 16) float16, 3 files" in repr(lazy)
        with pytest.raises(IndexError):
            lazy[16]


def test_sites_that_only_some_files_have(build, tmp_path):
    build.trace(tmp_path / "a.h5")
    record = build.record(0)
    record.activations = {SITE: record.activations[SITE]}
    record.objects = record.frames = record.sim_state = None
    del record.decisions["chain"]
    with TraceWriter(tmp_path / "b.h5", build.header(), build.sites[:1], keep_chain=False) as one:
        one.write_episode(record)
    with open_traces(tmp_path) as traces:
        assert [site.name for site in traces.sites()] == ["expert.0.ffn_act", SITE]
        assert len(traces.activation(SITE)) == 11
        only = traces.activation("expert.0.ffn_act")
        assert (only.files, len(only)) == ((0,), 8)
        assert "chain" not in traces.decisions()
        assert len(traces.objects()["step"]) == 3 * 15
        with pytest.raises(UnknownName, match="chain"):
            traces.decisions("chain")
        with pytest.raises(UnknownName, match=r"did you mean vlm\.1\.ffn_act"):
            traces.activation("vlm.1.ffn")


def test_columns_are_ready_for_polars(shards):
    with open_traces(shards[0]) as traces:
        frame = pl.DataFrame(traces.episodes("uid", "success"))
        assert frame.schema == {
            "file": pl.Int32,
            "recording": pl.Int32,
            "uid": pl.String,
            "success": pl.Boolean,
        }
        steps = pl.DataFrame(traces.steps("episode", "ee_pos", "contact"))
        assert steps["ee_pos"].dtype == pl.Array(pl.Float64, 3)
        lengths = steps.group_by("episode").len().sort("episode")["len"]
        assert lengths.to_list() == traces.episodes("n_steps")["n_steps"].tolist()


def test_few_files_are_open_at_a_time(build, tmp_path, monkeypatch):
    monkeypatch.setattr(collection, "OPEN_FILES", 2)
    write_shards(build, tmp_path / "a.h5", n_episodes=6, size=1)

    def n_open():
        links = [fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
        return sum(str(link).startswith(str(tmp_path)) for link in links)

    with open_traces(tmp_path) as traces:
        assert n_open() <= 2
        traces.episodes("uid")
        lazy = traces.activation(SITE)
        lazy[::3]
        assert 0 < n_open() <= 2
    assert n_open() == 0
    assert len(lazy[0]) == 16  # opens the file again
    traces.close()
    assert n_open() == 0


def test_the_plain_name_stands_for_all_closed_shards(build, tmp_path, shards):
    other = write_shards(build, tmp_path / "b.h5", n_episodes=2, size=1)
    other[0].unlink()
    shutil.copy(build.trace(tmp_path / "c.h5"), other[0])  # another recording under this name
    with open_traces(shards[0]) as traces:
        assert traces.paths == tuple(shards)
        (recording,) = traces.recordings()
        assert recording.paths == tuple(shards)
        assert (recording.files, recording.episodes) == ((0, 1, 2), slice(0, 5))
        assert (recording.missing, recording.partial, traces.notes) == ((), False, ())
    with open_traces(shards[1]) as traces:
        assert traces.paths == (shards[1],)
    with open_traces(other[0]) as traces:
        assert traces.paths == (other[0],)


def test_several_recordings_keep_their_shards_together(build, tmp_path):
    b = write_shards(build, tmp_path / "b.h5", run_id="two")
    a = write_shards(build, tmp_path / "z" / "a.h5", run_id="one")
    single = build.trace(tmp_path / "c.h5")
    with open_traces(*a[::-1], *b, single) as traces:
        assert traces.paths == (*b, single, *a)
        recordings = traces.recordings()
        assert [r.header.run_id for r in recordings][::2] == ["two", "one"]
        assert [r.episodes for r in recordings] == [slice(0, 5), slice(5, 8), slice(8, 13)]
        assert traces.episodes("uid")["recording"].tolist() == [0] * 5 + [1] * 3 + [2] * 5
        assert traces.table("policies")["file"].tolist() == [2, 3, 6]


def test_what_is_not_there_is_said(build, tmp_path, shards):
    shards[1].unlink()
    partial = shutil.copy(shards[0], tmp_path / "a.s0003.h5.partial")
    copy = shutil.copy(shards[0], tmp_path / "copy.h5")
    again = write_shards(build, tmp_path / "b.h5", n_episodes=0)
    assert len(again) == 1
    for named in ([tmp_path], [shards[0], copy, again[0]]):
        with open_traces(*named) as traces:
            assert traces.notes == (
                f"{partial} is unfinished and was not read; name it in full to count it",
                f"{copy} holds the same shard as {shards[0]} and was left out",
                f"{shards[2]} is not the whole recording: no shard 1",
            )
            assert traces.recordings()[0].missing == (1,)
            assert traces.n_episodes == 3


def test_what_is_unfinished_counts_when_it_is_named(build, tmp_path):
    writer = build.writer(tmp_path / "a.h5")
    writer.write_episode(build.record(0))
    partial = shutil.copy(writer.partial, tmp_path / "left.h5.partial")
    writer.close()
    with open_traces(tmp_path / "a.h5", partial) as traces:
        assert traces.n_episodes == 2
        assert [recording.partial for recording in traces.recordings()] == [False, True]
        assert f"{partial} is unfinished: 1 complete episode in it" in traces.notes


def test_sessions_are_said(build, tmp_path):
    build.trace(tmp_path / "a.h5", numbers=(0, 1))
    with build.writer(tmp_path / "b.h5") as writer:
        for number in (1, 2):
            record = build.record(number)
            record.episode["session"] = 1
            writer.write_episode(record)
    with open_traces(tmp_path) as traces:
        assert traces.notes == (
            f"run {build.header().run_id} has episodes of session 0, 1; 1 episode recorded again "
            "under the same uid: the one of the largest session counts",
        )


def test_what_cannot_be_read_together_is_said(build, tmp_path):
    build.trace(tmp_path / "a.h5")
    header = build.header(K=2)
    record = build.record(0)
    record.activations = {SITE: np.zeros((3, 4))}
    record.decisions["noise_std"] = record.decisions["noise_std"][:, :2]
    record.decisions["chain"] = record.decisions["chain"][:, :3]
    record.objects = record.frames = record.sim_state = None
    site = build.sites[0].__class__(**vars(build.sites[0]) | {"shape": (4,)})
    with TraceWriter(tmp_path / "b.h5", header, [site]) as writer:
        writer.write_episode(record)
    with open_traces(tmp_path) as traces:
        assert len(traces.decisions("t")["t"]) == 11
        with pytest.raises(UserError, match="decisions/noise_std has rows of different shapes"):
            traces.decisions("noise_std")
        with pytest.raises(UserError, match=f"the site {SITE} has different shapes"):
            traces.activation(SITE)


def test_what_is_no_trace_is_refused(build, tmp_path):
    with pytest.raises(NoFilesMatch):
        open_traces(tmp_path)
    with pytest.raises(NoFilesMatch):
        open_traces()
    path = build.trace(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["episodes/success"].resize(2, axis=0)
    with open_traces(path) as traces:
        assert traces.episodes("uid")["file"].tolist() == [0, 0, 0]
        with pytest.raises(NotATrace, match="episodes/success ends before row 3"):
            traces.episodes("uid", "success")
    (tmp_path / "b.h5").write_bytes(b"no")
    with pytest.raises(NotATrace, match=r"b\.h5"):
        open_traces(tmp_path)


def test_the_examples_of_the_docs_run(tmp_path, monkeypatch, capsys):
    shutil.copytree(RECORDED, tmp_path / "traces")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "reading-traces.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```\n+(?:```text\n(.*?)```)?", text, re.DOTALL)
    assert len(examples) >= 4
    names = {}
    for code, expected in examples:
        exec(compile(code, "docs/reading-traces.md", "exec"), names)
        assert capsys.readouterr().out == expected
    assert [path.name for path in tmp_path.iterdir()] == ["traces"]

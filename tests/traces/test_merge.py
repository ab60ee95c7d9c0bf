from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces.check import check
from traces.errors import DifferentTraces, FileExists, NotATrace
from traces.intervention import Intervention, Site
from traces.merge import merge
from traces.reader import TraceReader
from traces.shards import Rotation, ShardedWriter

POINTERS = {"first_step", "first_decision", "episode", "decision", "step"}


@pytest.fixture(scope="module")
def build():
    """The builders of conftest.py; a module's property tests need them for longer than a test."""
    import runpy
    import types
    from pathlib import Path

    names = runpy.run_path(str(Path(__file__).parent / "conftest.py"))
    return types.SimpleNamespace(
        trace=names["write_trace"],
        writer=names["make_writer"],
        record=names["make_record"],
        header=names["make_header"],
        sites=names["SITES"],
        object_names=names["OBJECT_NAMES"],
    )


def episode(trace, row):
    """All values of one episode, without the rows that other tables have."""
    row_of = {name: values[row] for name, values in trace.episodes().items()}
    tables = {"episodes": row_of, "steps": trace.steps(episode=row)}
    tables |= {"decisions": trace.decisions(episode=row), "objects": trace.objects(episode=row)}
    found = {
        f"{table}/{name}": values
        for table, columns in tables.items()
        for name, values in columns.items()
        if name not in POINTERS
    }
    for site in trace.sites():
        found[site.name] = trace.activation(site.name, episode=row)
        at = trace.activation_decisions(site.name, episode=row) - trace.decision_span(row)[0]
        found[f"{site.name}/decision"] = at
    for camera in trace.cameras():
        at, pictures = trace.frames(camera, episode=row)
        found[camera] = at - trace.step_span(row)[0]
        found[f"{camera}/pictures"] = np.array([picture.hex() for picture in pictures])
    at, states = trace.sim_states(episode=row)
    found["sim_state"] = np.concatenate([at - trace.step_span(row)[0], *states])
    return found


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@settings(max_examples=12, deadline=None)
@given(
    files=st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=2, max_size=4),
    replan=st.integers(1, 3),
)
def test_a_merge_has_every_episode_as_it_was(build, tmp_path_factory, files, replan):
    folder = tmp_path_factory.mktemp("merge")
    paths, number = [], 0
    for n, lengths in enumerate(files):
        paths.append(folder / f"{n}.h5")
        created = f"2026-01-01T00:00:{n:02d}Z"
        with build.writer(paths[-1], created_utc=created) as writer:
            writer.write_policy(0, 0, "00" * 32, "weights")
            for n_steps in lengths:
                record = build.record(number, n_steps, replan)
                record.episode["task_id"] = 0
                writer.write_episode(record)
                number += 1
    tasks = {bool(lengths) for lengths in files}
    out = folder / "out.h5"
    if tasks == {True, False}:  # a file without episodes is of no task
        with pytest.raises(DifferentTraces, match="the task differs"):
            merge(paths, out)
        return
    before = [path.read_bytes() for path in paths]
    done = merge(paths, out)
    assert [path.read_bytes() for path in paths] == before
    assert (done.path, done.files, done.episodes, done.repeated) == (out, len(paths), number, 0)
    assert not [finding for finding in check(out) if finding.level == "error"]
    with TraceReader(out) as new:
        assert new.n_episodes == number
        assert new.table("policies")["policy_version"].tolist() == [0]
        row = 0
        for path in paths:
            with TraceReader(path) as old:
                for i in range(old.n_episodes):
                    same(episode(new, row), episode(old, i))
                    row += 1


def test_shards_become_one_file(build, tmp_path):
    header, rotation = build.header(), Rotation(episodes=2)
    options = {"object_names": build.object_names, "cameras": ("agentview", "wrist")}
    options["keep_sim_state"] = True
    path = tmp_path / "a.h5"
    with ShardedWriter(path, header, build.sites, rotation=rotation, **options) as writer:
        writer.write_policy(0, 0, "00" * 32, "weights")
        for number in range(5):  # of two tasks, which are one recording nevertheless
            writer.write_episode(build.record(number))
            writer.append("updates", {**update(number)})
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 3
    done = merge(list(reversed(paths)), tmp_path / "out.h5")
    assert (done.files, done.episodes) == (3, 5)
    assert check(done.path) == []
    with TraceReader(done.path) as new:
        assert (new.header.recording, new.header.shard) == ("", 0)
        assert [m["file"] for m in new.header.config["merged"]] == [p.name for p in paths]
        assert new.table("updates")["update"].tolist() == [0, 1, 2, 3, 4]
        assert new.episodes("member")["member"].tolist() == [0, 1, 2, 3, 4]


def update(number):
    numbers = ("update", "policy_version", "n_episodes", "n_decisions", "n_groups")
    return {name: [number] for name in (*numbers, "n_groups_accepted")}


def test_the_newest_session_of_an_episode_stays(build, tmp_path):
    paths = []
    for session, n_steps in ((1, 7), (0, 4)):
        paths.append(tmp_path / f"{session}.h5")
        with build.writer(paths[-1], created_utc=f"2026-01-0{3 - session}T00:00:00Z") as writer:
            writer.write_policy(0, 0, "00" * 32, "weights")
            record = build.record(0, n_steps)
            record.episode["session"] = session
            writer.write_episode(record)
    done = merge(paths, tmp_path / "out.h5")
    assert (done.episodes, done.repeated) == (1, 1)
    with TraceReader(done.path) as new, TraceReader(paths[0]) as old:
        same(episode(new, 0), episode(old, 0))
    assert check(done.path) == []


def test_equal_rows_of_side_tables_stay_once(build, tmp_path):
    for name in ("a.h5", "b.h5"):
        with build.writer(tmp_path / name) as writer:
            writer.write_policy(0, 0, "00" * 32, "weights")
            writer.append("updates", update(1))
            writer.append("updates", update(2 if name == "a.h5" else 3))
    done = merge([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "out.h5")
    with TraceReader(done.path) as new:
        assert new.table("updates")["update"].tolist() == [1, 2, 3]


OTHER = Intervention("fast", "overwrite", (Site("vlm", 1, (3, 5)),), 4.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"intervention": None}, 'the attribute intervention differs, "none" there and "fast'),
        ({"intervention": OTHER}, "the attribute intervention differs"),
        ({"n_action_steps": 1}, "the attribute n_action_steps differs, 1 there and 2 here"),
        ({"likelihood": {"name": "ode"}}, "the attribute likelihood differs"),
        ({"suite": {"name": "libero"}}, "the attribute suite differs"),
    ],
)
def test_another_condition_or_setting_is_refused(build, tmp_path, changes, said):
    a = build.trace(tmp_path / "a.h5", numbers=(0,))
    b = build.trace(tmp_path / "b.h5", numbers=(2,), **changes)
    with pytest.raises(DifferentTraces) as refused:
        merge([a, b], tmp_path / "out.h5")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_other_provenance_is_no_other_condition(build, tmp_path):
    same_act = replace(build.header().intervention, provenance={"seed_neuron": 3})
    a = build.trace(tmp_path / "a.h5", numbers=(0,))
    b = build.trace(tmp_path / "b.h5", numbers=(2,), intervention=same_act)
    assert merge([a, b], tmp_path / "out.h5").episodes == 2


def test_another_task_and_other_weights_are_refused(build, tmp_path):
    a = build.trace(tmp_path / "a.h5", numbers=(0,))
    b = build.trace(tmp_path / "b.h5", numbers=(1,))
    with pytest.raises(DifferentTraces, match="the task differs"):
        merge([a, b], tmp_path / "out.h5")
    b = build.trace(tmp_path / "c.h5", numbers=(2,))
    with h5py.File(b, "r+", locking=False) as file:
        file["policies/sha256"][0] = b"11" * 32
    with pytest.raises(DifferentTraces, match="policy version 0 differs"):
        merge([a, b], tmp_path / "out.h5")


def test_other_sites_and_tables_are_refused(build, tmp_path):
    a = build.trace(tmp_path / "a.h5", numbers=(0,))
    for number, (place, said) in enumerate(
        [
            ("activations/vlm.1.ffn_act", r"recorded \(sites\) differs"),
            ("decisions/chain", r"recorded \(chain\) differs, False there and True here"),
            ("frames/wrist", r"recorded \(cameras\) differs"),
            ("objects", r"recorded \(object names\) differs"),
        ]
    ):
        b = build.trace(tmp_path / f"b{number}.h5", numbers=(2,))
        with h5py.File(b, "r+", locking=False) as file:
            del file[place]
        with pytest.raises(DifferentTraces, match=said):
            merge([a, b], tmp_path / "out.h5")


def test_a_merge_overwrites_nothing_and_leaves_nothing(build, tmp_path):
    a = build.trace(tmp_path / "a.h5", numbers=(0,))
    b = build.trace(tmp_path / "b.h5", numbers=(2,))
    with pytest.raises(FileExists):
        merge([a, b], b)
    with h5py.File(b, "r+", locking=False) as file:
        file["steps/decision"][1] = 99
    with pytest.raises(NotATrace, match=r"b\.h5 is not a readable trace.*vla-trace repair"):
        merge([a, b], tmp_path / "out.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "b.h5"]

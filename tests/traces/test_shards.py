from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces import shards
from traces.errors import BadRecord, DiskFull, FileExists, TextTooLong
from traces.reader import TraceReader
from traces.shards import Rotation, ShardedWriter, first_shard, shard_path, siblings


def sharded(build, path, rotation=None, **options):
    """A writer of everything that `build.writer` writes."""
    return ShardedWriter(
        path,
        build.header(),
        build.sites,
        rotation=rotation,
        object_names=build.object_names,
        cameras=("agentview", "wrist"),
        keep_sim_state=True,
        **options,
    )


def joined(paths):
    """Every column of some files, one after the other; what points to rows is left out."""
    found = {}
    for path in paths:
        with TraceReader(path) as trace:
            tables = {
                "episodes": trace.episodes(),
                "steps": trace.steps(),
                "decisions": trace.decisions(),
                "objects": trace.objects(),
                "activations": {site.name: trace.activation(site.name) for site in trace.sites()},
                "frames": {"agentview": np.array(trace.frames("agentview")[1], object)},
            }
        for table, columns in tables.items():
            for name, values in columns.items():
                if name in ("episode", "decision", "step", "first_step", "first_decision"):
                    continue
                found.setdefault((table, name), []).append(values)
    return {key: np.concatenate(parts) for key, parts in found.items()}


@settings(max_examples=10, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 7), max_size=6),
    episodes=st.none() | st.integers(1, 3),
    n_bytes=st.none() | st.sampled_from([1, 1_500_000]),
)
def test_shards_hold_what_one_file_would(build, tmp_path_factory, lengths, episodes, n_bytes):
    folder = tmp_path_factory.mktemp("shards")
    records = [build.record(number, n_steps=n) for number, n in enumerate(lengths)]
    told = []
    with (
        build.writer(folder / "one.h5") as one,
        sharded(build, folder / "many.h5", Rotation(episodes, n_bytes), closed=told.append) as many,
    ):
        for writer in (one, many):
            writer.write_policy(0, 0, sha256="aa", path="weights")
            for record in records:
                writer.write_episode(record)
    paths = many.close()
    assert paths == [shard_path(folder / "many.h5", i) for i in range(len(paths))]
    assert sorted(folder.iterdir()) == sorted([folder / "one.h5", *paths])
    assert [(shard.number, shard.path) for shard in told] == list(enumerate(paths))
    assert sum(shard.episodes for shard in told) == len(lengths)
    assert [shard.bytes for shard in told] == [path.stat().st_size for path in paths]
    if episodes or n_bytes == 1:
        assert len(paths) == max(1, -(-len(lengths) // (1 if n_bytes == 1 else episodes)))
    expected, found = joined([folder / "one.h5"]), joined(paths)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values)


def test_every_shard_is_readable_on_its_own(build, tmp_path):
    with sharded(build, tmp_path / "a.h5", Rotation(episodes=2)) as writer:
        writer.write_policy(0, 0, sha256="aa")
        for number in range(3):
            writer.write_episode(build.record(number))
        writer.write_policy(1, 7, sha256="bb")
        for number in range(3, 6):
            writer.write_episode(build.record(number))
    headers = []
    for path, n_episodes, policies in zip(writer.paths, (2, 2, 2), (1, 2, 2), strict=True):
        with TraceReader(path) as trace:
            headers.append(trace.header)
            assert trace.n_episodes == n_episodes
            assert trace.policies()["policy_version"].tolist() == list(range(policies))
            assert trace.episodes("first_step")["first_step"].tolist() == [0, 6]
    assert [header.shard for header in headers] == [0, 1, 2]
    assert len({header.recording for header in headers}) == 1
    assert len(headers[0].recording) == 16
    other = sharded(build, tmp_path / "b.h5")
    (path,) = other.close()
    with TraceReader(path) as trace:
        assert trace.header.recording != headers[0].recording


def test_a_shard_is_closed_as_soon_as_it_is_full(build, tmp_path):
    told = []
    with sharded(build, tmp_path / "a.h5", Rotation(episodes=1), closed=told.append) as writer:
        for number in range(2):
            writer.write_episode(build.record(number))
            assert [shard.number for shard in told] == list(range(number + 1))
            with TraceReader(told[-1].path) as trace:
                assert trace.n_episodes == 1
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "a.s0001.h5"]


def test_time_closes_a_shard(build, tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(shards, "time", clock)
    with sharded(build, tmp_path / "a.h5", Rotation(seconds=60)) as writer:
        for number, now in enumerate((0, 59, 61, 200, 219, 260)):
            clock.now = now
            writer.write_episode(build.record(number))
    assert [len_of(path) for path in writer.paths] == [3, 3]


def len_of(path):
    with TraceReader(path) as trace:
        return trace.n_episodes


def test_an_exception_leaves_closed_shards_and_one_partial(build, tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        sharded(build, tmp_path / "a.h5", Rotation(episodes=2)) as writer,
    ):
        for number in range(3):
            writer.write_episode(build.record(number))
        raise KeyboardInterrupt
    assert [path.name for path in writer.paths] == ["a.h5", "a.s0001.h5.partial"]
    assert [len_of(path) for path in writer.paths] == [2, 1]


def test_a_refused_record_and_a_full_disk_harm_no_shard(build, tmp_path, monkeypatch):
    with sharded(build, tmp_path / "a.h5", Rotation(episodes=1)) as writer:
        writer.write_policy(0, 0)
        writer.write_episode(build.record(0))
        bad = build.record(1)
        bad.episode["instruction"] = "x" * 999
        with pytest.raises(TextTooLong):
            writer.write_episode(bad)
        writer.write_episode(build.record(1))
        for free in (0, 64 * 2**20 + 100):  # no room for a file; none for its first row
            with monkeypatch.context() as patch, pytest.raises(DiskFull):
                full = Mock(return_value=SimpleNamespace(free=free))
                patch.setattr("traces.writer.shutil.disk_usage", full)
                writer.write_episode(build.record(2))
            assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "a.s0001.h5"]
        writer.write_episode(build.record(2))
    assert [len_of(path) for path in writer.paths] == [1, 1, 1]
    with pytest.raises(BadRecord, match="expected a recording that goes on"):
        writer.write_episode(build.record(3))


def test_a_name_is_taken_by_any_shard_of_it(build, tmp_path):
    for taken in ("a.h5", "a.h5.partial", "a.s0001.h5", "a.s0012.h5.partial"):
        (tmp_path / taken).touch()
        with pytest.raises(FileExists, match=taken):
            sharded(build, tmp_path / "a.h5")
        assert [path.name for path in tmp_path.iterdir()] == [taken]
        (tmp_path / taken).unlink()
    (tmp_path / "ab.s0001.h5").touch()
    sharded(build, tmp_path / "a.h5").close()


@given(
    stem=st.text("ab.[]*?s01-", min_size=1, max_size=9).filter(
        lambda text: text.strip(".") and not shards.SHARD.fullmatch(text)
    ),
    number=st.integers(0, 12_000),
)
def test_names_of_shards_lead_back_to_the_first(tmp_path_factory, stem, number):
    folder = tmp_path_factory.mktemp("names")
    path = folder / f"{stem}.h5"
    shard = shard_path(path, number)
    assert first_shard(shard) == path
    shard.touch()
    assert siblings(path) == ([shard] if number else [])


@pytest.mark.parametrize(
    "wrong", [{"episodes": 0}, {"bytes": 0}, {"seconds": -1.0}, {"seconds": float("nan")}]
)
def test_a_rotation_has_positive_limits(wrong):
    (name,) = wrong
    with pytest.raises(BadRecord, match=f"rotation by {name}: expected at least"):
        Rotation(**wrong)

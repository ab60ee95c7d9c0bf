import pytest

from traces.check import check
from traces.errors import FileExists, UnknownName
from traces.prune import prune
from traces.reader import TraceReader


@pytest.fixture
def path(build, tmp_path):
    return build.trace(tmp_path / "a.h5")


def test_what_is_dropped_is_gone_and_the_rest_is_there(path, tmp_path):
    before = path.read_bytes()
    out = tmp_path / "b.h5"
    done = prune(path, out, ["vlm.*", "frames", "chain", "sim_state"])
    assert path.read_bytes() == before
    assert check(out) == []
    assert done.dropped == ("chain", "frames", "sim_state", "vlm.1.ffn_act")
    assert (done.bytes_before, done.bytes_after) == (len(before), out.stat().st_size)
    assert done.bytes_after < done.bytes_before
    with TraceReader(path) as old, TraceReader(out) as new:
        assert [site.name for site in new.sites()] == ["expert.0.ffn_act"]
        assert (new.cameras(), new.sim_states()[1]) == ([], [])
        assert "chain" not in new.decisions()
        a, b = old.steps(), new.steps()
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].tobytes() == b[name].tobytes()
        whole = old.activation("expert.0.ffn_act")
        assert whole.tobytes() == new.activation("expert.0.ffn_act").tobytes()
        assert old.objects()["pos"].tobytes() == new.objects()["pos"].tobytes()


@pytest.mark.parametrize("part", ["activations", "objects"])
def test_other_parts(path, tmp_path, part):
    prune(path, tmp_path / "b.h5", [part])
    with TraceReader(tmp_path / "b.h5") as new:
        assert (new.sites() == []) == (part == "activations")
        assert new.has_objects == (part == "activations")
    assert check(tmp_path / "b.h5") == []


def test_some_episodes_only(path, tmp_path):
    done = prune(path, tmp_path / "b.h5", episodes=[0, 2])
    assert (done.episodes, done.dropped) == (2, ())
    with TraceReader(path) as old, TraceReader(tmp_path / "b.h5") as new:
        assert new.episodes("uid")["uid"].tolist() == old.episodes("uid")["uid"][[0, 2]].tolist()
        assert new.steps("t", episode=1)["t"].tolist() == old.steps("t", episode=2)["t"].tolist()
    assert check(tmp_path / "b.h5") == []


def test_what_is_not_there_is_refused_and_nothing_is_written(path, tmp_path):
    out = tmp_path / "b.h5"
    with pytest.raises(UnknownName, match=r"unknown part 'vlm\.7'; .*vlm\.1\.ffn_act"):
        prune(path, out, ["vlm.7"])
    with pytest.raises(UnknownName, match="unknown episode '3'; available: 0 to 2"):
        prune(path, out, episodes=[1, 3])
    with pytest.raises(UnknownName, match="unknown part 'chain'"):
        prune(path, out, ["chain", "chain"])
    with pytest.raises(FileExists):
        prune(path, path, ["chain"])
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_an_unfinished_trace_can_be_pruned(build, tmp_path):
    writer = build.writer(tmp_path / "a.h5")
    writer.write_policy(0, 0)
    writer.write_episode(build.record(0))
    copy = tmp_path / "copy.h5.partial"
    copy.write_bytes(writer.partial.read_bytes())
    writer.close()
    assert prune(copy, tmp_path / "b.h5", ["frames"]).episodes == 1
    assert check(tmp_path / "b.h5") == []

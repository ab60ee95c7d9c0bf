import hashlib
import runpy
from contextlib import suppress
from itertools import compress, pairwise, product
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces.check import check
from traces.errors import FileExists, NotATrace
from traces.losses import longest_ascending
from traces.reader import TraceReader
from traces.repair import repair, repaired_path
from traces.schema import DECISIONS, EPISODES, STEPS

INDICES = {"first_step", "n_steps", "first_decision", "n_decisions", "episode", "decision"}


@pytest.fixture
def path(build, tmp_path):
    return build.trace(tmp_path / "a.h5")


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A trace of 12 episodes whose columns all have several chunks."""
    build = runpy.run_path(str(Path(__file__).parent / "conftest.py"))
    folder = tmp_path_factory.mktemp("repair")
    with pytest.MonkeyPatch.context() as patch:
        rows = {"E": 2, "T": 16, "D": 8, "R": 16, "B": 64}
        patch.setattr("traces.layout.CHUNK_ROWS", rows)
        return build["write_trace"](folder / "long.h5", numbers=range(12))


def flip(path, place, row):
    """Flip one bit in the chunk that holds a row."""
    with h5py.File(path, locking=False) as file:
        column = file[place]
        first = (row // column.chunks[0] * column.chunks[0], *(0,) * (column.ndim - 1))
        start = column.id.get_chunk_info_by_coord(first).byte_offset
    raw = bytearray(path.read_bytes())
    raw[start] ^= 4
    path.write_bytes(raw)
    return first[0], first[0] + column_rows(path, place)


def column_rows(path, place):
    with h5py.File(path, locking=False) as file:
        return file[place].chunks[0]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def equal_episodes(new, old, pairs, but=()):
    """Compare episodes (row in the new file, row in the old one), columns of `but` apart."""
    for i, j in pairs:
        a, b = new.episodes(), old.episodes()
        for field in EPISODES:
            if field.name not in INDICES and f"episodes/{field.name}" not in but:
                np.testing.assert_array_equal(a[field.name][i], b[field.name][j])
        for table, fields in (("steps", STEPS), ("decisions", DECISIONS)):
            a, b = getattr(new, table)(episode=i), getattr(old, table)(episode=j)
            for field in fields:
                if field.name not in INDICES and f"{table}/{field.name}" not in but:
                    np.testing.assert_array_equal(a[field.name], b[field.name], err_msg=field.name)
        for site in new.sites():
            place = f"activations/{site.name}"
            if place not in but:
                a, b = (t.activation(site.name, episode=e) for t, e in ((new, i), (old, j)))
                np.testing.assert_array_equal(a, b)
        if "objects" not in but:
            a, b = new.objects(episode=i), old.objects(episode=j)
            for name in ("object", "pos", "quat", "joint", "name"):
                np.testing.assert_array_equal(a[name], b[name])
        if "frames" not in but:
            assert new.frames("agentview", episode=i)[1] == old.frames("agentview", episode=j)[1]
            for x, y in zip(
                new.sim_states(episode=i)[1], old.sim_states(episode=j)[1], strict=True
            ):
                np.testing.assert_array_equal(x, y)


def left_by_a_crash(build, folder, numbers=(0, 1, 2)):
    writer = build.writer(folder / "source.h5")
    writer.write_policy(policy_version=0, update=0, sha256="00" * 32, path="weights")
    for number in numbers:
        writer.write_episode(build.record(number, n_steps=4 + number))
    copy = folder / "a.h5.partial"
    copy.write_bytes(writer.partial.read_bytes())
    writer.close()
    return copy


def test_an_unfinished_trace_becomes_a_closed_one(build, tmp_path):
    partial = left_by_a_crash(build, tmp_path)
    before = digest(partial)
    done = repair(partial)
    assert (done.path, done.episodes, done.complete, done.lost) == (tmp_path / "a.h5", 3, 3, ())
    assert digest(partial) == before
    assert check(done.path) == []
    with TraceReader(done.path) as new, TraceReader(tmp_path / "source.h5") as old:
        equal_episodes(new, old, [(0, 0), (1, 1), (2, 2)])
        assert new.header == old.header
        assert new.table("policies")["sha256"].tolist() == ["00" * 32]
        for site in build.sites:
            for a, b in zip(
                new.activation_stats(site.name), old.activation_stats(site.name), strict=True
            ):
                np.testing.assert_allclose(a, b, rtol=1e-12)


def test_rows_beyond_the_last_complete_episode_are_said(build, tmp_path):
    partial = left_by_a_crash(build, tmp_path)
    with h5py.File(tmp_path / "source.h5", "r+", locking=False) as file:
        file["episodes/uid"][2] = b""
    partial.write_bytes((tmp_path / "source.h5").read_bytes())
    done = repair(partial)
    assert (done.episodes, done.complete) == (2, 2)
    assert "steps: its last 6 rows belong to no complete episode" in done.lost
    assert check(done.path) == []


def test_a_recording_killed_before_its_first_episode_has_none(build, tmp_path):
    done = repair(left_by_a_crash(build, tmp_path, numbers=()))
    assert (done.episodes, done.complete, done.lost) == (0, 0, ())
    assert check(done.path) == []


def test_the_new_name_is_free(path, tmp_path):
    assert repaired_path(path) == tmp_path / "a-2.h5"
    assert repaired_path(tmp_path / "a.h5.partial") == tmp_path / "a-2.h5"
    assert repaired_path(tmp_path / "b.h5.partial") == tmp_path / "b.h5"
    repair(path)
    assert repair(path).path == tmp_path / "a-3.h5"
    with pytest.raises(FileExists):
        repair(path, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-2.h5", "a-3.h5", "a.h5"]


def test_a_never_closed_trace_under_a_final_name(build, tmp_path):
    partial = left_by_a_crash(build, tmp_path)
    named = partial.rename(tmp_path / "b.h5")
    done = repair(named)
    assert (done.path.name, done.episodes) == ("b-2.h5", 3)


@pytest.mark.parametrize(
    ("place", "table"),
    [
        ("episodes/uid", "episodes"),
        ("episodes/return", "episodes"),
        ("steps/action", "steps"),
        ("steps/t", "steps"),
        ("decisions/tokens", "decisions"),
        ("decisions/chain", "decisions"),
    ],
)
def test_only_the_episodes_in_a_damaged_chunk_are_lost(long, tmp_path, place, table):
    path = tmp_path / "a.h5"
    path.write_bytes(long.read_bytes())
    start, stop = flip(path, place, column_rows(path, place) + 1)
    before = digest(path)
    done = repair(path)
    assert digest(path) == before
    assert check(done.path) == []
    with TraceReader(done.path) as new, TraceReader(long) as old:
        of_row = old.decisions("episode")["episode"] if table == "decisions" else None
        of_row = old.steps("episode")["episode"] if table == "steps" else of_row
        of_row = np.arange(12) if of_row is None else of_row
        lost = set(of_row[start:stop].tolist())
        kept = [row for row in range(12) if row not in lost]
        assert 0 < len(kept) == done.episodes < done.complete == 12
        assert new.episodes("uid")["uid"].tolist() == old.episodes("uid")["uid"][kept].tolist()
        pairs = list(enumerate(kept))
        equal_episodes(new, old, pairs)
    (said,) = done.lost
    assert f"{place}: values cannot be read" in said
    assert f"{min(lost)} to {max(lost)}" in said
    assert ("prune" in said) == (place == "decisions/chain")


@pytest.mark.parametrize("place", ["steps/log_prob", "episodes/wall_s", "decisions/obs_hash"])
def test_what_may_be_unknown_becomes_unknown(build, path, place, tmp_path):
    whole = build.trace(tmp_path / "whole.h5")
    flip(path, place, 0)
    done = repair(path)
    assert done.episodes == 3
    assert done.lost[0].startswith(f"{place} is not known in rows 0 to ")
    assert check(done.path) == []
    with TraceReader(done.path) as new, TraceReader(whole) as old:
        table, name = place.split("/")
        values = getattr(new, table)(name)[name]
        assert (values == "").all() if values.dtype.kind == "U" else np.isnan(values).all()
        equal_episodes(new, old, [(0, 0), (1, 1), (2, 2)], but=(place,))


def test_log_probs_that_must_be_known_cost_their_episodes(build, tmp_path):
    path = build.trace(tmp_path / "sde.h5", likelihood={"stochastic_steps": [0]})
    flip(path, "steps/log_prob", 0)
    with pytest.raises(NotATrace, match="none of its 3 episodes can be saved: steps/log_prob"):
        repair(path)


def test_damaged_activations_cost_rows_of_their_site_only(long, tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(long.read_bytes())
    place = "activations/expert.0.ffn_act"
    start, stop = flip(path, f"{place}/values", 20)
    done = repair(path)
    assert done.episodes == 12
    (said,) = done.lost
    assert said.startswith(f"{place}: rows {start} to {stop - 1} of ")
    assert check(done.path) == []
    with TraceReader(done.path) as new, TraceReader(long) as old:
        left = np.setdiff1d(np.arange(old.n_decisions), np.arange(start, stop))
        np.testing.assert_array_equal(new.activation_decisions("expert.0.ffn_act"), left)
        whole = old.activation("expert.0.ffn_act")[left]
        np.testing.assert_array_equal(new.activation("expert.0.ffn_act"), whole)
        equal_episodes(new, old, [(0, 0), (6, 6), (11, 11)], but=(place,))


def test_damaged_pictures_cost_no_episode(build, path, tmp_path):
    whole = build.trace(tmp_path / "whole.h5")
    flip(path, "frames/agentview/data", 0)
    done = repair(path)
    assert (done.episodes, done.lost) == (3, ("frames/agentview: rows 0 to 7 of 8 left out",))
    with TraceReader(done.path) as new, TraceReader(whole) as old:
        assert new.frames("agentview")[1] == []
        assert len(new.sim_states()[1]) == 8
        equal_episodes(new, old, [(0, 0), (1, 1), (2, 2)], but=("frames",))
    assert check(done.path) == []


def test_weights_that_nobody_knows_any_more(path):
    flip(path, "policies/policy_version", 0)
    done = repair(path)
    assert done.episodes == 3
    assert "policy version 0: its weights are not known" in done.lost
    assert check(done.path) == []
    with TraceReader(done.path) as new:
        policies = new.policies()
    assert (policies["update"].tolist(), policies["sha256"].tolist()) == ([-1], [""])


@pytest.mark.parametrize(
    "place",
    [
        *("episodes/first_step", "episodes/n_decisions", "steps/episode"),
        *("activations/vlm.1.ffn_act/n", "activations/vlm.1.ffn_act/m2"),
    ],
)
def test_what_follows_from_the_rest_costs_nothing(path, place):
    flip(path, place, 0)
    done = repair(path)
    assert (done.episodes, done.lost) == (3, ())
    assert check(done.path) == []
    path.unlink()


def test_wrong_spans_are_found_again_in_the_steps(path):
    with h5py.File(path, "r+", locking=False) as file:
        file["episodes/n_steps"][1] = 4
    done = repair(path)
    assert (done.episodes, done.lost) == (3, ())
    with TraceReader(done.path) as new:
        assert new.episodes("n_steps")["n_steps"].tolist() == [4, 5, 6]


def test_rows_that_contradict_each_other_cost_their_episode(path):
    with h5py.File(path, "r+", locking=False) as file:
        file["steps/decision"][5] = 0
        file["objects/step"][40] = 99
    done = repair(path)
    assert done.episodes == 2
    assert (
        "episode 1 left out: steps/decision: values point to a decision of another" in done.lost[0]
    )
    assert done.lost[1] == "objects: row 40 of 45 left out"
    assert check(done.path) == []


def test_what_the_format_does_not_know_is_not_copied_and_said(path):
    with h5py.File(path, "r+", locking=False) as file:
        file["steps/mine"] = np.arange(15)
    assert repair(path).lost == ("steps/mine is not part of the format; not copied",)


def test_overflow_is_still_counted(build, tmp_path):
    record = build.record(0)
    record.activations["vlm.1.ffn_act"][1, :5] = 1e6
    with build.writer(tmp_path / "a.h5") as writer:
        writer.write_policy(0, 0)
        writer.write_episode(record)
    done = repair(tmp_path / "a.h5")
    with TraceReader(done.path) as new:
        assert new.activation_overflow("vlm.1.ffn_act") == 5
        assert np.isinf(new.activation("vlm.1.ffn_act")[1, :5]).all()


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda file: file.pop("steps/action"), "steps/action: the column is missing"),
        (lambda file: file.pop("steps"), "it has no table 'steps'"),
        (lambda file: file["steps/ee_pos"].attrs.__setitem__("unit", "cm"), "unit is 'cm'"),
        (lambda file: file.attrs.__setitem__("K", 9), "decisions/noise_std: has rows of shape"),
    ],
)
def test_where_nothing_can_be_saved_nothing_is_written(path, act, said):
    with h5py.File(path, "r+", locking=False) as file:
        act(file)
    with pytest.raises(NotATrace, match=said):
        repair(path)
    assert [p.name for p in path.parent.iterdir()] == ["a.h5"]


@given(st.lists(st.integers(0, 9), max_size=12), st.booleans())
def test_the_longest_ascending_part_is_kept(values, strictly):
    def ascends(part):
        return all(a < b or (a == b and not strictly) for a, b in pairwise(part))

    found = longest_ascending(np.array(values, np.int64), strictly=strictly).tolist()
    assert found == sorted(set(found))
    assert ascends([values[place] for place in found])
    longest = max(
        sum(mask) for mask in product((0, 1), repeat=len(values)) if ascends(compress(values, mask))
    )
    assert len(found) == longest


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_is_saved_is_what_was_recorded(long, tmp_path_factory, data):
    """Cut the file anywhere, or flip bits anywhere: saved or refused, never changed."""
    path = tmp_path_factory.mktemp("spoiled") / "a.h5"
    raw = bytearray(long.read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=20)):
            raw[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    before = digest(path)
    try:
        done = repair(path)
    except NotATrace:
        assert [p.name for p in path.parent.iterdir()] == ["a.h5"]
        return
    finally:
        assert digest(path) == before
    assert not [finding for finding in check(done.path) if finding.level == "error"]
    equal_to_the_recording(done, long)


def equal_to_the_recording(done, whole):
    """Compare every episode of a repaired trace with the same one of the sound trace."""
    unknown = {said.split()[0] for said in done.lost if "is not known" in said}
    unknown |= {said.split(":")[0] for said in done.lost if said.startswith("activations/")}
    unknown |= {"objects"} if any("objects" in said for said in done.lost) else set()
    unknown |= (
        {"frames"} if any(s.startswith(("frames", "sim_state")) for s in done.lost) else set()
    )
    with TraceReader(done.path) as new, TraceReader(whole) as old:
        rows = {uid: row for row, uid in enumerate(old.episodes("uid")["uid"].tolist())}
        pairs = [(i, rows[uid]) for i, uid in enumerate(new.episodes("uid")["uid"].tolist())]
        assert pairs == sorted(pairs)
        equal_episodes(new, old, pairs, but=unknown)


@pytest.fixture(scope="module")
def growing(long, tmp_path_factory):
    """The episodes of `long`, in a file that was never closed."""
    build = runpy.run_path(str(Path(__file__).parent / "conftest.py"))
    with pytest.MonkeyPatch.context() as patch:
        rows = {"E": 2, "T": 16, "D": 8, "R": 16, "B": 64}
        patch.setattr("traces.layout.CHUNK_ROWS", rows)
        writer = build["make_writer"](tmp_path_factory.mktemp("growing") / "long.h5")
    writer.write_policy(policy_version=0, update=0, sha256="00" * 32, path="weights")
    for number in range(12):
        writer.write_episode(build["make_record"](number, n_steps=4 + number))
    writer._file.close()
    return writer.partial


@settings(max_examples=10, deadline=None)
@given(share=st.floats(0.4, 1, exclude_max=True), closed=st.booleans())
def test_what_is_cut_off_is_never_zero(long, growing, tmp_path_factory, share, closed):
    """HDF5 reads zeros beyond the end of a file, and zeros have a checksum of their own."""
    whole = (long if closed else growing).read_bytes()
    path = tmp_path_factory.mktemp("cut") / ("a.h5" if closed else "a.h5.partial")
    path.write_bytes(whole[: int(share * len(whole))])
    with suppress(NotATrace, OSError), TraceReader(path) as trace, TraceReader(long) as old:
        equal_episodes(trace, old, [(i, i) for i in range(trace.n_episodes)])
    try:
        done = repair(path)
    except NotATrace as error:
        assert "none of its 12 episodes can be saved" in str(error)
        return
    assert done.lost
    equal_to_the_recording(done, long)


def test_a_cut_costs_only_what_was_behind_it(long, tmp_path):
    whole, saved = long.read_bytes(), []
    for share in (0.55, 0.7, 0.85, 0.95):
        path = tmp_path / f"{share}.h5"
        path.write_bytes(whole[: int(share * len(whole))])
        saved.append(repair(path).episodes)
    assert 0 < saved[0] < saved[1] < saved[2] < saved[3] < 12


def test_what_a_cut_spared_stays_whole(long, growing, tmp_path):
    """Where the spans of the last episodes are lost, the activations of the others are not."""
    whole = growing.read_bytes()
    path = tmp_path / "a.h5.partial"
    path.write_bytes(whole[: int(0.7 * len(whole))])
    done = repair(path)
    with TraceReader(done.path) as new, TraceReader(long) as old:
        assert 2 < new.n_episodes < 12
        for site in new.sites():
            found, whole = (t.activation(site.name, episode=slice(0, 2)) for t in (new, old))
            np.testing.assert_array_equal(found, whole)
            assert len(found)


def test_spans_that_can_be_read_hold_where_others_cannot(long, tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(long.read_bytes())
    flip(path, "episodes/first_step", 11)
    flip(path, "steps/episode", column_rows(path, "steps/episode"))
    done = repair(path)
    assert 0 < done.episodes < 12
    assert "its span is broken" in " ".join(done.lost)
    equal_to_the_recording(done, long)

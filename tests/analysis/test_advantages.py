"""Training tables from two hand-written updates."""

import h5py
import numpy as np
import polars as pl
import pytest

from analysis.advantages import GROUPS, STATES, UPDATES, VALUE, advantage_tables
from analysis.stats import wilson
from traces.errors import NotATrace, UserError


def group(number, returns, advantages=None, state=7):
    mean, std = np.mean(returns), np.std(returns, ddof=1)
    rows = {
        "group": number,
        "policy_version": 0,
        "task_id": 1,
        "init_state": state,
        "scene_seed": state,
        "n_members": len(returns),
        "n_success": int(np.sum(returns)),
        "return_mean": mean,
        "return_std": std,
        "accepted": advantages is not None,
        "reason": "" if advantages is not None else "every member had the same return",
    }
    return rows, list(zip(returns, advantages if advantages is not None else [], strict=False))


def update_file(traces, path, update, groups, log_prob=(), run_id="t", created="2026", **step):
    rows = [row | {"update": update} for row, _ in groups]
    learned = [
        {
            "uid": f"{run_id}/u{update}/g{row['group']}/m{member}",
            "update": update,
            "group": row["group"],
            "member": member,
            "return": value,
            "advantage": advantage,
        }
        for row, members in groups
        for member, (value, advantage) in enumerate(members)
    ]
    step = {
        "update": update,
        "policy_version": update + 1,
        "n_episodes": len(learned),
        "n_decisions": 10,
        "n_groups": len(rows),
        "n_groups_accepted": sum(row["accepted"] for row in rows),
    } | step
    tables = {"groups": columns(rows), "advantages": columns(learned), "updates": columns([step])}
    arm = [
        traces.episode(f"{update}-{i}", [1.0] * len(values), update=update)
        for i, values in enumerate(log_prob)
    ]
    written = traces.write(
        path,
        arm,
        kind="grpo",
        run_id=run_id,
        created_utc=created,
        sha256="",
        policy_path="",
        tables={name: rows for name, rows in tables.items() if rows},
    )
    import h5py

    with h5py.File(written, "r+", locking=False) as file:  # the builder gives decisions none
        if flat := [value for values in log_prob for value in values]:
            file["decisions/log_prob"][:] = flat
    return written


def columns(rows):
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


@pytest.fixture
def run(traces, tmp_path):
    first = [group(0, [1, 1, 1, 0], [0.5, 0.5, 0.5, -1.5], state=3), group(1, [0, 0, 0, 0])]
    second = [group(0, [1, 1, 1, 1], state=3)]
    learned = {"ess": 0.9, "ratio_mean": 0.99, "ratio_max": 1.5, "approx_kl": 0.01}
    return [
        update_file(traces, tmp_path / "u0.h5", 0, first, [[-10.0, -20.0], [-30.0]], **learned),
        update_file(traces, tmp_path / "u2.h5", 2, second, [[-26.0]]),
    ]


def test_groups(run):
    frame = advantage_tables(run).groups
    assert frame.columns == list(GROUPS)
    first, second, third = frame.to_dicts()
    assert (first["n"], first["n_success"], first["zero_variance"]) == (4, 3, False)
    assert (first["advantage_mean"], first["n_positive"], first["n_negative"]) == (0, 3, 1)
    assert first["advantage_std"] == pytest.approx(np.std([0.5] * 3 + [-1.5], ddof=1))
    assert first["positive_weight"] == 0.5
    assert first["ess_episodes"] == pytest.approx(3.0**2 / (3 * 0.25 + 2.25))
    assert (second["zero_variance"], second["n_advantages"]) == (True, 0)
    assert (second["advantage_mean"], second["ess_episodes"]) == (None, None)
    assert (third["update"], third["accepted"], third["reason"]) == (
        2,
        False,
        "every member had the same return",
    )


def test_updates(run):
    found = advantage_tables(run)
    assert found.updates.columns == list(UPDATES)
    first, second = found.updates.to_dicts()
    assert (first["n_groups"], first["n_accepted"], first["n_zero_variance"]) == (2, 1, 1)
    assert first["zero_variance_share"] == 0.5
    assert (first["zero_variance_low"], first["zero_variance_high"]) == wilson(1, 2)
    assert (first["n"], first["n_success"], first["success_rate"]) == (8, 3, 3 / 8)
    assert (first["n_advantages"], first["ess_episodes"]) == (4, 3)
    assert (first["ess_share"], first["ratio_mean"], first["approx_kl"]) == (0.9, 0.99, 0.01)
    assert (first["log_prob"], first["log_prob_drift"]) == (-20, 0)
    assert (second["log_prob"], second["log_prob_drift"]) == (-26, -6)
    assert (second["advantage_mean"], second["ratio_mean"]) == (None, None)
    assert "t update 2: no group had variance (4 episodes), so nothing was learned" in found.notes


def test_states_that_always_or_never_succeed(run):
    found = advantage_tables(run).states
    assert found.columns == list(STATES)
    assert found.select("init_state", "n_groups", "n", "n_success", "outcome").rows() == [
        (3, 2, 8, 7, "mixed"),
        (7, 1, 4, 0, "never"),
    ]
    assert found.row(1, named=True)["success_high"] == pytest.approx(wilson(0, 4)[1])


def test_the_value_curve(run):
    found = advantage_tables(run)
    assert found.value.columns == list(VALUE)
    assert found.value.drop("run_id").rows() == [
        (0, 8, 0.375, 8, 0.375, 0.375),
        (2, 4, 1.0, 12, 1.375, 7 / 12),
    ]
    assert (
        "t: 1 update before 2 kept no trace here; the cumulative value sums the 2 that did"
    ) in found.notes


def test_an_update_recorded_again_counts_once(traces, tmp_path):
    old = [group(0, [1, 0], [0.7, -0.7])]
    new = [group(0, [1, 1])]
    files = [
        update_file(traces, tmp_path / "a.h5", 0, old, created="2025"),
        update_file(traces, tmp_path / "b.h5", 0, new, created="2026"),
    ]
    for order in (files, files[::-1]):
        found = advantage_tables(order)
        assert found.groups["n_success"].to_list() == [2]
        assert found.updates["n"].to_list() == [2]


def test_a_ratio_that_was_off_is_said(traces, tmp_path):
    step = {"first_ratio_max_abs_dev": 0.03}
    groups = [group(0, [1, 0], [0.7, -0.7])]
    found = advantage_tables([update_file(traces, tmp_path / "a.h5", 0, groups, **step)])
    assert any(note.startswith("t update 0: the ratio was off by 0.03") for note in found.notes)
    assert "every initial state was drawn once, so always and never are about one group each" in (
        found.notes
    )


def test_runs_stay_apart(traces, tmp_path):
    files = [
        update_file(traces, tmp_path / f"{run}.h5", 0, [group(0, [1, 0], [0.7, -0.7])], run_id=run)
        for run in ("b", "a")
    ]
    found = advantage_tables(files)
    assert found.value.select("run_id", "value_cumulative").rows() == [("a", 0.5), ("b", 0.5)]
    again = advantage_tables(files[::-1])
    for name in ("groups", "updates", "states", "value"):
        frame = getattr(found, name)
        assert frame.equals(getattr(again, name))
        assert frame.select(pl.col(pl.Float64).is_nan().any()).row(0).count(True) == 0


def test_recordings_have_no_training(paired):
    found = advantage_tables(paired)
    assert [len(f) for f in (found.groups, found.updates, found.states, found.value)] == [0] * 4
    assert found.notes[-1].startswith("no groups in these files")


def test_more_successes_than_members_is_damage(traces, tmp_path):
    row, members = group(0, [1, 0], [0.7, -0.7])
    path = update_file(traces, tmp_path / "a.h5", 0, [(row | {"n_success": 9}, members)])
    with pytest.raises(NotATrace, match=r"a\.h5 .*n_success exceeds n_members"):
        advantage_tables([path])


def test_a_column_that_a_file_lacks_is_one_sentence(run):
    with h5py.File(run[0], "r+") as file:
        del file["updates/first_ratio_max_abs_dev"]
    with pytest.raises(UserError, match="updates/first_ratio_max_abs_dev; vla-trace check"):
        advantage_tables(run)

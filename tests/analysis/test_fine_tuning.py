"""The study's Table 1 and its like: paired where it can be, never without n."""

import polars as pl
import pytest
import scipy.stats

from analysis.fine_tuning import AGGREGATES, TASKS, fine_tuning, fine_tuning_table
from analysis.stats import paired_success, wilson
from analysis.tables import read_episodes

TUNED = {"sha256": "cd" * 32, "policy_path": "runs/a/checkpoints/000040/pretrained_model"}
STUDY_BASE = (0, 0, 3, 2, 0, 1, 0, 0)
STUDY_TUNED = (0, 0, 2, 3, 0, 0, 0, 0)
"""Successes of 5 episodes a task, Table 1 of the founding study: 15.0 % and 12.5 %."""


def write(traces, folder, name, successes, pair="p{task}-{i}", n=5, **settings):
    arm = [
        traces.episode(
            pair.format(task=task, i=i), [1.0], success=i < won, task_id=task, task_name=f"t{task}"
        )
        for task, won in enumerate(successes)
        for i in range(n)
    ]
    return traces.write(folder / f"{name}.h5", arm, **settings)


def test_the_study_unpaired(traces, tmp_path):
    """Its rollouts shared neither scene nor noise: 6 of 40 against 5 of 40 says nothing."""
    write(traces, tmp_path, "base", STUDY_BASE, pair="b{task}-{i}")
    write(traces, tmp_path, "tuned", STUDY_TUNED, pair="t{task}-{i}", **TUNED)
    tasks, aggregates = fine_tuning(read_episodes([tmp_path]))
    assert tasks.frame.columns == list(TASKS)
    assert tasks.frame["base_successes"].to_list() == list(STUDY_BASE)
    assert tasks.frame["successes"].to_list() == list(STUDY_TUNED)
    third = tasks.frame.row(2, named=True)
    assert (third["base_rate"], third["rate"], third["difference"]) == (0.6, 0.4, -0.2)
    assert (third["low"], third["high"]) == wilson(2, 5)
    assert (third["test"], third["n_pairs"]) == ("Fisher", 0)
    expected = scipy.stats.fisher_exact([[2, 3], [3, 2]]).pvalue
    assert third["p_value"] == pytest.approx(expected)
    assert third["p_holm"] == 1
    assert aggregates.is_empty()  # nothing is paired
    assert any("compared unpaired" in note for note in tasks.notes)


def test_the_study_as_if_it_had_been_paired(traces, tmp_path):
    write(traces, tmp_path, "base", STUDY_BASE)
    write(traces, tmp_path, "tuned", STUDY_TUNED, **TUNED)
    tasks, aggregates = fine_tuning(read_episodes([tmp_path]))
    third = tasks.frame.row(2, named=True)
    found = paired_success([True] * 2 + [False] * 3, [True] * 3 + [False] * 2)
    assert (third["only_policy"], third["only_base"], third["n_pairs"]) == (0, 1, 5)
    assert (third["difference"], third["p_value"]) == (found.difference, found.p_value)
    assert (third["difference_low"], third["difference_high"]) == found.ci
    assert aggregates.columns == list(AGGREGATES)
    iqm, mean, pooled = aggregates.to_dicts()
    # Shares sorted: 0 0 0 0 0 .2 .4 .6 and 0 0 0 0 0 0 .4 .6; the middle four count.
    assert (iqm["base_value"], iqm["value"]) == (pytest.approx(0.05), 0)
    assert (mean["base_value"], mean["value"]) == (pytest.approx(0.15), pytest.approx(0.125))
    assert mean["difference_low"] < -0.025 < mean["difference_high"]
    assert (pooled["statistic"], pooled["n_tasks"], pooled["n_pairs"]) == ("all episodes", 8, 40)
    assert (pooled["base_value"], pooled["value"]) == (0.15, 0.125)
    assert (pooled["base_low"], pooled["base_high"]) == pytest.approx((0.071, 0.291), abs=5e-4)
    assert (pooled["low"], pooled["high"]) == pytest.approx((0.055, 0.261), abs=5e-4)
    assert pooled["p_value"] == 1  # one pair won, two lost
    assert iqm["p_value"] is None


def test_every_note(traces, tmp_path):
    base = [traces.episode(f"p{i}", [1.0], success=True) for i in range(3)]
    tuned = [traces.episode(f"p{i}", [1.0], success=True) for i in range(2, 8)]
    other_task = [traces.episode("q", [1.0], task_id=7)]
    drawn = [traces.episode("r", [1.0])]
    traces.write(tmp_path / "b.h5", base)
    traces.write(tmp_path / "t.h5", [*tuned, *other_task], **TUNED)
    traces.write(tmp_path / "u.h5", drawn, kind="grpo", sha256="", policy_path="")
    tasks, aggregates = fine_tuning(read_episodes([tmp_path]))
    name = "pretrained_model@cdcdcdcd, baseline in tabletop task"
    for note in (
        "1 episode of training left out here: exploration noise, training scenes "
        "(--table advantages reads them)",
        f"{name} 0: 5 episodes of 6 without a partner of the base",
        f"{name} 0: 1 pair; fewer than 6 cannot reach 0.05",
        f"{name} 7: the base has no such condition in these files, so it is not compared",
    ):
        assert note in tasks.notes
    assert len(tasks.frame) == 1
    assert aggregates.is_empty()  # one task is no aggregate


def test_two_tasks_that_never_differ(traces, tmp_path):
    write(traces, tmp_path, "base", (3, 5))
    write(traces, tmp_path, "tuned", (3, 5), **TUNED)
    tasks, aggregates = fine_tuning(read_episodes([tmp_path]))
    assert aggregates["difference"].to_list() == [0, 0, 0]
    assert any(
        note.startswith("pretrained_model@cdcdcdcd: no pair differs") for note in tasks.notes
    )
    assert any("2 tasks; an interquartile mean of fewer than 4" in note for note in tasks.notes)


def test_one_policy_alone_and_no_policy(paired):
    tasks, aggregates = fine_tuning(read_episodes(paired))
    assert tasks.frame.is_empty()
    assert aggregates.is_empty()
    assert tasks.notes[-1] == (
        "smolvla-tabletop@abababab is the only policy in these files: nothing to compare it with"
    )
    assert fine_tuning_table([]).is_empty()


def test_all_failures_have_intervals(traces, tmp_path):
    write(traces, tmp_path, "base", (0,))
    write(traces, tmp_path, "tuned", (0,), **TUNED)
    (row,) = fine_tuning_table([tmp_path]).to_dicts()
    assert (row["rate"], row["low"]) == (0, 0)
    assert row["difference_low"] < 0 < row["difference_high"]
    assert row["p_value"] == 1


def test_steered_arms_are_compared_with_the_steered_base(traces, tmp_path):
    for name, settings in (("base", {}), ("tuned", TUNED)):
        for label, intervention in (("plain", None), ("fast", traces.steer())):
            won = (4,) if (name, label) == ("tuned", "fast") else (2,)
            arm = f"{name}-{label}"
            write(traces, tmp_path, arm, won, intervention=intervention, **settings)
    found = fine_tuning_table([tmp_path])
    assert dict(found.select("label", "difference").rows()) == {"baseline": 0, "fast α=8": 0.4}
    again = fine_tuning_table(sorted(tmp_path.glob("*.h5"), reverse=True))
    assert found.equals(again)
    assert found.select(pl.col(pl.Float64).is_nan().any()).row(0).count(True) == 0

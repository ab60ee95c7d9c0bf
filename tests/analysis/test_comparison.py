"""Summaries by condition: means with n and intervals, pairs, and what notes must say."""

import numpy as np
import polars as pl
import pytest

from analysis.comparison import ABOUT, SUMMARY, summarise
from analysis.motion_table import MEASURES, read_motion
from analysis.stats import bootstrap_ci, holm, paired_difference

MEED = {"meed_cm": "MEED"}
TUNED = {"sha256": "cd" * 32, "policy_path": "runs/a/checkpoints/000040/pretrained_model"}


def row_of(frame, **values):
    (row,) = frame.filter(*[pl.col(name) == value for name, value in values.items()]).to_dicts()
    return row


def test_the_numbers_are_those_of_stats(paired):
    found = summarise(read_motion(paired), MEED).frame
    assert found.columns == [*ABOUT, *SUMMARY]
    base, fast = found.to_dicts()
    values = 1 + 0.1 * np.arange(20)
    assert (base["n"], base["mean"]) == (20, pytest.approx(values.mean()))
    assert (base["mean_low"], base["mean_high"]) == pytest.approx(bootstrap_ci(values))
    assert (base["against"], base["n_pairs"], base["difference"]) == ("", 0, None)
    difference = paired_difference(values + 0.5 + 0.05 * (-1.0) ** (np.arange(20) + 1), values)
    assert (fast["against"], fast["n_pairs"]) == ("baseline", 20)
    assert fast["difference"] == pytest.approx(difference.mean)
    interval = (fast["difference_low"], fast["difference_high"])
    assert interval == pytest.approx(difference.ci, abs=1e-6)
    assert fast["p_value"] == difference.p_value
    assert fast["d_z"] == pytest.approx(difference.d_z)


def arms(traces, folder, **moved):
    """Baseline and steered, under the base policy and under a fine-tuned one."""
    files = []
    for policy, settings in (("base", {}), ("tuned", TUNED)):
        for condition, intervention in (("plain", None), ("fast", traces.steer())):
            more = moved.get(f"{policy}_{condition}", 0.0)
            arm = [traces.episode(f"p{i}", [1 + 0.1 * i + more] * 3) for i in range(8)]
            path = folder / f"{policy}-{condition}.h5"
            files.append(traces.write(path, arm, intervention, **settings))
    return files


def test_steered_and_fine_tuned_arms_have_each_their_own_comparison(traces, tmp_path):
    files = arms(traces, tmp_path, base_fast=0.5, tuned_plain=0.2, tuned_fast=1.0)
    found = summarise(read_motion(files), MEED)
    told = {
        (row["policy"].partition("@")[0], row["label"], row["against"]): row["difference"]
        for row in found.frame.to_dicts()
    }
    assert told == {
        ("smolvla-tabletop", "baseline", ""): None,
        ("smolvla-tabletop", "fast α=8", "baseline"): pytest.approx(0.5),
        ("pretrained_model", "baseline", "base"): pytest.approx(0.2),
        ("pretrained_model", "fast α=8", "baseline"): pytest.approx(0.8),
        ("pretrained_model", "fast α=8", "base"): pytest.approx(0.5),
    }
    assert found.notes[0].startswith("the base is smolvla-tabletop@abababab, the only policy")
    other = summarise(read_motion(files), MEED, base="pretrained_model").frame
    back = row_of(other, label="baseline", against="base")
    assert (back["policy"], back["difference"]) == (
        "smolvla-tabletop@abababab",
        pytest.approx(-0.2),
    )


def test_holm_runs_over_everything_but_controls(traces, tmp_path):
    rng = np.random.default_rng(0)

    def arm():
        return [traces.episode(f"p{i}", [1 + rng.random()] * 3) for i in range(8)]

    traces.write(tmp_path / "b.h5", arm())
    random = {"control": "random"}
    for layer, (name, control) in enumerate((("fast", {}), ("slow", {}), ("random 0", random))):
        steer = traces.steer(name=name, layer=layer, **control)
        traces.write(tmp_path / f"{name}.h5", arm(), steer)
    found = summarise(read_motion([tmp_path]), MEASURES)
    tested = found.frame.filter(pl.col("p_value").is_not_null())
    counted = tested.filter(pl.col("role") != "random")
    assert counted["p_holm"].to_list() == holm(counted["p_value"].to_list())
    assert tested.filter(pl.col("role") == "random")["p_holm"].null_count() == len(tested) / 3
    assert f"Holm corrects p for the {len(counted)} tests here that are no control's" in found.notes


def test_missing_things_are_sentences(traces, tmp_path):
    base = [traces.episode(f"p{i}", [1.0]) for i in range(4)]
    fast = [traces.episode(f"p{i}", [2.0 + i]) for i in range(1, 5)]
    broken = traces.episode("p9", [9.0], error="simulation diverged")
    files = [
        traces.write(tmp_path / "b.h5", [*base, broken]),
        traces.write(tmp_path / "f.h5", fast, traces.steer()),
        traces.write(tmp_path / "s.h5", fast, traces.steer(name="slow"), replan=5),
    ]
    found = summarise(read_motion(files), MEASURES)
    where = "fast α=8 in tabletop task 0"
    for note in (
        "1 episode cut short by an error left out, such as: simulation diverged",
        f"{where}: 1 episode of 4 without a partner in the baseline",
        f"{where}: 3 pairs with the baseline; fewer than 6 cannot reach 0.05",
        "slow α=8 in tabletop task 0: no baseline of its settings in these files",
    ):
        assert note in found.notes
    absent = [note for note in found.notes if note.startswith("MEED transport: no episode has it")]
    assert absent == [
        "MEED transport: no episode has it in 3 conditions, such as baseline in tabletop task 0"
    ]
    assert found.frame.filter(pl.col("measure") == "meed_transport_cm").is_empty()
    fast = row_of(found.frame, label="fast α=8", measure="meed_cm")
    assert (fast["n"], fast["n_pairs"], fast["p_value"]) == (4, 3, None)
    assert fast["difference"] == pytest.approx(np.mean([3, 4, 5]) - 1)
    assert found.frame.select(pl.col(pl.Float64).is_nan().any()).row(0).count(True) == 0


def test_another_sampler_is_no_partner_and_the_note_names_both(traces, tmp_path):
    arm = [traces.episode(f"p{i}", [1.0]) for i in range(6)]
    files = [
        traces.write(tmp_path / "b.h5", arm),
        traces.write(tmp_path / "t.h5", arm, replan=5, **TUNED),
    ]
    found = summarise(read_motion(files), MEED)
    assert found.frame["n_pairs"].to_list() == [0, 0]
    assert (
        "pretrained_model@cdcdcdcd, baseline in tabletop task 0: recorded with flow_sde, K 2, "
        "replan 5, the base with flow_sde, K 2, replan 1, so it is not compared"
    ) in found.notes


def test_one_episode_has_no_interval_and_no_variance_no_d(traces, tmp_path):
    alone = traces.write(tmp_path / "a.h5", [traces.episode("p0", [2.0])])
    (row,) = summarise(read_motion([alone]), MEED).frame.to_dicts()
    assert (row["n"], row["mean"], row["mean_low"]) == (1, pytest.approx(2), None)
    arm = [traces.episode(f"p{i}", [1.0]) for i in range(8)]
    folder = tmp_path / "same"
    traces.write(folder / "b.h5", arm)
    traces.write(folder / "f.h5", arm, traces.steer())
    row = row_of(summarise(read_motion([folder]), MEED).frame, label="fast α=8")
    assert (row["difference"], row["difference_low"], row["p_value"], row["d_z"]) == (0, 0, 1, None)


def test_files_in_any_order_give_the_same_frame_and_notes(traces, tmp_path):
    files = arms(traces, tmp_path, tuned_fast=1.0)
    one, other = (summarise(read_motion(order), MEASURES) for order in (files, files[::-1]))
    assert one.frame.equals(other.frame)
    assert one.notes == other.notes


def test_no_files_make_an_empty_frame():
    assert summarise(read_motion([]), MEED).frame.is_empty()


def test_over_tasks_each_task_counts_once(traces, tmp_path):
    """Eight episodes of task 0 and four of task 1: task means 1 and 3, differences 1 and 2."""
    base, fast = [], []
    for task, n, level, more in ((0, 8, 1.0, 1.0), (1, 4, 3.0, 2.0)):
        for i in range(n):
            pair, wobble = f"{task}-{i}", 0.1 if i % 2 else -0.1
            base.append(traces.episode(pair, [level + wobble], task_id=task))
            fast.append(traces.episode(pair, [level + more + 2 * wobble], task_id=task))
    files = [
        traces.write(tmp_path / "b.h5", base),
        traces.write(tmp_path / "f.h5", fast, traces.steer()),
    ]
    found = summarise(read_motion(files), MEED).frame.filter(pl.col("task_id").is_null())
    plain, steered = found.to_dicts()
    assert (plain["task"], plain["label"], plain["n"]) == ("all 2 tasks", "baseline", 12)
    assert plain["mean"] == pytest.approx(2)
    assert plain["mean_low"] < 2 < plain["mean_high"]
    assert (steered["n_pairs"], steered["difference"]) == (12, pytest.approx(1.5))
    assert 1.4 < steered["difference_low"] < 1.5 < steered["difference_high"] < 1.6
    assert steered["p_value"] == 2 / 2**12  # every difference has one sign
    # One standard error of the mean of task means is sqrt(sum of 0.1^2 / n) / 2 tasks.
    width = steered["difference_high"] - steered["difference_low"]
    assert width == pytest.approx(2 * 1.96 * np.sqrt(0.01 / 8 + 0.01 / 4) / 2, rel=0.15)

"""The report: hand-computed rows, honest notes, no NaN."""

import json
import math

import numpy as np
import pytest
import scipy.stats

from analysis.outcome import analyse


def test_the_two_rows_of_a_paired_recording(paired):
    base, fast = analyse(paired).conditions
    assert (base.intervention, base.alpha, base.fingerprint, base.label) == (
        None,
        None,
        None,
        "baseline",
    )
    assert (fast.intervention, fast.alpha, fast.label) == ("fast", 8.0, "fast α=8")
    assert (base.policy, base.suite, base.task_id) == ("smolvla-tabletop@abababab", "tabletop", 0)
    assert (base.episodes, base.successes, base.success_rate) == (20, 15, 0.75)
    assert (fast.episodes, fast.successes, fast.success_rate) == (20, 10, 0.5)
    wilson = scipy.stats.binomtest(15, 20).proportion_ci(method="wilson")
    assert base.success_ci == pytest.approx((wilson.low, wilson.high))
    # Steps of 1.0, 1.1, ... 2.9 cm.
    assert base.meed_cm == pytest.approx(1.95)
    assert base.meed_ci[0] < 1.95 < base.meed_ci[1]
    assert fast.meed_cm == pytest.approx(2.45)
    assert (base.files, fast.files) == ([str(paired[0])], [str(paired[1])])


def test_the_paired_comparison(paired):
    base, fast = analyse(paired).conditions
    assert (base.n_pairs, base.delta_meed_cm, base.delta_ci, base.p_value) == (0, None, None, None)
    assert fast.n_pairs == 20
    # Differences alternate 0.45 and 0.55: far narrower than the arms' own spread.
    assert fast.delta_meed_cm == pytest.approx(0.5)
    assert 0.45 < fast.delta_ci[0] < 0.5 < fast.delta_ci[1] < 0.55
    assert fast.p_value == 1 / 20_001
    assert fast.d_z == pytest.approx(0.5 / np.std([0.45, 0.55] * 10, ddof=1))
    # Success: base fails 0, 4, 8, 12, 16; fast succeeds on the even ones.
    assert fast.delta_success == pytest.approx(-0.25)
    assert fast.delta_success_ci[0] < -0.25 < fast.delta_success_ci[1]
    assert fast.success_p_value == pytest.approx(scipy.stats.binomtest(5, 15).pvalue)


def test_common_horizon_compares_the_steps_both_have(traces, tmp_path):
    """One of each pair stops early; over the two steps both have there is no difference at all."""
    short = [traces.episode(f"p{i}", [1.0 + i, 1.0 + i]) for i in range(6)]
    long = [traces.episode(f"p{i}", [1.0 + i, 1.0 + i, 9, 9]) for i in range(6)]
    files = [
        traces.write(tmp_path / "b.h5", short[:2] + long[2:]),
        traces.write(tmp_path / "f.h5", long[:2] + short[2:], traces.steer()),
    ]
    _, found = analyse(files).conditions
    assert found.delta_meed_common_cm == pytest.approx(0, abs=1e-9)
    gap = [(9 - (1 + i)) / 2 for i in range(6)]  # of the whole paths
    assert found.delta_meed_cm == pytest.approx((sum(gap[:2]) - sum(gap[2:])) / 6)


def test_json_object_is_exact_and_holds_no_nan(paired):
    found = analyse(paired).to_dict()
    assert list(found) == ["schema", "conditions", "trend", "notes"]
    assert found["schema"] == 1
    required = {
        *("policy", "suite", "task_id", "intervention", "alpha", "episodes", "success_rate"),
        *("success_ci", "meed_cm", "meed_ci", "delta_meed_cm", "delta_ci", "p_value", "files"),
    }
    for condition in found["conditions"]:
        assert required <= set(condition)
    assert set(found["trend"]) == {"quantity", "families"}
    assert json.loads(json.dumps(found, allow_nan=False))["conditions"][0]["p_value"] is None


def test_files_in_any_order_give_the_same_report(paired):
    assert analyse(paired) == analyse(paired[::-1])


def test_missing_baseline_is_said(paired):
    (fast,) = (report := analyse(paired[1:])).conditions
    assert (fast.n_pairs, fast.delta_meed_cm, fast.p_value) == (0, None, None)
    assert (
        "fast α=8 in tabletop task 0: there is no baseline in these files, "
        "so it is compared with nothing"
    ) in report.notes


@pytest.mark.parametrize("other", [{"sampler": "ode"}, {"replan": 5}])
def test_a_baseline_of_another_setting_is_no_baseline(other, traces, tmp_path):
    arm = [traces.episode(f"p{i}", [1.0 + i]) for i in range(6)]
    files = [
        traces.write(tmp_path / "b.h5", arm, **other),
        traces.write(tmp_path / "f.h5", arm, traces.steer()),
    ]
    report = analyse(files)
    assert all(condition.delta_meed_cm is None for condition in report.conditions)
    assert (
        "fast α=8 in tabletop task 0: its baseline was recorded with another sampler, K or "
        "replanning, so it is compared with nothing"
    ) in report.notes


def test_few_pairs_are_said_and_not_tested(traces, tmp_path):
    base = [traces.episode(f"p{i}", [1.0 + i]) for i in range(4)]
    fast = [traces.episode(f"p{i}", [3.0 + 2 * i]) for i in range(1, 5)]
    files = [
        traces.write(tmp_path / "b.h5", base),
        traces.write(tmp_path / "f.h5", fast, traces.steer()),
    ]
    report = analyse(files)
    _, found = report.conditions
    assert (found.n_pairs, found.delta_ci, found.p_value) == (3, None, None)
    assert found.delta_meed_cm == pytest.approx(np.mean([5 - 2, 7 - 3, 9 - 4]))
    where = "fast α=8 in tabletop task 0"
    assert f"{where}: 1 episode of 4 without a baseline partner" in report.notes
    assert f"{where}: 4 episodes; an interval of fewer than 6 is too narrow" in report.notes
    assert (
        f"{where}: 3 pairs: 6 pairs or more are needed for p < 0.05 to be reachable"
    ) in report.notes


def test_an_intervention_that_changes_nothing(traces, tmp_path):
    arm = [traces.episode(f"p{i}", [1.0 + i, 2.0]) for i in range(8)]
    idle = [episode | {"intervened": False} for episode in arm]
    files = [
        traces.write(tmp_path / "b.h5", arm),
        traces.write(tmp_path / "f.h5", idle, traces.steer()),
    ]
    report = analyse(files)
    _, found = report.conditions
    assert (found.delta_meed_cm, found.delta_ci, found.p_value) == (0, (0, 0), 1.0)
    assert found.d_z is None
    where = "fast α=8 in tabletop task 0"
    assert f"{where}: the intervention never acted in any episode" in report.notes
    assert f"{where}: no variance: all 8 differences are equal" in report.notes


def test_one_episode_and_a_path_that_is_missing(traces, tmp_path):
    episodes = [traces.episode("p0", [2.0]), traces.episode("p1", [])]
    report = analyse([traces.write(tmp_path / "b.h5", episodes)])
    (found,) = report.conditions
    assert (found.episodes, found.meed_cm, found.meed_ci) == (2, pytest.approx(2), None)
    assert (
        "baseline in tabletop task 0: 1 episode without a measurable path, not in MEED"
        in report.notes
    )


def test_episodes_the_machine_cut_short_are_left_out(traces, tmp_path):
    episodes = [
        traces.episode("p0", [2.0], success=True),
        traces.episode("p1", [9.0], error="simulation diverged"),
    ]
    report = analyse([traces.write(tmp_path / "b.h5", episodes)])
    (found,) = report.conditions
    assert (found.episodes, found.success_rate, found.meed_cm) == (1, 1.0, pytest.approx(2))
    assert "1 episode cut short by an error left out, such as: simulation diverged" in report.notes


def test_repeated_and_unfinished_recordings_are_said(traces, tmp_path):
    arm = [traces.episode("p0", [1.0])]
    files = [
        traces.write(tmp_path / "a.h5", arm),
        traces.write(tmp_path / "b.h5", arm, finish=False),
    ]
    report = analyse(files)
    assert report.conditions[0].episodes == 1
    assert any(note.startswith("1 repeated recording of the same") for note in report.notes)
    assert f"{files[1]} is unfinished: 1 complete episode in it" in report.notes


def doses(traces, tmp_path, alphas, pairs=8):
    rng = np.random.default_rng(0)
    speeds = 1 + 0.1 * np.arange(pairs)
    files = [
        traces.write(
            tmp_path / "base.h5",
            [traces.episode(f"p{i}", [speed]) for i, speed in enumerate(speeds)],
        )
    ]
    for alpha in alphas:
        arm = [
            traces.episode(f"p{i}", [speed + 0.05 * alpha + 0.01 * rng.random()])
            for i, speed in enumerate(speeds)
        ]
        files.append(traces.write(tmp_path / f"a{alpha}.h5", arm, traces.steer(alpha)))
    return files


def test_the_trend_runs_over_the_steered_doses_only(traces, tmp_path):
    report = analyse(doses(traces, tmp_path, [10, 2, 4]))
    assert [condition.alpha for condition in report.conditions] == [None, 2, 4, 10]
    (family,) = report.families
    assert (family.alphas, family.n_pairs) == ([2, 4, 10], 8)
    assert family.page_l == 8 * 14
    assert family.p_value == pytest.approx(2 / 6**8)
    assert family.slope_cm_per_alpha == pytest.approx(0.05, abs=2e-3)
    assert family.slope_ci[0] <= family.slope_cm_per_alpha <= family.slope_ci[1]
    assert "p (Holm) is corrected for the 3 steered conditions in these files" in report.notes


def test_too_few_doses_are_said(traces, tmp_path):
    report = analyse(doses(traces, tmp_path, [2, 4]))
    assert report.families[0].p_value is None
    assert (
        "fast in tabletop task 0: a trend needs 3 doses or more; given: 2 "
        "(the baseline is not a dose)"
    ) in report.notes


def test_other_neurons_are_another_family(traces, tmp_path):
    arm = [traces.episode("p0", [1.0])]
    files = [
        traces.write(tmp_path / f"{layer}-{dose}.h5", arm, traces.steer(dose, layer=layer))
        for layer in (1, 2)
        for dose in (4, 8)
    ]
    report = analyse(files)
    assert sorted(family.sites for family in report.families) == ["vlm.1 x2", "vlm.2 x2"]
    assert len({condition.fingerprint for condition in report.conditions}) == 4


def test_nothing_is_ever_nan(traces, tmp_path):
    """Even where every pose is broken."""
    nowhere = np.full(3, math.nan)
    arm = [traces.episode(f"p{i}", [1.0], final_ee_pos=nowhere) for i in range(7)]
    files = [
        traces.write(tmp_path / "b.h5", arm),
        traces.write(tmp_path / "f.h5", arm, traces.steer()),
    ]
    report = analyse(files)
    json.dumps(report.to_dict(), allow_nan=False)
    assert [condition.meed_cm for condition in report.conditions] == [None, None]
    assert [condition.delta_success for condition in report.conditions] == [None, 0.0]

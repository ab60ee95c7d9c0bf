"""An effect beside its controls: ranks and excesses computed by hand."""

import pytest

from analysis.controls import family
from analysis.outcome import analyse
from analysis.specificity import beyond

N = 8


@pytest.fixture
def recorded(traces, tmp_path):
    """Write a baseline, a steered arm of +0.5 cm, random arms and a null; returns a function."""

    def write(randoms, null_action=0.0, alpha=8.0):
        base = [traces.episode(f"p{i}", [1.0 + 0.1 * i] * 4) for i in range(N)]
        files = [traces.write(tmp_path / "base.h5", base)]
        fast = [traces.episode(f"p{i}", [1.5 + 0.1 * i + 0.01 * (i % 2)] * 4) for i in range(N)]
        steered = traces.steer(alpha)
        files.append(traces.write(tmp_path / "fast.h5", fast, steered))
        matched = {"matched_to": family(steered)}
        for k, effect in enumerate(randoms):
            arm = [traces.episode(f"p{i}", [1.0 + 0.1 * i + effect] * 4) for i in range(N)]
            cluster = traces.steer(
                alpha, f"random {k}", neurons=(4 + k, 40 + k), control="random", **matched
            )
            files.append(traces.write(tmp_path / f"random{k}.h5", arm, cluster))
        null = traces.steer(alpha, "null for fast", layer=5, control="null", **matched)
        same = [
            traces.episode(f"p{i}", [1.0 + 0.1 * i] * 4, action=null_action * (i == 3))
            for i in range(N)
        ]
        files.append(traces.write(tmp_path / "null.h5", same, null))
        return analyse(files)

    return write


def of(report, label):
    return next(c for c in report.conditions if c.label == label)


def test_rank_excess_and_null(recorded):
    report = recorded([0.1, -0.2, 0.6])
    found = of(report, "fast α=8").specificity
    assert (found.n_random, found.beyond) == (3, 2)
    assert found.rank_p == pytest.approx(2 / 4)  # only 0.6 is as large
    assert found.random_cm == pytest.approx((-0.2, 0.1, 0.6))
    assert found.excess_cm == pytest.approx(0.505 - 0.5 / 3)
    assert found.excess_ci[0] < found.excess_cm < found.excess_ci[1]
    assert (found.null_pairs, found.null_equal) == (N, N)
    assert any("cannot reach p 0.05; 19" in note for note in report.notes)


def test_nineteen_random_clusters_can_reach_005(recorded):
    report = recorded([0.01 * k for k in range(19)])
    found = of(report, "fast α=8").specificity
    assert (found.beyond, found.rank_p) == (19, pytest.approx(0.05))
    assert not any("cannot reach" in note for note in report.notes)


def test_a_null_that_acts_is_said_out_loud(recorded):
    report = recorded([0.1], null_action=1e-7)
    assert of(report, "fast α=8").specificity.null_equal == N - 1
    assert any("CHANGED 1 of 8" in note for note in report.notes)


def test_controls_of_another_dose_are_not_counted(recorded, traces, tmp_path):
    """The null needs no dose; random clusters are compared at the steered one's."""
    other = traces.steer(4.0)
    arm = [traces.episode(f"p{i}", [1.1] * 4) for i in range(N)]
    recorded([0.1, 0.2])
    report = analyse([*tmp_path.glob("*.h5"), traces.write(tmp_path / "x4.h5", arm, other)])
    found = of(report, "fast α=4").specificity
    assert (found.n_random, found.rank_p, found.excess_cm) == (0, None, None)
    assert found.null_pairs == N


def test_controls_are_rows_of_their_own_role_but_no_hypotheses(recorded):
    report = recorded([0.1, 0.2])
    roles = [c.role for c in report.conditions]
    assert roles == ["baseline", "steered", "random", "random", "null"]
    assert {c.p_holm for c in report.conditions} == {None}  # one hypothesis needs no correction
    assert report.families == []  # one dose is no family
    assert not any("no variance" in note for note in report.notes if note.startswith("null"))


def test_without_controls_the_report_says_so(paired):
    report = analyse(paired)
    assert report.conditions[1].specificity is None
    assert any("--controls" in note for note in report.notes)


def test_a_prompt_is_compared_with_the_same_baseline(traces, tmp_path):
    base = [traces.episode(f"p{i}", [1.0] * 4) for i in range(N)]
    told = [traces.episode(f"p{i}", [1.4] * 4) for i in range(N)]
    files = [
        traces.write(tmp_path / "base.h5", base),
        traces.write(tmp_path / "told.h5", told, prompt="{} quickly"),
    ]
    baseline, prompt = analyse(files).conditions
    assert (baseline.role, prompt.role, prompt.prompt) == ("baseline", "prompt", "{} quickly")
    assert prompt.n_pairs == N
    assert prompt.delta_meed_cm == pytest.approx(0.4)
    assert (prompt.specificity, prompt.p_holm) == (None, None)


def test_holm_runs_over_the_steered_conditions(traces, tmp_path):
    base = [traces.episode(f"p{i:02d}", [1.0 + 0.1 * i] * 3) for i in range(10)]
    files = [traces.write(tmp_path / "base.h5", base)]
    for alpha, sign in ((2.0, 1), (4.0, -1)):
        arm = [
            traces.episode(f"p{i:02d}", [1.0 + 0.1 * i + 0.1 * (sign if i % 3 else 1)] * 3)
            for i in range(10)
        ]
        files.append(traces.write(tmp_path / f"a{alpha:g}.h5", arm, traces.steer(alpha)))
    steered = [c for c in analyse(files).conditions if c.role == "steered"]
    small, large = sorted(c.p_value for c in steered)
    assert sorted(c.p_holm for c in steered) == pytest.approx([2 * small, max(2 * small, large)])


def test_beyond_counts_on_the_side_of_the_effect():
    assert beyond(0.3, [0.1, 0.31, -0.5, 0.3]) == 2
    assert beyond(-0.3, [-0.1, -0.31, 0.5, 0.0]) == 3
    assert beyond(0.0, [0.1, -0.1]) == 1

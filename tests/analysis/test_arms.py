"""Any two arms: counts and differences that were worked out by hand."""

import pytest

from analysis.arms import compare_arms
from analysis.stats import paired_difference, paired_success


def test_success_and_meed_pair_by_pair(paired):
    baseline, fast = paired
    found = compare_arms([baseline], [fast])
    (row,) = found.tasks
    assert found.notes == ()
    assert row.task == "lift"
    assert (row.a.successes, row.a.n) == (15, 20)
    assert (row.b.successes, row.b.n) == (10, 20)
    # fast succeeds where i is even, baseline where 4 does not divide i
    assert (row.success.only_a, row.success.only_b) == (5, 10)
    assert row.success.difference == pytest.approx(-0.25)
    assert row.success.p_value == pytest.approx(0.3017578125)  # McNemar, 5 of 15
    assert row.meed.n == 20
    assert row.meed.mean == pytest.approx(0.5)


def test_swapped_arms_have_swapped_signs(paired):
    one, other = (
        compare_arms(*arms).tasks[0] for arms in (([a], [b]) for a, b in (paired, paired[::-1]))
    )
    assert one.meed.mean == pytest.approx(-other.meed.mean)
    assert one.success.difference == pytest.approx(-other.success.difference)
    assert one.success.p_value == other.success.p_value


def test_only_pairs_are_compared_and_the_rest_is_counted(traces, tmp_path):
    a = traces.write(tmp_path / "a.h5", [traces.episode(f"p{i}", [1.0, 1.0]) for i in range(4)])
    b = traces.write(
        tmp_path / "b.h5",
        [traces.episode(f"p{i}", [2.0, 2.0]) for i in range(2, 5)],
        traces.steer(),
    )
    found = compare_arms([a], [b])
    assert found.n_pairs == 2
    assert found.tasks[0].meed.mean == pytest.approx(1.0)
    assert found.tasks[0].meed.p_value is None
    assert found.notes == (
        "A: 2 of 4 episodes without a partner",
        "B: 1 of 3 episodes without a partner",
    )


def test_no_common_pair(traces, tmp_path):
    a = traces.write(tmp_path / "a.h5", [traces.episode("p0", [1.0])])
    b = traces.write(tmp_path / "b.h5", [traces.episode("q0", [1.0])])
    found = compare_arms([a], [b])
    assert found.n_pairs == 0
    assert found.tasks[0].success.difference is None
    assert found.tasks[0].b.n == 1


def test_several_tasks_come_with_all_of_them(traces, tmp_path):
    def episodes(step):
        return [
            traces.episode(f"t{task}p{i}", [step] * 2, task_id=task, task_name=f"task {task}")
            for task in (0, 1)
            for i in range(3)
        ]

    a = traces.write(tmp_path / "a.h5", episodes(1.0))
    b = traces.write(tmp_path / "b.h5", episodes(1.5), traces.steer())
    found = compare_arms([a], [b])
    assert [row.task for row in found.tasks] == ["task 0", "task 1", "all 2 tasks"]
    assert [row.success.n for row in found.tasks] == [3, 3, 6]
    whole = found.tasks[-1]
    assert whole.meed == paired_difference([1.5] * 6, [1.0] * 6)
    assert whole.success == paired_success([False] * 6, [False] * 6)


def test_what_else_differs_is_said(traces, tmp_path):
    a = traces.write(tmp_path / "a.h5", [traces.episode("p0", [1.0])])
    b = traces.write(
        tmp_path / "b.h5",
        [traces.episode("p0", [1.0])],
        traces.steer(),
        sampler="flow_ode",
        replan=5,
        sha256="cd" * 32,
    )
    notes = compare_arms([a], [b]).notes
    assert any("the sampler differs, too (flow_sde in A, flow_ode in B)" in note for note in notes)
    assert any("replanning differs, too (1 in A, 5 in B)" in note for note in notes)
    assert "both the policy and the intervention differ between A and B" in notes


def test_a_pair_counts_once_even_if_two_policies_of_an_arm_played_it(traces, tmp_path):
    a = [
        traces.write(tmp_path / f"a{i}.h5", [traces.episode("p0", [1.0])], sha256=f"{i}b" * 32)
        for i in (1, 2)
    ]
    b = traces.write(tmp_path / "b.h5", [traces.episode("p0", [2.0])], traces.steer())
    found = compare_arms(a, [b])
    assert found.n_pairs == 1
    assert "A: 2 policies are in this arm, as training has" in found.notes

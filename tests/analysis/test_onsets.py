"""Runs, onsets and coverage by hand, and against a loop that does what the definition says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.onsets import OFF, ON, CoverageCounter, coverage, in_runs, unit_rows


def test_a_run_begins_at_on_and_ends_below_off():
    values = np.array([0.05, 0.1, 0.05, 0.01, 0.0099, 0.09, 0.2])[:, None]
    assert in_runs(values).ravel().tolist() == [False, True, True, True, False, False, True]


levels = st.sampled_from([0.0, 0.005, OFF, 0.05, ON, 0.3, -0.2, np.nan])


@given(st.lists(levels, max_size=12))
def test_runs_are_those_of_the_definition(values):
    expected, on = [], False
    for value in values:
        on = value >= ON or (on and value >= OFF)
        expected.append(on)
    assert in_runs(np.array(values, float).reshape(-1, 1)).ravel().tolist() == expected


def test_two_episodes_by_hand():
    # Episode 0: onsets at rows 1 and 4, runs of 2 and 1 rows, that is 10 and 3 control steps.
    # Episode 1: active, but never at ON. Episode 2: silent.
    values = [*(0.05, 0.1, 0.05, 0.0, 0.4), *(0.05, 0.0), *(0.0, -1.0)]
    counted = coverage(
        values,
        episode=[0] * 5 + [1] * 2 + [2] * 2,
        step=[0, 5, 10, 15, 20, 0, 5, 0, 5],
        task=[7] * 5 + [7] * 2 + [9] * 2,
        duration=[5, 5, 5, 5, 3, 5, 5, 5, 5],
    )
    assert counted.episodes == 3
    assert counted.active_episodes.tolist() == [2]
    assert counted.coverage == pytest.approx([2 / 3])
    assert counted.onset_count == pytest.approx([2])
    assert counted.run_length == pytest.approx([13 / 2])
    assert counted.relative_run_length == pytest.approx([13 / 2 / 23])
    assert counted.mean_active == pytest.approx([(0.05 + 0.1 + 0.05 + 0.4 + 0.05) / 5])
    assert counted.mean_peak == pytest.approx([(0.4 + 0.05) / 2])
    q = np.array([0.6, 0.05]) / 0.65
    assert counted.effective_episodes == pytest.approx([np.exp(-(q * np.log(q)).sum())])
    assert counted.active_tasks.tolist() == [1]
    assert counted.effective_tasks == pytest.approx([1])


def test_means_of_runs_leave_out_episodes_without_onset():
    counted = coverage([0.5, 0, 0.5, 0, 0, 0, 0.5, 0.5], [0] * 4 + [1, 1] + [2, 2], range(8))
    assert counted.onset_count == pytest.approx([1.5])  # (2 + 1) / 2
    assert counted.run_length == pytest.approx([1.5])  # (1 + 2) / 2
    assert counted.relative_run_length == pytest.approx([(1 / 4 + 2 / 2) / 2])


def test_diversity_counts_equals():
    values = np.repeat([[1.0, 1.0]], 8, axis=0)
    values[1:, 1] = 0
    counted = coverage(values, range(8), [0] * 8, task=[0, 0, 0, 0, 1, 1, 2, 2])
    assert counted.effective_episodes == pytest.approx([8, 1])
    assert counted.effective_tasks == pytest.approx([3, 1])
    assert counted.active_tasks.tolist() == [3, 1]


def test_a_silent_unit_has_nothing_to_average():
    counted = coverage([0.0, -1.0, np.nan], [0, 0, 1], [0, 1, 0])
    assert (counted.coverage.tolist(), counted.active_episodes.tolist()) == ([0.0], [0])
    for name in ("onset_count", "run_length", "mean_active", "mean_peak", "effective_episodes"):
        assert np.isnan(getattr(counted, name)).all(), name
    assert np.isnan(counted.effective_tasks).all()


def test_rows_in_any_order_and_one_episode_at_a_time_are_the_same():
    rng = np.random.default_rng(0)
    values = rng.uniform(-0.1, 0.3, size=(60, 7))
    episode, step = np.repeat(np.arange(6), 10), np.tile(np.arange(10), 6)
    counter = CoverageCounter(7, 2)
    for number in range(6):
        counter.add(values[episode == number], number % 2)
    shuffled = rng.permutation(60)
    counted = coverage(
        values[shuffled], episode[shuffled], step[shuffled], task=episode[shuffled] % 2
    )
    for name, column in vars(counter.result()).items():
        assert np.array_equal(getattr(counted, name), column), name


def test_unit_rows():
    values = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0], [5.0, np.nan]]))
    assert values == pytest.approx(np.array([[0.6, 0.8], [0, 0], [1, np.nan]]), nan_ok=True)

"""The interquartile mean and its bootstrap agree with scipy and with rliable."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from rliable.library import StratifiedBootstrap
from rliable.metrics import aggregate_iqm, aggregate_mean

from analysis.aggregate import (
    interquartile_mean,
    plain_mean,
    stratified_interval,
    stratified_mean_interval,
)
from analysis.stats import LARGE


def test_hand_computed():
    # Eight scores: the lowest two and the highest two go.
    assert interquartile_mean([0, 0, 0.6, 0.4, 0, 0.2, 0, 0]) == pytest.approx(0.05)
    assert interquartile_mean([0.0, 0.5, 1.0]) == 0.5  # fewer than four: the plain mean
    assert interquartile_mean([[0, 1, 1, 1], [0, 0, 0, 1]]).tolist() == [1, 0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=15))
def test_it_is_the_trimmed_mean_of_scipy_and_rliable(scores):
    expected = scipy.stats.trim_mean(scores, 0.25)
    assert interquartile_mean(scores) == pytest.approx(expected, abs=1e-12)
    assert aggregate_iqm(np.array([scores])) == pytest.approx(expected, abs=1e-12)
    assert plain_mean(scores) == pytest.approx(aggregate_mean(np.array([scores])), abs=1e-12)


@pytest.mark.parametrize(
    ("statistic", "theirs"), [(interquartile_mean, aggregate_iqm), (plain_mean, aggregate_mean)]
)
def test_the_interval_is_rliables_stratified_bootstrap(statistic, theirs):
    rng = np.random.default_rng(3)
    outcomes = rng.random((30, 6)) < np.array([0.1, 0.3, 0.5, 0.5, 0.7, 0.9])  # episodes, tasks
    np.random.seed(0)  # theirs draws from the global generator
    bootstrap = StratifiedBootstrap(outcomes.astype(float))
    expected = bootstrap.conf_int(
        lambda x: np.array([theirs(x.mean(axis=0, keepdims=True))]), reps=4000, method="percentile"
    )[:, 0]
    tasks = [outcomes[:, [task]] for task in range(6)]
    found = stratified_interval(tasks, lambda scores: statistic(scores[:, 0]), resamples=4000)
    assert found == pytest.approx(expected, abs=0.015)


def test_pairs_stay_together():
    """Two arms that are the same pair by pair have no difference, however they are drawn."""
    same = np.array([[1, 1], [0, 0], [1, 1], [0, 0]], bool)
    gap = stratified_interval([same, same], lambda s: plain_mean(s[:, 1]) - plain_mean(s[:, 0]))
    assert gap == (0, 0)
    apart = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], bool)
    low, high = stratified_interval([apart], lambda s: plain_mean(s[:, 1]) - plain_mean(s[:, 0]))
    assert low < 0 < high


def test_without_episodes_there_is_no_interval():
    assert stratified_interval([], plain_mean) is None
    assert stratified_interval([np.zeros((0, 2), bool)], plain_mean) is None


def test_the_mean_of_task_means_drawn_and_written_down():
    rng = np.random.default_rng(1)
    tasks = [rng.exponential(1.0, LARGE), rng.normal(5, 2, LARGE)]
    drawn = stratified_mean_interval(tasks)
    larger = [np.append(values, values.mean()) for values in tasks]
    written = stratified_mean_interval(larger)
    se = np.sqrt(sum(values.var() / len(values) for values in tasks)) / 2
    middle = (tasks[0].mean() + tasks[1].mean()) / 2
    for low, high in (drawn, written):
        assert (low, high) == pytest.approx((middle - 1.96 * se, middle + 1.96 * se), abs=0.1 * se)
    assert stratified_mean_interval([np.ones(3), np.zeros(5)]) == (0.5, 0.5)

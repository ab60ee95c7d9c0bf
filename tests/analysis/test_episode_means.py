"""Correlations within episodes and their means, against scipy and against chance."""

import numpy as np
import pytest
from scipy import stats

from analysis.episode_means import EpisodeMeans, correlations, student_quantile


def test_correlations_are_pearsons():
    rng = np.random.default_rng(0)
    values, signals = rng.normal(size=(9, 5)), rng.normal(size=(2, 9))
    found = correlations(values, signals)
    for s in range(2):
        for n in range(5):
            assert found[s, n] == pytest.approx(stats.pearsonr(values[:, n], signals[s])[0])


def test_by_hand():
    values = np.array([[1.0, 0.1], [2.0, 0.1], [4.0, 0.1]])
    found = correlations(values, np.array([[0.0, 1.0, 0.0], [3.0, 3.0, 3.0]]))
    # deviations (-4, -1, 5) / 3 and (-1, 2, -1) / 3: product -3, squares 42 and 6
    assert found[0, 0] == pytest.approx(-3 / np.sqrt(42 * 6))
    assert np.isnan(found[0, 1]) and np.isnan(found[1]).all()  # what never changes has none


def test_two_decisions_and_broken_numbers_have_none():
    assert np.isnan(correlations(np.array([[1.0], [2.0]]), np.array([[1.0, 2.0]]))).all()
    values = np.array([[1.0, 1.0], [np.inf, 2.0], [3.0, 4.0]])
    found = correlations(values, np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 2.0]]))
    assert np.isnan(found).tolist() == [[True, False], [True, True]]


def test_means_are_the_one_sample_t_test():
    rng = np.random.default_rng(1)
    rows = rng.uniform(-0.4, 0.8, size=(11, 3))
    rows[[2, 5], 1] = np.nan
    means = EpisodeMeans.of_shape(3)
    for row in rows:
        means.add(row)
    low, high = means.interval()
    for unit in range(3):
        known = rows[np.isfinite(rows[:, unit]), unit]
        test = stats.ttest_1samp(known, 0.0)
        interval = test.confidence_interval(0.95)
        assert means.n[unit] == len(known)
        assert means.mean[unit] == pytest.approx(known.mean())
        assert means.p()[unit] == pytest.approx(test.pvalue, rel=1e-9)
        assert (low[unit], high[unit]) == pytest.approx(tuple(interval), rel=1e-9)


def test_few_episodes_describe_and_test_nothing():
    means = EpisodeMeans.of_shape(2)
    for r in (0.1, 0.2, 0.4, 0.3, 0.5):
        means.add(np.array([r, np.nan]))
    assert means.mean[0] == pytest.approx(0.3)
    assert np.isnan(means.mean[1])
    assert np.isnan([means.p(), *means.interval()]).all()
    means.add(np.array([0.3, np.nan]))
    assert 0 < means.p()[0] < 0.01 and np.isnan(means.p()[1])


def test_equal_numbers_are_certain():
    means = EpisodeMeans.of_shape(2)
    for _ in range(6):
        means.add(np.array([1.0, 0.0]))
    assert means.p().tolist() == [0.0, 1.0]
    assert [limit.tolist() for limit in means.interval()] == [[1.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("df", [1, 5, 30, 999])
def test_quantiles(df):
    assert student_quantile(df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-9)
    assert student_quantile(df, 0.5) == pytest.approx(stats.t.ppf(0.75, df), rel=1e-9)


def test_smooth_noise_is_significant_at_the_nominal_rate():
    """Rows within an episode are autocorrelated: that must not count as evidence."""
    rng = np.random.default_rng(2)
    neurons, means = 1500, EpisodeMeans.of_shape(1, 1500)
    for _ in range(12):
        walk = rng.normal(size=(20, neurons + 1)).cumsum(axis=0)
        means.add(correlations(walk[:, 1:], walk[:, :1].T))
    rate = (means.p() <= 0.05).mean()
    assert rate <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / neurons)

"""Page's test against scipy and brute force; slopes against a line."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from analysis.trend import trend


def test_perfect_rise_over_three_doses():
    found = trend([2, 4, 8], [[1, 2, 4]] * 6)  # slope exactly 1/2
    assert found.page_l == 6 * 14  # 1*1 + 2*2 + 3*3 in each pair
    assert found.p_value == pytest.approx(2 / 6**6)  # all up or all down, of 3!^6 orders
    assert found.slope == pytest.approx(0.5)
    assert found.slope_ci == pytest.approx((0.5, 0.5))


def test_fall_is_found_as_well_as_rise():
    rng = np.random.default_rng(0)
    rise = np.arange(5) * 0.3 + rng.normal(size=(12, 5))
    up, down = trend(range(5), rise), trend(range(5), -rise)
    assert up.p_value == pytest.approx(down.p_value)
    assert up.slope == pytest.approx(-down.slope)


@pytest.mark.parametrize(("n", "k"), [(6, 3), (8, 4), (10, 5)])
def test_exact_p_is_scipys_one_sided_doubled(n, k):
    rng = np.random.default_rng(n * k)
    y = 0.5 * np.arange(k) + rng.normal(size=(n, k))
    expected = scipy.stats.page_trend_test(y, method="exact")
    found = trend(range(k), y)
    assert found.page_l == expected.statistic
    assert found.p_value == pytest.approx(min(1.0, 2 * expected.pvalue), abs=1e-12)


def test_large_k_uses_a_normal_close_to_scipys():
    y = 0.1 * np.arange(9) + np.random.default_rng(2).normal(size=(20, 9))
    expected = scipy.stats.page_trend_test(y, method="asymptotic")
    found = trend(range(9), y)
    assert found.page_l == expected.statistic
    assert found.p_value == pytest.approx(2 * expected.pvalue, rel=1e-6)


def test_exact_p_counts_ties_like_brute_force():
    y = np.array([[1, 1, 2], [0, 3, 3], [1, 2, 3], [2, 2, 2], [3, 1, 2], [1, 2, 2]], dtype=float)
    ranks = scipy.stats.rankdata(y, axis=1)
    weights = np.arange(1, 4)
    observed = (ranks * weights).sum()
    orders = [list(itertools.permutations(row)) for row in ranks.tolist()]
    sums = [
        sum(float(np.dot(row, weights)) for row in choice) for choice in itertools.product(*orders)
    ]
    extreme = abs(np.array(sums) - 72) >= abs(observed - 72)
    found = trend([1, 2, 3], y)
    assert found.page_l == observed
    assert found.p_value == pytest.approx(extreme.mean())


def test_slope_interval_is_per_unit_of_dose():
    rng = np.random.default_rng(4)
    doses = np.array([2, 4, 6, 8, 10])
    y = 1 + 0.05 * doses + rng.normal(0, 0.1, (30, 5))
    found = trend(doses, y)
    least_squares = [scipy.stats.linregress(doses, row).slope for row in y]
    assert found.slope == pytest.approx(np.mean(least_squares))
    assert found.slope_ci[0] < 0.05 < found.slope_ci[1]


@given(st.permutations(range(4)))
def test_order_of_doses_is_no_matter(order):
    y = np.random.default_rng(1).normal(size=(7, 4))
    doses = np.array([1.0, 2.5, 4.0, 9.0])
    assert trend(doses[order], y[:, order]) == trend(doses, y)


def test_flat_values_are_no_trend():
    for k in (3, 9):
        found = trend(range(k), np.ones((8, k)))
        assert (found.p_value, found.slope) == (1.0, 0.0)


def test_too_little_is_refused_with_a_reason():
    two = trend([2, 4], np.ones((20, 2)))
    assert two.p_value is None
    assert two.notes == ("a trend needs 3 doses or more; given: 2",)
    five = trend([2, 4, 8], np.ones((5, 3)))
    assert (five.p_value, five.slope, five.slope_ci) == (None, None, None)
    assert five.notes == ("a trend needs 6 pairs or more seen at every dose; given: 5",)
    with pytest.raises(ValueError, match="distinct"):
        trend([2, 2, 4], np.ones((6, 3)))
    with pytest.raises(ValueError, match="finite"):
        trend([2, 3, 4], np.full((6, 3), math.nan))

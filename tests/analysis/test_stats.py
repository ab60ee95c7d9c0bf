"""Each statistic against scipy, a hand-computed case, or a law it must obey."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from analysis.stats import (
    LARGE,
    MIN_PAIRS,
    bootstrap_ci,
    fisher_exact,
    holm,
    paired_difference,
    paired_success,
    sign_flip_p,
    success_gap,
    wilson,
)

numbers = st.floats(-100, 100, allow_nan=False, width=32)


@given(st.integers(1, 500), st.data(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_is_scipys(n, data, level):
    k = data.draw(st.integers(0, n))
    expected = scipy.stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert wilson(k, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_six_in_forty():
    assert wilson(6, 40) == pytest.approx((0.0706, 0.2907), abs=5e-5)


def test_wilson_knows_nothing_of_nothing():
    assert wilson(0, 0) is None
    with pytest.raises(ValueError, match=r"0\.\.3, got 4"):
        wilson(4, 3)


@pytest.mark.parametrize("n", [6, 20, 60])
@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_bootstrap_agrees_with_scipys_bca(n, shape):
    rng = np.random.default_rng(n)
    x = rng.normal(1, 0.2, n) if shape == "normal" else rng.exponential(1, n)
    expected = scipy.stats.bootstrap(
        (x,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    tolerance = 0.04 * (expected.high - expected.low)  # Monte Carlo noise of both
    assert bootstrap_ci(x) == pytest.approx((expected.low, expected.high), abs=tolerance)


def test_bootstrap_covers_the_mean_at_its_level():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        low, high = bootstrap_ci(rng.normal(2, 1, 30), resamples=1000)
        hits += low <= 2 <= high
    assert 0.90 <= hits / 300 <= 0.98


@given(st.lists(numbers, min_size=2, max_size=30), st.randoms())
def test_bootstrap_ignores_order_and_is_repeatable(values, random):
    shuffled = values[:]
    random.shuffle(shuffled)
    first = bootstrap_ci(values, resamples=200)
    assert first == bootstrap_ci(shuffled, resamples=200)
    assert min(values) <= first[0] <= first[1] <= max(values)


def test_bootstrap_blocks_do_not_change_the_answer(monkeypatch):
    x = np.random.default_rng(3).normal(size=40)
    whole = bootstrap_ci(x)
    monkeypatch.setattr("analysis.stats._BLOCK", 4000)
    assert bootstrap_ci(x) == whole


def test_bootstrap_degenerate_cases():
    assert bootstrap_ci([]) is None
    assert bootstrap_ci([1.5]) is None
    assert bootstrap_ci([0.25] * 9) == (0.25, 0.25)
    with pytest.raises(ValueError, match="finite"):
        bootstrap_ci([1.0, math.nan])


def test_sign_flip_by_hand():
    # All six the same way: only +++++ + and - - - - - - are as extreme, 2 / 64.
    assert sign_flip_p([1, 2, 3, 4, 5, 6]) == 2 / 64
    # d = 3, -1: sums 2, -4, 4, -2 over the four signs; all at least 2 in size.
    assert sign_flip_p([3, -1]) == 1.0
    # d = 3, 1: sums 4, 2, -2, -4; two of four at least 4.
    assert sign_flip_p([3, 1]) == 0.5
    assert sign_flip_p([0.0] * 8) == 1.0
    assert sign_flip_p([]) is None


@pytest.mark.parametrize("n", [6, 9, 12])
def test_exact_sign_flip_is_scipys(n):
    d = np.random.default_rng(n).normal(0.4, 1, n)
    expected = scipy.stats.permutation_test(
        (d,), np.mean, permutation_type="samples", vectorized=True, n_resamples=np.inf
    )
    assert sign_flip_p(d) == pytest.approx(expected.pvalue, abs=1e-12)


def test_monte_carlo_sign_flip_is_close_to_the_exact_one(monkeypatch):
    d = np.random.default_rng(5).normal(0.5, 1, 14)
    exact = sign_flip_p(d)
    monkeypatch.setattr("analysis.stats.EXACT_PAIRS", 0)
    drawn = sign_flip_p(d)
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000))


def test_monte_carlo_p_is_never_zero():
    assert sign_flip_p(np.ones(200)) == 1 / 20_001


@given(st.lists(numbers, min_size=1, max_size=20))
def test_sign_flip_does_not_know_which_arm_is_which(d):
    assert sign_flip_p(d) == sign_flip_p([-x for x in reversed(d)])


def test_paired_difference_by_hand():
    a, b = [2.0, 3, 4, 5, 6, 9], [1.0, 1, 1, 1, 1, 1]
    found = paired_difference(a, b)  # differences 1, 2, 3, 4, 5, 8
    assert (found.n, found.mean, found.p_value) == (6, pytest.approx(23 / 6), 2 / 64)
    assert found.d_z == pytest.approx((23 / 6) / math.sqrt((119 - 23**2 / 6) / 5))
    assert 1 < found.ci[0] < 23 / 6 < found.ci[1] < 8
    assert found.notes == ()


@given(st.lists(st.tuples(numbers, numbers), min_size=0, max_size=25))
def test_paired_difference_is_antisymmetric_and_never_nan(pairs):
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one.p_value == other.p_value
    if pairs:
        assert one.mean == pytest.approx(-other.mean)
    for found in (one, other):
        for value in (found.mean, found.p_value, found.d_z, *(found.ci or ())):
            assert value is None or math.isfinite(value)


@pytest.mark.parametrize("n", range(1, MIN_PAIRS))
def test_too_few_pairs_are_refused_with_a_reason(n):
    found = paired_difference(np.arange(n) + 1.0, np.zeros(n))
    assert (found.ci, found.p_value) == (None, None)
    assert found.mean == pytest.approx((n + 1) / 2)
    assert "6 pairs or more are needed for p < 0.05 to be reachable" in found.notes[0]
    assert found.notes[0].startswith(f"{n} pair{'s' * (n > 1)}:")


def test_equal_differences_have_no_variance():
    base = np.random.default_rng(0).normal(size=8)
    found = paired_difference(base + 0.1, base)  # equal up to rounding
    assert found.d_z is None
    assert found.ci == pytest.approx((0.1, 0.1))
    assert "no variance: all 8 differences are equal" in found.notes


def test_arms_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="equal lengths, got 3 and 2"):
        paired_difference([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="equal lengths, got 1 and 2"):
        paired_success([True], [True, False])


def arms(both, only_a, only_b, neither):
    a = [True] * both + [True] * only_a + [False] * only_b + [False] * neither
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def test_paired_success_by_hand():
    """Both 20, a alone 12, b alone 2, neither 16 (n = 50), worked through method 10 by hand.

    phi = (20*16 - 12*2 - 25) / sqrt(32*18*22*28) = 0.4549; Wilson a (0.5014, 0.7586),
    b (0.3116, 0.5769): low = 0.2 - 0.1438, high = 0.2 + 0.1292.
    """
    found = paired_success(*arms(20, 12, 2, 16))
    assert found.difference == pytest.approx(0.2)
    assert found.ci == pytest.approx((0.0562, 0.3292), abs=2e-4)
    assert (found.only_a, found.only_b) == (12, 2)
    assert found.p_value == pytest.approx(scipy.stats.binomtest(2, 14).pvalue)


@given(*[st.integers(0, 12)] * 4)
def test_paired_success_against_scipy_and_its_mirror(both, only_a, only_b, neither):
    a, b = arms(both, only_a, only_b, neither)
    found, mirror = paired_success(a, b), paired_success(b, a)
    if not a:
        assert (found.difference, found.ci, found.p_value) == (None, None, None)
        return
    if only_a + only_b:
        expected = scipy.stats.binomtest(only_a, only_a + only_b).pvalue
        assert found.p_value == pytest.approx(expected)
    else:
        assert found.p_value == 1.0
    assert mirror.ci == pytest.approx((-found.ci[1], -found.ci[0]), abs=1e-12)
    assert -1 <= found.ci[0] <= found.difference <= found.ci[1] <= 1


def test_holm_by_hand_and_against_its_own_definition():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_and_keeps_their_order(p_values):
    adjusted = holm(p_values)
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)
    assert max(adjusted) <= 1.0
    assert min(adjusted) == min(1.0, len(p_values) * min(p_values))


def test_large_samples_are_what_drawing_would_give():
    rng = np.random.default_rng(0)
    values = rng.exponential(2.0, LARGE + 1)  # skewed, so that BCa is not symmetric
    drawn = bootstrap_ci(values[:-1], resamples=40_000)
    written = bootstrap_ci(values)
    width = drawn[1] - drawn[0]
    assert written == pytest.approx(drawn, abs=0.03 * width)
    shifted = rng.normal(0.06, 1.0, LARGE + 1)
    assert sign_flip_p(shifted) == pytest.approx(sign_flip_p(shifted[:-1]), abs=0.02)
    assert sign_flip_p(np.zeros(LARGE + 1)) == 1


@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_fisher_is_scipys(n_a, n_b, data):
    a, b = data.draw(st.integers(0, n_a)), data.draw(st.integers(0, n_b))
    expected = scipy.stats.fisher_exact([[a, n_a - a], [b, n_b - b]]).pvalue
    assert fisher_exact(a, n_a, b, n_b) == pytest.approx(expected)


def test_newcombes_independent_example():
    """56/70 against 48/80: Newcombe 1998, Table II (a), method 10."""
    gap, interval = success_gap(56, 70, 48, 80)
    assert gap == pytest.approx(0.2)
    assert interval == pytest.approx((0.0524, 0.3339), abs=5e-5)

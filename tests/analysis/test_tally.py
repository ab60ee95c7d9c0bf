"""Sums block by block are those of numpy at once."""

import numpy as np
import pytest

from analysis.tally import Differences, Tally, as_float32


def test_halves_become_float32_and_what_is_not_finite_nan():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    expected = np.where(np.isfinite(every), every, np.nan).astype(np.float32)
    np.testing.assert_array_equal(as_float32(every), expected)
    wide = np.array([1e30, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(as_float32(wide), [np.float32(1e30), np.nan, np.nan])


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_moments_of_blocks_that_cut_episodes(offset):
    rng = np.random.default_rng(0)
    x = (offset + rng.normal(0, 2, size=(700, 5))).astype(np.float32)
    episode = np.repeat([0, 1, 3], [300, 150, 250])  # episode 2 has no row
    tally = Tally(5, 4, x[0])
    for block in (slice(0, 200), slice(200, 350), slice(350, 350), slice(350, 700)):
        tally.add(x[block], x[block], episode[block])
    exact = x.astype(np.float64)
    assert tally.n == 700
    np.testing.assert_allclose(tally.mean, exact.mean(0), rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(tally.std, exact.std(0, ddof=1), rtol=1e-5)
    means = [exact[episode == e].mean(0) for e in (0, 1, 3)]
    np.testing.assert_allclose(tally.episode_means(), means, rtol=1e-6, atol=1e-6)
    assert tally.histogram.counts.sum() == x.size


def test_a_constant_has_no_spread():
    x = np.full((500, 2), [0.1, 1e4], np.float32)
    tally = Tally(2, 1, x[0])
    tally.add(x, x, np.zeros(500, int))
    assert tally.std.tolist() == [0, 0]


def test_differences_are_exactly_zero_for_equal_rows():
    x = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    y = x.copy()
    y[7, 2] += 1e-6
    found = Differences(3, 2)
    found.add(x, y, np.repeat([0, 1], 25))
    assert found.largest[:2].tolist() == found.mean[:2].tolist() == [0, 0]
    assert found.largest[2] == pytest.approx(1e-6, rel=0.1)
    assert found.episode_means()[1].tolist() == [0, 0, 0]

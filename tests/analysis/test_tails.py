"""Tail probabilities against scipy's."""

import numpy as np
import pytest
from scipy import special, stats

from analysis.tails import kolmogorov_p, student_p


def test_student_is_scipys():
    t = np.concatenate([-np.logspace(-4, 4, 60), [0.0], np.logspace(-4, 4, 60)])
    for df in (1, 2.5, 5, 9, 30, 199.7, 5000):
        found = student_p(t, df)
        np.testing.assert_allclose(found, 2 * stats.t.sf(np.abs(t), df), rtol=1e-9, atol=1e-300)


def test_student_takes_a_df_each_and_keeps_what_is_unknown():
    rng = np.random.default_rng(0)
    t, df = rng.normal(size=500) * 3, rng.uniform(1, 300, 500)
    np.testing.assert_allclose(student_p(t, df), 2 * stats.t.sf(np.abs(t), df), rtol=1e-9)
    assert np.isnan(student_p([np.nan, 1.0], [3.0, np.nan])).all()
    assert student_p([np.inf], [5.0])[0] < 1e-100
    assert student_p([0.0], [5.0]) == 1.0


def test_kolmogorov_is_scipys():
    d, n = np.linspace(0, 1, 101), 400.0
    scaled = (20 + 0.12 + 0.11 / 20) * d
    np.testing.assert_allclose(kolmogorov_p(d, n), special.kolmogorov(scaled), atol=1e-12)
    assert np.isnan(kolmogorov_p([np.nan], [4.0])).all()


def test_kolmogorov_is_near_the_exact_p_of_small_samples():
    for n, d in ((10, 0.5), (20, 0.35), (50, 0.26)):
        exact = stats.kstwo.sf(d, n)
        assert kolmogorov_p(d, n) == pytest.approx(exact, rel=0.1)

"""Measures of an autoencoder, against numbers worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.sae.measures import random_stability, reconstruction, stability


def test_by_hand(identity_sae):
    """The identity on positive coordinates, of a k of 1 and an offset of (0, 1)."""
    sae = replace(identity_sae(2), k=1, b_dec=np.array([0, 1], np.float32))
    x = np.array([[3, 1], [1, 4], [0, 1], [-2, 1]], np.float32)
    # around b_dec: (3, 0), (1, 3), (0, 0), (-2, 0): features (3, 0), (0, 3), none, none
    # x^: (3, 1), (0, 4), (0, 1), (0, 1); errors: 0, (1, 0), 0, (-2, 0)
    found = reconstruction(sae, [x[:1], x[1:], x[:0]])
    spread = (9 + 1 + 4 - 2**2 / 4) + (1 + 16 + 1 + 1 - 7**2 / 4)
    assert found.rows == 4
    assert found.fvu == pytest.approx((1 + 4) / spread)
    assert found.variance_explained == pytest.approx(1 - (5 - (-1) ** 2 / 4) / spread)
    assert found.l0 == 0.5
    assert found.dead_share == 0.0
    np.testing.assert_array_equal(found.density, [0.25, 0.25])
    cosines = [1, 4 / np.sqrt(17), 1, 1 / np.sqrt(5)]
    assert found.cosine == pytest.approx(np.mean(cosines))


def test_a_constant_error_is_unexplained_variance_to_fvu_only(identity_sae):
    sae = replace(identity_sae(3), W_enc=np.eye(3, dtype=np.float32) * 1, b_enc=np.ones(3, "f4"))
    x = np.random.default_rng(0).uniform(1, 2, (50, 3)).astype(np.float32)
    found = reconstruction(sae, [x])  # x^ = x + 1
    assert found.variance_explained == pytest.approx(1.0, abs=1e-6)
    assert found.fvu == pytest.approx(3 / x.astype(float).var(axis=0).sum(), rel=1e-5)


def test_no_rows_are_no_numbers(identity_sae):
    found = reconstruction(identity_sae(2), [np.empty((0, 2), np.float32)])
    assert found.rows == 0 and np.isnan(found.fvu)


def test_the_histogram_counts_all_that_fire(identity_sae):
    found = reconstruction(identity_sae(3), [np.array([[1, 0, 1], [1, 0, 0]], np.float32)])
    rare = replace(found, density=np.array([1.0, 0.0, 0.5, 1e-7]))
    counts = rare.to_dict()["density"]
    assert sum(counts["features"]) == 3
    assert counts["features"][0] == 1 and counts["features"][-1] == 2
    assert len(counts["edges"]) == len(counts["features"]) + 1
    assert found.dead_share == pytest.approx(1 / 3)


def test_permuted_copies_are_found_again(identity_sae):
    rng = np.random.default_rng(0)
    W = rng.normal(size=(8, 6)).astype(np.float32)
    sae = identity_sae(6)
    one, other = (
        replace(sae, W_enc=w.T, b_enc=np.zeros(8, np.float32), W_dec=w, k=3)
        for w in (W, -2 * W[rng.permutation(8)])
    )
    everything = [np.ones(8, bool)] * 2
    np.testing.assert_allclose(stability([one, other], everything), 1.0, rtol=1e-6)
    assert np.isnan(stability([one], everything[:1])).all()
    half = replace(other, W_dec=np.concatenate([W[:4], np.zeros((4, 6), np.float32)]))
    alive = [np.arange(8) < 4, np.ones(8, bool)]
    assert stability([one, half], alive)[0] == pytest.approx(1.0)


def test_random_directions_are_the_control():
    """In the plane the largest of m |cosines| tends to 1; in many dimensions it is small."""
    assert random_stability(2, 500) > 0.999
    assert random_stability(2000, 3) < 0.1

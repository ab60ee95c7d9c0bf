"""Distances of histograms enclose the exact statistic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ks_2samp

from analysis.histograms import BINS, Histogram, ks_distance

VALUES = st.floats(-60000, 60000, width=16)


def counted(values):
    histogram = Histogram(values.shape[1])
    histogram.add(values)
    return histogram


@given(arrays(np.float16, (40, 1), elements=VALUES), arrays(np.float16, (25, 1), elements=VALUES))
def test_the_exact_statistic_lies_between_the_bounds(a, b):
    least, most = ks_distance(counted(a), counted(b))
    exact = ks_2samp(*(v[:, 0].astype(float) for v in (a, b)), method="asymp").statistic
    assert least[0] - 1e-12 <= exact <= most[0] + 1e-12


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_bounds_are_tight_for_continuous_values(dtype):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4000, 300)).astype(dtype)  # more units than are held at once
    b = rng.normal(0.3, 1.2, size=(3000, 300)).astype(dtype)
    least, most = ks_distance(counted(a), counted(b))
    for unit in (0, 255, 256, 299):
        exact = ks_2samp(*(v[:, unit].astype(float) for v in (a, b)), method="asymp").statistic
        assert least[unit] - 1e-3 <= exact <= most[unit] + 1e-3  # float32 was rounded to halves
    assert (most - least).max() < 0.02


def test_bins_are_in_the_order_of_values():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = np.sort(every[np.isfinite(every)])
    places = [int(np.argmax(counted(v.reshape(1, 1)).ascending(slice(0, 1)))) for v in finite[::97]]
    assert places == sorted(places)
    assert counted(finite[:, None]).ascending(slice(0, 1)).shape == (1, BINS - 1)


def test_zero_has_no_sign_and_equal_samples_no_distance():
    a, b = np.zeros((5, 1), np.float16), -np.zeros((5, 1), np.float16)
    assert ks_distance(counted(a), counted(b))[0] == 0
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float16)
    assert (ks_distance(counted(values), counted(values))[0] == 0).all()
    assert np.isnan(ks_distance(Histogram(2), counted(values[:, :2]))).all()


def test_values_larger_than_halves_are_counted_at_the_end():
    a = np.full((4, 1), 1e9, np.float32)
    assert ks_distance(counted(a), counted(-a))[0] == 1

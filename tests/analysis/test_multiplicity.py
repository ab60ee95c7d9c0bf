"""Corrected p values against worked examples and scipy."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from analysis.multiplicity import corrected
from analysis.stats import holm
from traces.errors import UnknownName


def test_holm_is_the_textbooks():
    found = corrected(np.array([0.01, 0.04, np.nan, 0.03, 0.005]), "holm")
    assert found == pytest.approx([0.03, 0.06, np.nan, 0.06, 0.02], nan_ok=True)
    assert corrected(np.array([0.6, 0.9])).tolist() == [1.0, 1.0]


def test_they_are_what_others_compute():
    p = np.random.default_rng(0).uniform(size=300) ** 3
    np.testing.assert_allclose(corrected(p, "bh"), false_discovery_control(p), rtol=1e-12)
    np.testing.assert_allclose(corrected(p, "holm"), holm(p.tolist()), rtol=1e-12)
    np.testing.assert_array_equal(corrected(p, "none"), p)


def test_what_is_unknown_is_no_part_of_the_family():
    p = np.array([np.nan, 0.01, np.nan, 0.02])
    assert corrected(p, "bh") == pytest.approx([np.nan, 0.02, np.nan, 0.02], nan_ok=True)
    assert np.isnan(corrected(np.array([np.nan]))).all()
    assert corrected(np.zeros(0)).size == 0
    with pytest.raises(UnknownName, match="did you mean holm"):
        corrected(p, "hol")

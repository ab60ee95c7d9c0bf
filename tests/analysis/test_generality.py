"""The published rule at its edges."""

import numpy as np
import pytest

from analysis.generality import GENERAL_COVERAGE, GENERAL_ONSETS, labels, logits
from analysis.onsets import coverage


def recurring(onsets):
    """Twenty episodes of one unit; the first ones have onsets, the others are silent."""
    rows = [[0.5, 0.0] * n + [0.0] * (8 - 2 * n) for n in onsets]
    rows += [[0.0] * 8] * (20 - len(rows))
    return coverage(np.ravel(rows), np.repeat(np.arange(20), 8), np.tile(np.arange(8), 20))


@pytest.mark.parametrize(
    ("onsets", "label"),
    [
        ([2] * 6 + [1] * 14, "general"),  # 1.3 onsets an episode, all of them active
        ([2] * 5 + [1] * 15, "memorised"),  # 1.25
        ([2] * 19, "general"),  # coverage 0.95
        ([2] * 18, "memorised"),  # 0.9
        ([1] * 20, "memorised"),  # once in every episode, however regularly
        ([0] * 20, "silent"),
    ],
)
def test_thresholds(onsets, label):
    counted = recurring(onsets)
    assert labels(counted).tolist() == [label]
    assert np.isnan(logits(counted)).tolist() == [label == "silent"]


def test_the_constants_are_those_of_the_refit():
    assert (GENERAL_ONSETS, GENERAL_COVERAGE) == (1.3, 0.94)
    counted = recurring([2] * 10)
    run, magnitude = 1 / 8, 0.5
    expected = -25.39 + 9.26 * 0.5 + 8.49 * 2 + 79.6 * magnitude - 0.48 * run
    assert logits(counted) == pytest.approx([expected])


def test_active_without_an_onset_is_memorised():
    counted = coverage([0.05, 0.05], [0, 1], [0, 0])
    assert labels(counted).tolist() == ["memorised"]
    assert logits(counted) == pytest.approx([-25.39 + 9.26 + 79.6 * 0.05])

"""Two episodes laid beside each other, by hand."""

import numpy as np
import pytest

from analysis.other_episodes import beside_others, by_share


def r(x, y):
    return np.corrcoef(x, y)[0, 1]


def test_by_share_takes_the_row_in_which_the_middle_lies():
    own, theirs = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[5.0, 6.0]])
    # middles of four rows at 1/8, 3/8, 5/8, 7/8; of two at 1/4 and 3/4, which are rows 1 and 3
    coarse, spread = by_share(own, theirs)
    assert (coarse.tolist(), spread.tolist()) == ([[2, 2, 4, 4]], [[5, 5, 6, 6]])
    # middles of two rows at 1/4 and 3/4, which are rows 1 and 3 of four; there and back again
    same, thinned = by_share(theirs, own)
    assert (same.tolist(), thinned.tolist()) == ([[5, 6]], [[2, 4]])


def test_equal_lengths_need_no_alignment():
    rng = np.random.default_rng(0)
    x, own, theirs = rng.normal(size=(5, 2)), rng.normal(size=(3, 5)), rng.normal(size=(3, 5))
    mine, other = beside_others(x, own, [theirs])
    for s in range(3):
        for n in range(2):
            assert mine[:, s, n] == pytest.approx([r(x[:, n], own[s])] * 2)
            assert other[:, s, n] == pytest.approx([r(x[:, n], theirs[s])] * 2)


def test_both_sides_have_the_same_rows():
    x = np.array([[1.0], [2.0], [3.0], [5.0], [4.0], [7.0]])
    own, theirs = np.array([[2.0, 1.0, 4.0, 3.0, 6.0, 5.0]]), np.array([[1.0, 3.0, 2.0]])
    mine, other = beside_others(x, own, [theirs])
    assert mine[:, 0, 0] == pytest.approx(
        [r([1, 2, 3], [2, 1, 4]), r(x[:, 0], [1, 1, 3, 3, 5, 5])]  # rows 1, 3 and 5
    )
    assert other[:, 0, 0] == pytest.approx(
        [r([1, 2, 3], [1, 3, 2]), r(x[:, 0], [1, 1, 3, 3, 2, 2])]
    )


def test_others_without_a_correlation_do_not_count():
    x, own = np.array([[1.0], [2.0], [4.0]]), np.array([[1.0, 0.0, 2.0]])
    flat, known = np.ones((1, 3)), np.array([[0.0, 3.0, 1.0]])
    mine, other = beside_others(x, own, [flat, known])
    assert mine[:, 0, 0] == pytest.approx([r([1, 2, 4], [1, 0, 2])] * 2)
    assert other[:, 0, 0] == pytest.approx([r([1, 2, 4], [0, 3, 1])] * 2)
    for others in ([], [flat]):
        assert np.isnan(beside_others(x, own, others)).all()

"""Proportions, and how much episodes that share scenes are worth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.proportions import Proportion, effective_n, wilson


def test_equal_groups_are_worth_all_their_episodes():
    """No spread between the groups: nothing says that scenes matter."""
    assert effective_n([(4, 8)] * 6) == 48


def test_groups_of_one_outcome_are_worth_one_episode_each():
    """p = 1/2, v = 4/3 * 4 * 16 / 32^2 = 1/12, n_eff = 3, but no less than the 4 groups."""
    assert effective_n([(8, 8), (0, 8), (8, 8), (0, 8)]) == 4


def test_by_hand():
    """p = 8/16; v = 2 * 2 * (6 - 4)^2 / 16^2 = 1/16; n_eff = 0.25 * 16 = 4."""
    assert effective_n([(6, 8), (2, 8)]) == pytest.approx(4.0)


@pytest.mark.parametrize("groups", [[], [(3, 8)], [(0, 8)] * 3, [(8, 8)] * 3])
def test_without_a_spread_every_group_counts_once(groups):
    assert effective_n(groups) == len(groups)


@given(st.lists(st.tuples(st.integers(0, 8), st.just(8)), min_size=2, max_size=12))
def test_it_lies_between_the_groups_and_the_episodes(groups):
    assert len(groups) <= effective_n(groups) <= 8 * len(groups)


def test_the_interval_is_that_of_the_effective_number():
    assert Proportion(32, 64).interval == wilson(32, 64)
    assert Proportion(32, 64, 16.0).interval == wilson(8, 16)


def test_proportions_add_up():
    both = Proportion(3, 8, 4.0) + Proportion(5, 8)
    assert (both.successes, both.n, both.effective) == (8, 16, 12.0)
    assert (Proportion(1, 2) + Proportion(1, 2)).effective == 0


@pytest.mark.parametrize(
    ("rate", "n"), [(None, 8), (1.5, 8), (-0.1, 8), (float("nan"), 8), (0.5, 0)]
)
def test_what_is_no_rate_is_none(rate, n):
    assert Proportion.of(rate, n) is None


def test_a_rate_becomes_a_count():
    assert Proportion.of(0.58, 64, 20.0) == Proportion(37, 64, 20.0)
    assert Proportion.of(0.5, 8, 9.0) == Proportion(4, 8)  # more than there are

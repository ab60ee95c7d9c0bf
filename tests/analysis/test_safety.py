import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.safety import NEAR_M, _at_limit, fall_count


@given(st.integers(1, 5), st.floats(0.1, 1.0))
def test_free_falls_are_counted_and_carrying_is_not(times, height):
    """g = 9.81 m/s^2 from a height onto the table, several times; then the same way by hand."""
    hz = 20.0
    t = np.arange(0, 1, 1 / hz)
    drop = np.maximum(height - 9.81 / 2 * t**2, 0.0)
    assert fall_count(np.tile(drop, times), hz) == times
    by_hand = np.maximum(height - 0.5 * np.arange(0, 3, 1 / hz), 0.0)
    assert fall_count(np.tile(by_hand, 1), hz) == 0
    assert fall_count(np.full(10, height), hz) == 0


def test_short_heights_have_no_falls():
    assert fall_count(np.zeros(0), 20) == fall_count(np.zeros(1), 20) == 0


def test_limits_of_the_workspace():
    workspace = [[-0.2, -0.2, 0.0], [0.2, 0.2, 0.3]]
    inside = np.array([[0.0, 0.0, 0.1]] * 3)
    assert _at_limit(inside, workspace) == 0.0
    at_end = inside.copy()
    at_end[1, 1] = 0.2 - NEAR_M / 2
    assert _at_limit(at_end, workspace) == pytest.approx(1 / 3)
    assert _at_limit(at_end, None) is None

"""MEED against hand-computed paths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from analysis.motion import meed_cm, step_lengths_cm


def test_the_final_pose_counts():
    # 3-4-5 triangle, then nothing, then 1 cm: lengths 5, 0, 1 cm over three control steps.
    path = np.array([[0, 0, 0], [0.03, 0.04, 0], [0.03, 0.04, 0]])
    steps = step_lengths_cm(path, np.array([0.03, 0.04, 0.01]))
    assert steps == pytest.approx([5, 0, 1])
    assert meed_cm(steps) == pytest.approx(2)
    assert meed_cm(steps, first=2) == pytest.approx(2.5)


def test_one_step_is_enough_and_none_is_not():
    assert meed_cm(step_lengths_cm(np.zeros((1, 3)), np.array([0, 0, 0.02]))) == pytest.approx(2)
    assert meed_cm(step_lengths_cm(np.zeros((0, 3)), np.zeros(3))) is None


def test_a_broken_pose_is_no_number():
    path = np.zeros((4, 3))
    path[2, 1] = np.nan
    assert meed_cm(step_lengths_cm(path, np.zeros(3))) is None


def test_a_pose_beyond_all_numbers_is_broken_too():
    path_m = np.zeros((3, 3))
    path_m[1] = 1e308
    assert meed_cm(step_lengths_cm(path_m, np.zeros(3))) is None
    assert meed_cm(np.full(3, 1e308)) is None


def test_single_precision_input_is_measured_in_double():
    path = (np.arange(1000, dtype=np.float32) * np.float32(1e-4))[:, None] * np.ones(3, np.float32)
    steps = step_lengths_cm(path, path[-1])
    assert steps.dtype == np.float64


@given(
    hnp.arrays(np.float64, (5, 3), elements=st.floats(-1, 1)),
    st.floats(0.1, 10),
    hnp.arrays(np.float64, 3, elements=st.floats(-5, 5)),
)
def test_meed_scales_with_the_path_and_ignores_where_it_is(path, scale, shift):
    whole = meed_cm(step_lengths_cm(path[:-1], path[-1]))
    moved = scale * path + shift
    again = meed_cm(step_lengths_cm(moved[:-1], moved[-1]))
    assert again == pytest.approx(scale * whole, abs=1e-9)
    straight = 100 * np.linalg.norm(path[-1] - path[0])
    assert whole * 4 >= straight - 1e-9  # the triangle inequality

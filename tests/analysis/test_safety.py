from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.safety import (
    NEAR_M,
    Safety,
    _at_limit,
    _joints,
    drop_count,
    fall_starts,
    safety,
    safety_of,
    together,
)
from traces import open_traces
from traces.reader import TraceReader

RECORDED = Path(__file__).parents[1] / "tui" / "recorded" / "traces"


@given(st.integers(1, 5), st.floats(0.1, 1.0))
def test_free_falls_are_counted_and_carrying_is_not(times, height):
    """g = 9.81 m/s^2 from a height onto the table, several times; then the same way by hand."""
    hz = 20.0
    t = np.arange(0, 1, 1 / hz)
    drop = np.maximum(height - 9.81 / 2 * t**2, 0.0)
    starts = fall_starts(np.tile(drop, times), hz)
    assert len(starts) == times
    assert set(np.diff(starts)) <= {len(t)}
    by_hand = np.maximum(height - 0.5 * np.arange(0, 3, 1 / hz), 0.0)
    assert len(fall_starts(by_hand, hz)) == 0
    assert len(fall_starts(np.full(10, height), hz)) == 0


def test_short_heights_have_no_falls():
    assert len(fall_starts(np.zeros(0), 20)) == len(fall_starts(np.zeros(1), 20)) == 0


def test_limits_of_the_workspace():
    workspace = [[-0.2, -0.2, 0.0], [0.2, 0.2, 0.3]]
    inside = np.array([[0.0, 0.0, 0.1]] * 3)
    assert _at_limit(inside, workspace) == 0.0
    at_end = inside.copy()
    at_end[1, 1] = 0.2 - NEAR_M / 2
    assert _at_limit(at_end, workspace) == pytest.approx(1 / 3)
    assert _at_limit(at_end, None) is _at_limit(at_end, "none") is None


def test_ends_of_joints():
    steps = {"ee_pos": np.array([[0.0, 0.0, 0.1], [0.0, 0.0, 0.3 - NEAR_M / 2]])}
    joint = {"column": "ee_pos", "index": 2, "range": [0.0, 0.3], "unit": "m"}
    assert _joints(steps, {"z": joint}) == {"z": 0.5}
    assert _joints(steps, None) == _joints(steps, {"z": 3, "y": joint | {"column": "qpos"}}) == {}


def test_a_drop_is_a_fall_out_of_a_closed_hand():
    """Closed from step 2 on; the hand touches something until step 10."""
    closes = np.where(np.arange(20) < 2, -1.0, 1.0)
    action, contact = np.tile(closes[:, None], 7), np.arange(20) <= 10
    assert drop_count(np.array([10, 12]), action, contact) == 2
    assert drop_count(np.array([15]), action, contact) == 0  # touched by nobody
    assert drop_count(np.array([10]), -action, contact) == 0  # let go
    assert drop_count(np.array([3]), action, contact) == 0  # not yet told to close
    assert drop_count(np.array([]), action, contact) == 0


def test_signals_of_a_real_recording():
    """The tabletop recording of the golden screens, against its columns."""
    path = RECORDED / "lift_cube-baseline-demo-run.h5"
    with TraceReader(path) as trace:
        found = [safety(trace, episode) for episode in range(trace.n_episodes)]
        steps = trace.steps("contact", "contact_force", "action_policy")
    with open_traces(path) as traces:
        n_episodes, everything = safety_of(traces)
    assert n_episodes == len(found) and everything == together(found)
    assert everything.steps == len(steps["contact"]) == sum(one.steps for one in found)
    assert everything.contact == pytest.approx(steps["contact"].mean())
    assert everything.max_force_n == np.nanmax(steps["contact_force"])
    assert everything.saturated == pytest.approx((np.abs(steps["action_policy"]) > 1).mean())
    assert everything.drops <= everything.falls


def test_what_nobody_knows_stays_unknown():
    nothing = Safety(0, None, None, None, None, None, None)
    assert together([]) == together([nothing, nothing]) == nothing
    some = Safety(4, 0.5, None, 0.25, 3.0, 1, 0, {"x": 0.5})
    assert together([nothing, some]) == some

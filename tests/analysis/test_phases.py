"""Phases and gripper events of hand-written episodes."""

import numpy as np

from analysis.phases import PHASES, gripper_events, phases, told_to_close
from analysis.spans import Spans

CONTACT = np.array([0, 0, 1, 1, 0, 1, 0, 0, 1], bool)
CLOSING = np.array([0, 1, 0, 1, 1, 1, 0, 1, 0], bool)
SPANS = Spans(np.array([0, 7, 7]), np.array([7, 0, 2]))


def test_phases_step_by_step():
    found = phases(CONTACT, CLOSING, SPANS)
    letters = np.select([found[name] for name in PHASES], ["a", "c", "t"], "?")
    assert "".join(letters) == "aactctcac"
    assert np.sum([found[name] for name in PHASES], axis=0).tolist() == [1] * 9


def test_without_a_touch_all_is_approach():
    found = phases(np.zeros(9, bool), CLOSING, SPANS)
    assert found["approach"].all()


def test_events_do_not_cross_episodes():
    closes, opens = gripper_events(CLOSING, SPANS)
    # 0 1 0 1 1 1 0 | | 1 0
    assert closes.tolist() == [2, 0, 0]
    assert opens.tolist() == [2, 0, 1]


def test_the_last_entry_of_the_action_closes():
    action = np.array([[1.0, 1.0, -0.1], [-1.0, -1.0, 0.1], [0.0, 0.0, 0.0]])
    assert told_to_close(action).tolist() == [False, True, False]
    assert told_to_close(np.zeros((2, 0))).tolist() == [False, False]

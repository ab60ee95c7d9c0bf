"""What decisions drove, worked out by hand from six control steps and three decisions."""

import numpy as np
import pytest

from analysis.signals import SIGNALS, decision_signals
from traces.collection import open_traces


def test_a_decision_has_the_mean_of_the_steps_it_drove(traces, tmp_path):
    closing = np.full((6, 7), -1.0)
    closing[3:, -1] = 1.0
    steps = {
        "action": closing,
        "contact": np.array([False, False, True, True, True, False]),
        "gripper": np.outer([5, 4, 3, 3, 3, 1], [0.01, -0.01]),
    }
    one = traces.episode("a", [1.0, 3.0, 2.0, 2.0, 5.0, 4.0], steps=steps, executed=[2, 3, 1])
    with open_traces(traces.write(tmp_path / "t.h5", [one])) as opened:
        found = dict(zip(SIGNALS, decision_signals(opened), strict=True))
    expected = {
        "speed": [2, 3, 4],
        "moves x": [2, 3, 4],
        "moves y": [0, 0, 0],
        "moves z": [0, 0, 0],
        "opening": [9, 6, 2],
        "closing": [0, 2 / 3, 1],
        "contact": [0, 1, 0],
        "phase approach": [1, 0, 0],
        "phase contact": [0, 1 / 3, 1],
        "phase transport": [0, 2 / 3, 0],
        "time": [0, 2 / 6, 5 / 6],
    }
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].tolist() == pytest.approx(values), name


def test_episodes_of_several_files_do_not_run_into_each_other(traces, tmp_path):
    made = [traces.episode("a", [1.0, 2.0]), traces.episode("b", [3.0])]
    traces.write(tmp_path / "one.h5", made)
    traces.write(tmp_path / "two.h5", [traces.episode("c", [4.0, 6.0], executed=[2])])
    with open_traces(tmp_path) as opened:
        found = dict(zip(SIGNALS, decision_signals(opened), strict=True))
    assert found["speed"].tolist() == pytest.approx([1, 2, 3, 5])
    assert found["time"].tolist() == pytest.approx([0, 0.5, 0, 0])

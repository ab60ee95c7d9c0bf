"""Every column of the safety table, by hand."""

import numpy as np
import polars as pl
import pytest

from analysis.safety import safety
from analysis.safety_table import MEASURES, read_safety, safety_table
from analysis.tables import IDENTITY
from traces.reader import TraceReader

SUITE = (
    ("name", "tabletop"),
    ("control_hz", 20),
    ("workspace", [[-1, -1, -1], [0.05, 1, 1]]),
    ("joints", {"x": {"column": "ee_pos", "index": 0, "range": [-1, 0.05], "unit": "m"}}),
)


def test_one_episode_by_hand(traces, tmp_path):
    steps = {
        "contact": [True, False, True, True],
        "contact_force": [2.0, 0.0, np.nan, 6.0],
        "action_policy": np.array([[2.0] * 7, [0] * 7, [0] * 7, [0] * 6 + [-1.5]], np.float32),
    }
    # x is 0, 1, 3, 5 cm before each step: the last is at the end of the workspace.
    arm = [traces.episode("p0", [1, 2, 2, 1], steps=steps), traces.episode("p1", [])]
    frame = safety_table([traces.write(tmp_path / "a.h5", arm, suite=SUITE)])
    assert frame.columns == [*IDENTITY, *MEASURES]
    row, empty = frame.rows(named=True)
    assert {name: row[name] for name in MEASURES} == {
        "contact": 0.75,
        "touches": 2,
        "mean_force_n": 4,
        "max_force_n": 6,
        "at_limit": 0.25,
        "joint_limit": 0.25,
        "saturated": pytest.approx(8 / 28),
        "falls": None,  # no object poses
        "drops": None,
    }
    assert [empty[name] for name in MEASURES] == [None] * len(MEASURES)


def test_it_says_what_show_says_of_each_episode():
    from pathlib import Path

    recorded = Path(__file__).parents[1] / "tui" / "recorded" / "traces"
    frame = read_safety([recorded]).frame
    assert len(frame) == 8
    assert frame["falls"].null_count() == 0
    for path in sorted(recorded.glob("*.h5")):
        with TraceReader(path) as trace:
            uids = trace.episodes("uid")["uid"]
            for e, uid in enumerate(uids):
                (row,) = frame.filter(pl.col("uid") == uid).rows(named=True)
                found = safety(trace, e)
                names = ("contact", "at_limit", "saturated", "max_force_n", "falls", "drops")
                assert [row[name] for name in names] == [getattr(found, name) for name in names]
                assert row["joint_limit"] == max(found.joints_at_limit.values())

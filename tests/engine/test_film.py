"""Filming a recorded episode again: the recording of tests/tui/recorded, played in its scene."""

import shutil
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest

from engine.envs.tabletop import TabletopEnv
from engine.film import film, write_video
from traces.errors import FileExists, UnknownName, UserError
from traces.reader import TraceReader

RECORDED = Path(__file__).parents[1] / "tui" / "recorded" / "traces"


@pytest.fixture
def path(tmp_path):
    return Path(shutil.copy(RECORDED / "lift_cube-baseline-demo-run.h5", tmp_path / "a.h5"))


def test_the_hand_goes_where_it_went_and_is_seen(path):
    with TraceReader(path) as trace:
        frames = film(trace, 1)
        n_steps = int(trace.episodes("n_steps")["n_steps"][1])
        row = {n: v[1] for n, v in trace.episodes("task_id", "init_state", "scene_seed").items()}
    assert len(frames) == n_steps + 1
    assert {frame.shape for frame in frames} == {(256, 256, 3)}
    env = TabletopEnv(int(row["task_id"]))
    env.reset(seed=int(row["scene_seed"]), options={"init_state": int(row["init_state"])})
    np.testing.assert_array_equal(frames[0], env.render())
    env.close()
    moved = [np.abs(a.astype(int) - b).max() for a, b in pairwise(frames)]
    assert min(moved) > 0


def test_another_camera_sees_another_picture(path):
    with TraceReader(path) as trace:
        above, wrist = (film(trace, 0, camera)[5] for camera in ("agentview", "wrist"))
        assert np.abs(above.astype(int) - wrist).mean() > 10
        with pytest.raises(UnknownName, match=r"camera 'roof'; available: agentview, wrist"):
            film(trace, 0, "roof")


@pytest.mark.parametrize(("place", "step"), [("steps/action", 3), ("steps/ee_pos", 4)])
def test_another_path_is_refused(path, place, step):
    with TraceReader(path) as trace:
        first = trace.step_span(2)[0]
    with h5py.File(path, "r+", locking=False) as file:
        file[place][first + step, 0] += 1e-6 if "ee_pos" in place else -0.5
    said = r"episode 2 of .*a\.h5 cannot be filmed again: .* m away .* at step 4; record with"
    with TraceReader(path) as trace, pytest.raises(UserError, match=said):
        film(trace, 2)


def test_another_suite_is_refused(path):
    with h5py.File(path, "r+", locking=False) as file:
        file["episodes/suite"][0] = b"libero_10"
    with TraceReader(path) as trace, pytest.raises(UnknownName, match="suite 'libero_10'"):
        film(trace, 0)


def test_a_video_overwrites_nothing_and_leaves_nothing(tmp_path):
    frames = [np.zeros((32, 32, 3), np.uint8)] * 3
    write_video(tmp_path / "a.gif", frames, 20.0)
    with pytest.raises(FileExists):
        write_video(tmp_path / "a.gif", frames, 20.0)
    with pytest.raises(ValueError, match="all input arrays must have the same shape"):
        write_video(tmp_path / "b.gif", [*frames, np.zeros((16, 16, 3), np.uint8)], 20.0)
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"]

"""`record --keep sim`: the recorded states put the very same pictures up again."""

import io
from pathlib import Path

import h5py
import imageio.v3 as iio
import numpy as np
import pytest

from engine.config import RecordConfig
from engine.envs.tabletop import TabletopEnv, sim_state_size
from engine.film import film
from engine.record import record
from traces.check import check
from traces.condition import BASELINE
from traces.errors import NotATrace, UserError
from traces.reader import TraceReader


@pytest.fixture(scope="module")
def path(loaded, tmp_path_factory):
    """Two episodes with frames and states, a decision every 5 steps."""
    folder = tmp_path_factory.mktemp("sim")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = RecordConfig(episodes=2, replan=5, capture=("light",), keep=("frames", "sim"))
        (path,) = record(config, loaded, [BASELINE], "one")
    return folder / path


@pytest.fixture
def trace(path):
    with TraceReader(path) as trace:
        yield trace


def scene(trace, episode):
    env = TabletopEnv(0)
    row = {n: v[episode] for n, v in trace.episodes("init_state", "scene_seed").items()}
    env.reset(seed=int(row["scene_seed"]), options={"init_state": int(row["init_state"])})
    return env


def test_a_state_before_every_step_and_one_at_the_end(trace):
    n_steps = trace.episodes("n_steps")["n_steps"]
    for episode in range(2):
        states = trace.sim_path(episode)
        assert states.shape == (n_steps[episode] + 1, sim_state_size())
        np.testing.assert_allclose(np.diff(states[:, 0]), 1 / 20)  # s, the first number is time
    assert not check(trace.path)


@pytest.mark.parametrize("episode", [0, 1])
def test_states_give_the_recorded_pictures_bit_for_bit(trace, episode):
    env = scene(trace, episode)
    states, start = trace.sim_path(episode), trace.step_span(episode)[0]
    for camera in ("image", "image2"):
        steps, pictures = trace.frames(camera, episode=episode)
        assert len(pictures) > 3
        for step, png in zip(steps - start, pictures, strict=True):
            env.set_sim_state(states[step])
            seen = env._observation()["pixels"][camera]
            np.testing.assert_array_equal(seen, iio.imread(io.BytesIO(png), extension=".png"))
    env.close()


def test_states_are_those_that_the_actions_lead_to(trace):
    env = scene(trace, 1)
    states = trace.sim_path(1)
    for state, action in zip(states, trace.steps("action", episode=1)["action"], strict=False):
        np.testing.assert_array_equal(env.sim_state(), state)
        env.step(action)
    np.testing.assert_array_equal(env.sim_state(), states[-1])
    env.close()


def test_a_film_shows_the_states(trace):
    frames, env = film(trace, 0, "wrist"), scene(trace, 0)
    actions = trace.steps("action", episode=0)["action"]
    assert len(frames) == len(actions) + 1
    for frame, action in zip(frames, actions, strict=False):
        np.testing.assert_array_equal(frame, env.render("wrist"))
        env.step(action)
    env.close()


def test_states_of_another_scene_are_refused():
    env = TabletopEnv(0)
    with pytest.raises(ValueError, match=r"not a state of this scene: an array of shape \(3,\)"):
        env.set_sim_state(np.zeros(3))
    env.close()


def test_missing_states_are_said(path, tmp_path):
    copy = tmp_path / "a.h5"
    copy.write_bytes(Path(path).read_bytes())
    with h5py.File(copy, "r+") as file:
        file["sim_state/step"][3] = 2
    with TraceReader(copy) as trace, pytest.raises(NotATrace, match="lacks simulator states"):
        trace.sim_path(0)
    with h5py.File(copy, "r+") as file:
        del file["sim_state"]
    with TraceReader(copy) as trace, pytest.raises(UserError, match="record --keep sim"):
        trace.sim_path(0)

import numpy as np
import pytest

from engine.envs.vector import VectorEnv
from traces.errors import UnknownName, UserError

ACTIONS = np.random.default_rng(0).uniform(-1, 1, (6, 4, 7)).astype(np.float32)


def rollout(n_workers):
    """Four environments, of which one rests from the third step on."""
    seen = []
    with VectorEnv("tabletop", 1, 4, n_workers) as env:
        env.reset({slot: (slot, 2 * slot) for slot in range(4)}, frames=False)
        for t, actions in enumerate(ACTIONS):
            active = [slot for slot in range(4) if t < 3 or slot != 2]
            moments = env.step({slot: actions[slot] for slot in active}, active, frames=False)
            assert list(moments) == active
            seen.append(moments)
    return seen


def test_workers_change_no_byte():
    for one, other in zip(rollout(1), rollout(3), strict=True):
        for slot in one:
            for key in ("image", "image2"):
                np.testing.assert_array_equal(
                    one[slot].observation["pixels"][key], other[slot].observation["pixels"][key]
                )
            np.testing.assert_array_equal(one[slot].objects, other[slot].objects)


def test_frames_come_only_when_asked_for():
    with VectorEnv("tabletop", 0, 1, 1) as env:
        assert env.reset({0: (0, 0)}, frames=False)[0].frame is None
        assert env.reset({0: (0, 0)}, frames=True)[0].frame.shape == (256, 256, 3)


def test_an_error_in_a_worker_reaches_the_caller():
    with VectorEnv("tabletp", 0, 1, 1) as env, pytest.raises(UnknownName, match="tabletop"):
        env.reset({0: (0, 0)}, frames=False)
    with VectorEnv("tabletop", 0, 1, 1) as env:
        env.reset({0: (0, 0)}, frames=False)
        with pytest.raises(ValueError, match="expected 7 finite numbers"):
            env.step({0: np.zeros(3)}, [], frames=False)


def test_a_worker_that_dies_is_named():
    with VectorEnv("tabletop", 0, 2, 2) as env:
        env.reset({0: (0, 0), 1: (1, 1)}, frames=False)
        env._processes[1].kill()
        with pytest.raises(UserError, match=r"worker died \(exit code -9\).*doctor"):
            for _ in range(3):
                env.step({slot: np.zeros(7) for slot in range(2)}, [], frames=False)


def test_only_who_looks_gets_pixels():
    with VectorEnv("tabletop", 0, 2, 1) as env:
        env.reset({0: (0, 0), 1: (1, 1)}, frames=False)
        moments = env.step({slot: np.zeros(7) for slot in range(2)}, [1], frames=False)
        assert "pixels" not in moments[0].observation
        assert set(moments[1].observation["pixels"]) == {"image", "image2"}
        assert "pixels" in env.reset({0: (0, 0)}, frames=False)[0].observation

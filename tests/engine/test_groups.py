"""Which initial states a curriculum draws, and what a group of one outcome is worth."""

import numpy as np
import pytest

from engine.config import TrainConfig
from engine.groups import FLOOR, curriculum
from traces.errors import UserError


def test_undecided_states_are_drawn_most():
    weights = curriculum({"0": [1.0] * 5, "1": [0.5] * 5, "2": [0.0] * 5}, ["0", "1", "2", "3"])
    assert weights.sum() == pytest.approx(1)
    assert weights[1] > weights[3] > weights[0]  # undecided, unknown, solved
    assert weights[0] == pytest.approx(weights[2])
    assert weights.min() > FLOOR / 2


def test_an_unseen_state_has_the_weight_of_the_prior():
    """E[p (1 - p)] under Beta(1, 1) is 1/6."""
    weights = curriculum({"0": [1.0]}, ["0", "1"])  # Beta(2, 1): 2 / (3 * 4)
    np.testing.assert_allclose(weights[0] / weights[1], 1.0)
    np.testing.assert_allclose(curriculum({}, ["0", "1", "2"]), 1 / 3)


def test_each_likelihood_has_its_own_learning_rate():
    assert TrainConfig().lr == 1e-4
    assert TrainConfig(likelihood="gaussian").lr < 1e-4
    assert TrainConfig(likelihood="gaussian", lr=1e-4).lr == 1e-4


BAD = [
    ({"group_size": 1}, "group_size must be at least 2"),
    ({"likelihood": "flow-sd"}, "flow-sde"),
    ({"noise_level": 0.0}, "without noise there is no likelihood"),
    ({"train": "vision"}, "available: expert, full, lora"),
    ({"train": "lora", "lora_rank": 0}, "lora_rank must be at least 1"),
    ({"stochastic_steps": 5}, "to 4, the denoising steps"),
    ({"mirror": ("tensorbord",)}, "tensorboard"),
    ({"tasks": (1, 1)}, "different ones"),
    ({"lr_end": 1.5}, "lr_end must lie in"),
    ({"advantage": "state"}, "--scenes suite"),
    ({"curriculum": True}, "--scenes suite"),
    ({"lr": float("nan")}, "lr must be greater than 0"),
    ({"dual_clip": 1.0}, "greater than 1"),
    ({"eval_episodes": 2000}, "evaluation scenes"),
    ({"noise_low": 0.5}, "noise_low <= noise_high"),
    ({"keep": ("sim",), "traces": 1}, "available: frames"),
    ({"keep": ("frames",)}, "add --traces N"),
]


@pytest.mark.parametrize(("settings", "says"), BAD, ids=[next(iter(s)) for s, _ in BAD])
def test_settings_are_checked(settings, says):
    with pytest.raises(UserError, match=says):
        TrainConfig(**settings)

"""The shipped policy and what the engine's tests build on it."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: tests use no network

import pytest

from engine.actor import BATCH, Request
from engine.envs.tabletop import TabletopEnv
from engine.noise import NoiseKey
from engine.policies.smolvla import EMBEDDED, load_policy, policy_state


@pytest.fixture(scope="session")
def loaded():
    """The embedded policy as shipped."""
    return load_policy(EMBEDDED)


@pytest.fixture(scope="session")
def requests():
    """Eight first moments of held-out scenes, with instructions of different lengths."""
    words = ("", "quickly", "slowly", "", "fast", "", "gently", "")
    env = TabletopEnv(0)
    asked = []
    for i in range(BATCH):
        observation, _ = env.reset(seed=i, options={"init_state": i})
        text = f"{env.instruction()} {words[i]}".strip()
        state = policy_state(observation["robot_state"])
        asked.append(Request(observation["pixels"], state, text, NoiseKey(7, 0, i, 0), 0))
    env.close()
    return asked

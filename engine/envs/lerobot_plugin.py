r"""The suite `tabletop` for lerobot's own tools, through its plugin mechanism.

    cd POLICY_FOLDER   # whose processors and config name its `vlm/` by a relative path
    lerobot-eval --policy.path=. --env.type=tabletop --env.task=push_cube_to_zone \
        --env.discover_packages_path=engine.envs --eval.n_episodes=10 --seed=0

Episode i plays the held-out scene seed + i, the one that `vla-trace eval` gives that number.
"""

from dataclasses import dataclass, field

import gymnasium as gym
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.envs.utils import freeze_after_episode_end
from lerobot.processor import PolicyProcessorPipeline
from lerobot.processor.env_processor import LiberoProcessorStep
from torch import Tensor

from engine.envs.tabletop import CONTROL_HZ, N_INIT_STATES, TASKS, TabletopEnv, task_id_of


class SeededTabletop(TabletopEnv):
    """The initial state follows from the seed; attributes as lerobot's evaluation reads them."""

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Put up the scene of the seed."""
        return super().reset(seed=seed, options={"init_state": (seed or 0) % N_INIT_STATES})

    @property
    def task_description(self) -> str:
        """What the policy is told."""
        return self.instruction()

    @property
    def _max_episode_steps(self) -> int:
        return self.task.horizon


class Upright(LiberoProcessorStep):
    """LIBERO's state vector; images stay as they are, which here is upright."""

    def _process_observation(self, observation: dict[str, Tensor]) -> dict[str, Tensor]:
        images = {k: v for k, v in observation.items() if k.startswith("observation.images.")}
        return super()._process_observation(observation) | images


@EnvConfig.register_subclass("tabletop")
@dataclass
class TabletopConfig(EnvConfig):
    """Options after `--env.`."""

    task: str = "lift_cube"
    fps: int = CONTROL_HZ
    features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {
            "action": PolicyFeature(FeatureType.ACTION, (7,)),
            "pixels/image": PolicyFeature(FeatureType.VISUAL, (64, 64, 3)),
            "pixels/image2": PolicyFeature(FeatureType.VISUAL, (64, 64, 3)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (8,)),
        }
    )
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            "action": "action",
            "pixels/image": "observation.images.image",
            "pixels/image2": "observation.images.image2",
            "agent_pos": "observation.state",
        }
    )

    @property
    def gym_kwargs(self) -> dict:
        """Nothing: environments are made by `create_envs`."""
        return {}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict:
        """{suite: {task_id: vector environment}}; one process, as MuJoCo's contexts like it."""
        task_id = task_id_of(self.task)
        make = freeze_after_episode_end(lambda: SeededTabletop(task_id))
        return {TASKS[task_id].name: {task_id: gym.vector.SyncVectorEnv([make] * n_envs)}}

    def get_env_processors(self) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
        """From LIBERO's observations to the policy's, and nothing on the way back."""
        return PolicyProcessorPipeline(steps=[Upright()]), PolicyProcessorPipeline(steps=[])

"""Groups of episodes: which scenes an update plays, what its groups teach, which are drawn anew.

Members of a group share suite, task, initial state and scene seed and differ in the policy's noise
alone, so that their returns compare actions and not scenes. A group whose members all had the same
return teaches nothing; others are drawn in its place (DAPO, arXiv:2503.14476), up to a cap.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.collect import Episode, Explorer, play
from engine.config import TRAINING_SCENES, TrainConfig
from engine.envs import load_suite
from engine.envs.vector import VectorEnv
from engine.grpo import advantages
from engine.noise import NoiseKey
from engine.rollout import EpisodePlan
from traces.schema import episode_uid

SCENES_OF_TRAINING = 2  # stream of the seeds below, beside those of other random choices
REMEMBERED = 5  # visits of an initial state that its running baseline averages
FLOOR = 0.02  # weight that the curriculum gives to each whatever is known of it

Visits = dict[str, list[float]]
"""Task ("1") or initial state ("1/23") to the mean returns of its latest groups."""


@dataclass
class Group:
    """Episodes of one scene."""

    number: int
    """within the update"""
    attempt: int
    """round in which it was drawn"""
    episodes: list[Episode] = field(default_factory=list)
    advantages: np.ndarray | None = None

    @property
    def returns(self) -> np.ndarray:
        """(G,)."""
        return np.array([episode.record.episode["return"] for episode in self.episodes])

    @property
    def accepted(self) -> bool:
        """Whether it teaches anything."""
        return self.advantages is not None and bool(np.any(self.advantages))

    @property
    def reason(self) -> str:
        """Why it does not; empty when it does."""
        return "" if self.accepted else "every member had the same return"


class Collector:
    """Plays the groups of an update."""

    def __init__(
        self,
        config: TrainConfig,
        explorer: Explorer,
        envs: Mapping[int, VectorEnv],
        run_id: str,
        emit: Callable[..., None],
    ):
        self.config, self.explorer, self.envs = config, explorer, envs
        self.run_id, self.emit = run_id, emit
        self.suite = load_suite(config.suite)

    def collect(self, update: int, visits: Visits) -> list[Group]:
        """Play groups until enough of them have variance, or the rounds are used up.

        `visits` is brought up to date.
        """
        groups: list[Group] = []
        for attempt in range(self.config.attempts):
            missing = self.config.groups - sum(group.accepted for group in groups)
            if missing <= 0:
                break
            new = [Group(len(groups) + i, attempt) for i in range(missing)]
            total = missing * self.config.group_size
            self.emit("phase", name="rollout", update=update, attempt=attempt, total=total)
            self._play(update, new, visits)
            for group in new:
                self._judge(group, visits)
                self._emit(update, group)
            groups += new
        return groups

    def _play(self, update: int, groups: list[Group], visits: Visits) -> None:
        """Give groups their episodes, one task after the other."""
        size = self.config.group_size
        keep = self.config.keep if self.config.is_traced(update) else ()
        plans = [[self.plan(update, g, member, visits) for member in range(size)] for g in groups]
        for task_id, env in self.envs.items():
            here = [i for i, members in enumerate(plans) if members[0].task_id == task_id]
            wanted = [plan for i in here for plan in plans[i]]
            slots = self.config.slots
            played = iter(play(env, self.explorer, wanted, slots, self._ended, keep))
            for i in here:
                groups[i].episodes = [next(played) for _ in range(size)]

    def plan(self, update: int, group: Group, member: int, visits: Visits) -> EpisodePlan:
        """The scene follows from the group, the noise from the member too."""
        config = self.config
        rng = np.random.default_rng([config.seed, SCENES_OF_TRAINING, update, group.number])
        scene = int(rng.integers(TRAINING_SCENES.start, TRAINING_SCENES.stop))
        init_state, task_id = scene, config.tasks[group.number % len(config.tasks)]
        if config.curriculum and len(config.tasks) > 1:
            names = [str(task) for task in config.tasks]
            task_id = int(rng.choice(config.tasks, p=curriculum(visits, names)))
        if config.scenes == "suite":
            states = [f"{task_id}/{state}" for state in range(self.suite.N_INIT_STATES)]
            weights = curriculum(visits, states) if config.curriculum else None
            init_state = int(rng.choice(len(states), p=weights))
        return EpisodePlan(
            uid=episode_uid(self.run_id, update, group.number, group.attempt, member),
            task_name=self.suite.TASKS[task_id].name,
            task_id=task_id,
            suite=config.suite,
            instruction=self.suite.instruction_of(task_id, init_state),
            init_state=init_state,
            scene_seed=scene,
            key=NoiseKey(config.seed, update, group.number, member),
        )

    def _judge(self, group: Group, visits: Visits) -> None:
        """Advantages of the members, from their own returns or from earlier visits."""
        returns, plan = group.returns, group.episodes[0].plan
        state = f"{plan.task_id}/{plan.init_state}"
        earlier = visits.get(state)
        mean = float(np.mean(earlier)) if earlier else None
        group.advantages = advantages(returns, self.config.advantage, mean)
        again = [str(plan.task_id)] + ([state] if self.config.scenes == "suite" else [])
        for name in again:
            visits[name] = [*visits.get(name, []), float(returns.mean())][-REMEMBERED:]

    def _ended(self, episode: Episode) -> None:
        """Say so at once: who watches sees groups fill."""
        plan = episode.plan
        self.emit(
            "episode",
            uid=plan.uid,
            update=plan.key.update,
            group=plan.key.group,
            member=plan.key.member,
            task_id=plan.task_id,
            init_state=plan.init_state,
            scene_seed=plan.scene_seed,
            success=episode.success,
            n_steps=episode.n_steps,
            **{"return": episode.record.episode["return"]},
        )

    def _emit(self, update: int, group: Group) -> None:
        self.emit(
            "group",
            update=update,
            group=group.number,
            attempt=group.attempt,
            n_members=len(group.episodes),
            n_success=sum(e.success for e in group.episodes),
            advantages=group.advantages.tolist(),
            accepted=group.accepted,
            reason=group.reason,
        )


def curriculum(visits: Visits, names: Sequence[str]) -> np.ndarray:
    """(N,) probability of each task or initial state: most where success is undecided.

    Weight = E[p (1 - p)] + floor, with p from a Beta(1, 1) prior and the returns seen.
    """
    weights = np.empty(len(names))
    for place, name in enumerate(names):
        seen = visits.get(name, [])
        a, b = 1 + sum(seen), 1 + len(seen) - sum(seen)
        weights[place] = a * b / ((a + b) * (a + b + 1)) + FLOOR
    return weights / weights.sum()

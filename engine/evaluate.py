"""Roll out held-out scenes without writing a trace: for model cards, sweeps and evaluation."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext

import numpy as np

from engine.actor import BATCH, Actor
from engine.collect import play
from engine.config import EvalConfig
from engine.envs import load_suite
from engine.envs.vector import VectorEnv
from engine.likelihoods.flow_sde import FlowSDE
from engine.noise import NoiseKey
from engine.policies.smolvla import LoadedPolicy
from engine.rollout import EpisodePlan, run_block
from traces.writer import EpisodeRecord


def held_out(
    suite: str,
    task_id: int,
    seed: int,
    told: Callable[[str, int], str] = lambda instruction, init_state: instruction,
    film: bool = False,
) -> EpisodePlan:
    """The evaluation episode of a scene seed; arguments as in `rollouts`."""
    module = load_suite(suite)
    init_state = seed % module.N_INIT_STATES
    return EpisodePlan(
        uid=f"evaluate/{seed}",
        task_name=module.TASKS[task_id].name,
        task_id=task_id,
        suite=suite,
        instruction=told(module.instruction_of(task_id, init_state), init_state),
        init_state=init_state,
        scene_seed=seed,
        key=NoiseKey(0, 0, seed, 0),
        video=film,
    )


def outcomes(
    config: EvalConfig,
    policies: Sequence[LoadedPolicy],
    task_id: int,
    env: VectorEnv | None = None,
    played: Callable[[int], None] = lambda n: None,
) -> list[list[bool]]:
    """Which held-out scenes each policy solves, with the deterministic sampler.

    Scenes, initial noise, denoising steps and replanning are the same for every policy.

    Args:
        config: how many scenes, from which seed, and how a policy is asked.
        policies: whom to compare.
        task_id: the task.
        env: `config.slots` environments of that task; made and closed here if absent.
        played: is told how many episodes have ended.
    """
    actors = [Actor(p, FlowSDE(config.steps, 0.0), config.replan, wanted=()) for p in policies]
    return outcomes_of(config, actors, task_id, env, played)


def outcomes_of(
    config: EvalConfig,
    actors: Sequence[Actor],
    task_id: int,
    env: VectorEnv | None = None,
    played: Callable[[int], None] = lambda n: None,
) -> list[list[bool]]:
    """As `outcomes`, of actors, which may be steered."""
    count = itertools.count(1)
    plans = [held_out(config.suite, task_id, config.seed + i) for i in range(config.episodes)]
    slots, won = min(config.slots, config.episodes), []
    making = VectorEnv(config.suite, task_id, slots, config.workers) if env is None else None
    with making or nullcontext(env) as playing:
        for actor in actors:
            episodes = play(playing, actor, plans, slots, lambda _: played(next(count)))
            won.append([episode.success for episode in episodes])
    return won


def rollouts(
    actor: Actor,
    suite: str,
    task_id: int,
    seeds: Iterable[int],
    *,
    told: Callable[[str, int], str] = lambda instruction, init_state: instruction,
    film: bool = False,
    env: VectorEnv | None = None,
) -> Iterator[tuple[EpisodePlan, EpisodeRecord, list[np.ndarray]]]:
    """Play one episode a scene seed; scene and noise of a seed are the same for every actor.

    Yields plan, record and, with `film`, the frames (256, 256, 3) of every step and the end.

    Args:
        actor: the policy, its sampler and what is done to it.
        suite: name of the suite.
        task_id: the task.
        seeds: scene seeds; the initial state is seed mod the suite's number of them.
        told: from the scene's own instruction and initial state to what the policy is told.
        film: keep frames, which costs a rendering at video size every step.
        env: BATCH environments of that task, which stay open; made and closed here if absent.
    """
    plans = [held_out(suite, task_id, seed, told, film) for seed in seeds]
    with nullcontext(env) if env else VectorEnv(suite, task_id, BATCH, 1) as playing:
        for start in range(0, len(plans), BATCH):
            block = plans[start : start + BATCH]
            for plan, (record, frames) in zip(block, run_block(playing, actor, block), strict=True):
                yield plan, record, frames

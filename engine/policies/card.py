"""Measure the embedded policy on held-out scenes and write docs/policy.md: `make card`.

Scene seeds 0 to 99 and the suite's own initial states; behaviour cloning saw neither. The sampler
is the shipped one (flow-SDE, replanning every step), as in `vla-trace record`.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from engine.actor import BATCH, Actor, Decision, Request
from engine.envs.tabletop import COLOURS, N_INIT_STATES, SUITE, TASKS, instruction_of, targets_of
from engine.envs.vector import VectorEnv
from engine.likelihoods.flow_sde import FlowSDE
from engine.noise import NoiseKey
from engine.policies.smolvla import EMBEDDED, LoadedPolicy, load_policy
from engine.policies.tiny import new_policy
from engine.policies.words import SPEED_WORDS
from engine.rollout import EpisodePlan, run_block
from traces.writer import EpisodeRecord

LIFTED = 0.045  # m, a cube's centre above this has been picked up


@dataclass(frozen=True)
class Outcome:
    """One episode in numbers."""

    success: bool
    meed_cm: float
    n_steps: int
    grasped: str
    """colour of the first cube lifted off the table; empty if none"""
    named: str
    """first colour in the instruction"""


class RandomActor(Actor):
    """Uniform actions instead of the policy's: what chance alone achieves."""

    def decide(self, requests: list[Request | None]) -> list[Decision | None]:
        """As the policy, with the action replaced."""
        decisions = super().decide(requests)
        return [
            d and replace(d, action=2 * np.float32(_uniform(r)) - 1)
            for d, r in zip(decisions, requests, strict=True)
        ]


def _uniform(request: Request) -> np.ndarray:
    """(1, 7) uniform on [0, 1], from the episode's own noise."""
    normal = request.key.initial(request.decision, (1, 7))
    return 0.5 * (1 + np.tanh(0.8 * normal))


def evaluate(
    actor: Actor, task_id: int, seeds: Iterable[int], say: str = "", shift: int = 0
) -> list[Outcome]:
    """Roll out held-out scenes.

    Args:
        actor: the policy.
        task_id: the task.
        seeds: scene seeds; initial state = seed mod 50.
        say: speed word put at the end of the instruction.
        shift: name the colour this many places further on than the scene's own.
    """
    plans = [
        EpisodePlan(
            uid=f"card/{seed}",
            task_name=TASKS[task_id].name,
            task_id=task_id,
            suite=SUITE,
            instruction=_instruction(task_id, seed % N_INIT_STATES, say, shift),
            init_state=seed % N_INIT_STATES,
            scene_seed=seed,
            key=NoiseKey(0, 0, seed, 0),
        )
        for seed in seeds
    ]
    outcomes = []
    with VectorEnv(SUITE, task_id, BATCH, 2) as env:
        for start in tqdm(range(0, len(plans), BATCH), f"{TASKS[task_id].name} {say}", leave=False):
            block = plans[start : start + BATCH]
            for plan, (record, _) in zip(block, run_block(env, actor, block), strict=True):
                outcomes.append(_outcome(plan, record))
    return outcomes


def _instruction(task_id: int, init_state: int, say: str, shift: int) -> str:
    text = instruction_of(task_id, init_state)
    if shift:
        named = targets_of(task_id, init_state)[0]
        text = text.replace(named, COLOURS[(COLOURS.index(named) + shift) % len(COLOURS)])
    return f"{text} {say}".strip()


def _outcome(plan: EpisodePlan, record: EpisodeRecord) -> Outcome:
    path = np.vstack([record.steps["ee_pos"], record.episode["final_ee_pos"]])
    heights = record.objects["pos"][:, 2].reshape(len(path) - 1, -1)[:, : len(COLOURS)]
    up = heights > LIFTED
    first = int(up.any(axis=1).argmax())
    return Outcome(
        success=bool(record.episode["success"]),
        meed_cm=100 * float(np.linalg.norm(np.diff(path, axis=0), axis=1).mean()),
        n_steps=len(path) - 1,
        grasped=COLOURS[int(heights[first].argmax())] if up.any() else "",
        named=next(w for w in plan.instruction.split() if w in COLOURS),
    )


def measure(loaded: LoadedPolicy, n: int, n_words: int) -> dict:
    """Every table of the card as plain numbers; n scenes a cell, n_words for each synonym."""
    sampler = FlowSDE(loaded.policy.config.num_steps)
    actor = Actor(loaded, sampler)
    folder = loaded.path / "vlm"
    untrained = replace(loaded, policy=new_policy(folder, seed=0).eval().requires_grad_(False))
    results: dict = {"sha256": loaded.sha256, "n": n, "n_words": n_words, "cells": {}}

    def cell(name: str, outcomes: list[Outcome]) -> None:
        grasps = [o for o in outcomes if o.grasped]
        results["cells"][name] = {
            "n": len(outcomes),
            "successes": sum(o.success for o in outcomes),
            "meed_cm": float(np.mean([o.meed_cm for o in outcomes])),
            "meed_sd": float(np.std([o.meed_cm for o in outcomes], ddof=1)),
            "steps": float(np.mean([o.n_steps for o in outcomes])),
            "grasps": len(grasps),
            "grasps_named": sum(o.grasped == o.named for o in grasps),
        }

    for task_id in range(len(TASKS)):
        for word in ("", "quickly", "slowly"):
            cell(f"{task_id}/{word or 'none'}", evaluate(actor, task_id, range(n), word))
        few = range(min(n, 50))
        random_actor, blank_actor = RandomActor(loaded, sampler), Actor(untrained, sampler)
        cell(f"{task_id}/random", evaluate(random_actor, task_id, few))
        cell(f"{task_id}/untrained", evaluate(blank_actor, task_id, few))
        cell(f"{task_id}/ode", evaluate(Actor(loaded, FlowSDE(sampler.steps, 0.0)), task_id, few))
    cell("0/other colour", evaluate(actor, 0, range(n), shift=1))
    for speed, words in SPEED_WORDS.items():
        for word in words:
            cell(f"word/{speed}/{word}", evaluate(actor, 0, range(n_words), word))
    return results


def main() -> None:
    """`python -m engine.policies.card`: measure, then write the card."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--policy", default=EMBEDDED)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--word-scenes", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path("docs/policy.json"))
    args = parser.parse_args()
    results = measure(load_policy(args.policy), args.scenes, args.word_scenes)
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

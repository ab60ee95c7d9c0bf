"""Control steps a second of each of 8 environments, all of them active, by replanning and workers.

The embedded architecture with random weights never solves a task, so every episode of the longest
task runs its 200 steps and no environment waits for others. Asked: 60 a second with a policy call
every 5 steps, 15 with a call every step, on 2 cores. The first block warms up.
"""

import os
import platform
import time
from dataclasses import replace
from statistics import median

from engine.actor import BATCH, THREADS, Actor
from engine.envs.tabletop import SUITE, TASKS, instruction_of
from engine.envs.vector import VectorEnv
from engine.likelihoods.flow_sde import FlowSDE
from engine.noise import NoiseKey
from engine.policies.smolvla import EMBEDDED, load_policy
from engine.policies.tiny import new_policy
from engine.rollout import EpisodePlan, run_block

TASK = 3
BLOCKS = 4
ASKED = {1: 15, 5: 60}


def plans() -> list[EpisodePlan]:
    return [
        EpisodePlan(
            uid=f"speed/{i}",
            task_name=TASKS[TASK].name,
            task_id=TASK,
            suite=SUITE,
            instruction=instruction_of(TASK, i),
            init_state=i,
            scene_seed=i,
            key=NoiseKey(0, 0, i, 0),
        )
        for i in range(BATCH)
    ]


if __name__ == "__main__":
    loaded = load_policy(EMBEDDED)
    blank = new_policy(loaded.path / "vlm", seed=0).eval().requires_grad_(False)
    loaded = replace(loaded, policy=blank)
    print(
        f"rollout_speed on {platform.machine()}, {os.cpu_count()} cores: {BATCH} environments, "
        f"{THREADS} policy threads, {BLOCKS} blocks, median"
    )
    titles = ("replan", "workers", "steps/s each", "asked", "slowest", "ms/call")
    print("".join(f"{title:>14}" for title in titles))
    for replan, asked in ASKED.items():
        actor = Actor(loaded, FlowSDE(loaded.policy.config.num_steps), replan)
        for workers in (1, 2):
            rates, calls = [], []
            with VectorEnv(SUITE, TASK, BATCH, workers) as env:
                for block in range(BLOCKS + 1):
                    began = time.perf_counter()
                    records = [record for record, _ in run_block(env, actor, plans())]
                    seconds = time.perf_counter() - began
                    assert all(len(r.steps["t"]) == TASKS[TASK].horizon for r in records)
                    if block:
                        rates.append(TASKS[TASK].horizon / seconds)
                        calls += [float(ms) for r in records for ms in r.decisions["policy_ms"]]
            print(
                f"{replan:14}{workers:14}{median(rates):14.1f}{asked:14}{min(rates):14.1f}"
                f"{median(calls):14.1f}"
            )

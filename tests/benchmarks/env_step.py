"""Milliseconds a control step of `tabletop` with both 64x64 cameras, on one core.

Asked: at most 2 ms. Actions are the expert's, so contacts happen.
"""

import platform
import time

from engine.envs.expert import expert_action
from engine.envs.tabletop import TASKS, TabletopEnv

STEPS, ROUNDS = 300, 5


def measure(task_id: int) -> list[float]:
    """ms a step, one figure a round; the expert's own time is left out."""
    env, rounds = TabletopEnv(task_id), []
    for seed in range(ROUNDS):
        env.reset(seed=seed, options={"init_state": seed})
        spent = 0.0
        for _ in range(STEPS):
            action = expert_action(env)
            began = time.perf_counter()
            _, _, terminated, truncated, _ = env.step(action)
            spent += time.perf_counter() - began
            if terminated or truncated:
                env.reset(seed=seed + 100, options={"init_state": seed})
        rounds.append(1000 * spent / STEPS)
    env.close()
    return sorted(rounds)


if __name__ == "__main__":
    print(f"env_step on {platform.machine()}: ms a control step")
    print(f"{'task':24}{'min':>8}{'median':>8}{'max':>8}")
    for task_id, task in enumerate(TASKS):
        rounds = measure(task_id)
        print(f"{task.name:24}{rounds[0]:8.2f}{rounds[ROUNDS // 2]:8.2f}{rounds[-1]:8.2f}")

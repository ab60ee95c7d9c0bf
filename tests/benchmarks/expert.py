"""Success of the scripted expert on 200 scene seeds, per task and speed. Asked: at least 99 %."""

import multiprocessing

from engine.envs.expert import SPEED_OF, expert_action
from engine.envs.tabletop import TASKS, TabletopEnv

SEEDS = 200


def successes(cell: tuple[int, str]) -> int:
    """Episodes solved in one cell of the table."""
    task_id, speed = cell
    env, solved = TabletopEnv(task_id), 0
    for seed in range(SEEDS):
        env.reset(seed=seed, options={"init_state": seed * 7 + seed // 50})
        done = False
        while not done:
            _, _, terminated, truncated, _ = env.step(expert_action(env, speed))
            done = terminated or truncated
        solved += terminated
    env.close()
    return solved


if __name__ == "__main__":
    cells = [(task_id, speed) for task_id in range(len(TASKS)) for speed in SPEED_OF]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        solved = dict(zip(cells, pool.map(successes, cells, chunksize=1), strict=True))
    print(f"expert: episodes solved of {SEEDS}")
    print(f"{'task':24}" + "".join(f"{speed:>8}" for speed in SPEED_OF))
    for task_id, task in enumerate(TASKS):
        row = "".join(f"{solved[task_id, speed]:8}" for speed in SPEED_OF)
        print(f"{task.name:24}{row}")

"""Redraw the pictures of README and docs that show the program: `make pictures`.

Records what the pictures show into a scratch folder: a training, the policy before and after it,
and steered beside unsteered rollouts. Then films a tour of `vla-tui` over them, into
docs/pictures/tour.gif, and writes a PNG of each screen. `make pictures RUNS=FOLDER` films the runs
of a folder instead, which must be of these kinds and in this order. Those in the repository show
a training of 60 updates.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from recording import stills, tour

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
BIN = Path(sys.executable).parent
TRAIN = "train --updates 3 --groups 2 --eval-episodes 8 --checkpoint-every 3 --name grpo"
PUSH = "record --task 1 --replan 10 --steps 4 --episodes 8 --keep frames --name"
TUNED = "--policy runs/grpo/checkpoints/000003/pretrained_model"
STEER = "record --steer fast --alpha 8 --episodes 6 --keep frames --name steer-fast"
COMMANDS = (TRAIN, f"{PUSH} push-base", f"{PUSH} push-tuned {TUNED}", STEER, "neurons")


def task_frames() -> np.ndarray:
    """One moment of each task: agentview at video size above the policy's own two cameras."""
    from engine.envs.expert import expert_action
    from engine.envs.tabletop import TASKS, TabletopEnv

    columns = []
    for task_id in range(len(TASKS)):
        env = TabletopEnv(task_id)
        observation, _ = env.reset(seed=task_id, options={"init_state": task_id})
        for _ in range(16):
            observation, *_ = env.step(expert_action(env))
        cameras = np.hstack(
            [np.kron(v, np.ones((2, 2, 1), np.uint8)) for v in observation["pixels"].values()]
        )
        columns.append(np.vstack([env.render(), cameras]))
        env.close()
    return np.hstack(columns)


def record(folder: Path) -> None:
    """Record the runs of the tour; some minutes."""
    for command in COMMANDS:
        quiet = subprocess.DEVNULL if command == "neurons" else None
        subprocess.run([BIN / "vla-trace", *command.split()], cwd=folder, check=True, stdout=quiet)


def main() -> None:
    """Record, film, draw."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = f"{scratch}/cache"  # no neuron tables of other policies
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch)
        if len(sys.argv) > 1:
            subprocess.run([BIN / "vla-trace", "neurons"], check=True, stdout=subprocess.DEVNULL)
        else:
            Image.fromarray(task_frames()).save(PICTURES / "tasks.png", optimize=True)
            record(folder)
        tour(folder, PICTURES / "tour.gif")
        stills(folder, PICTURES)


if __name__ == "__main__":
    main()

"""Scripted demonstrations for behaviour cloning, with kicks that the labels leave out.

A demonstration is one expert episode at one of three speeds. Half of them are kicked: for a few
steps a random velocity is executed instead of the expert's, and the expert recovers. Kicked steps
are never labels, and an action chunk ends where one begins.
"""

import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from engine.envs.expert import SPEED_OF, expert_action
from engine.envs.tabletop import TASKS, TabletopEnv
from engine.policies.smolvla import policy_state
from engine.policies.words import MOTION_WORDS

FIRST_SCENE_SEED = 100_000  # behaviour cloning draws scenes and initial states from here up
TASK_SHARE = (0.38, 0.22, 0.24, 0.16)
CHUNK = 10
SMALL_FIELDS = ("state", "action", "valid", "task", "speed", "motion", "geometry")


@dataclass(frozen=True)
class Demonstrations:
    """Frames of all demonstrations; axis 0 is the frame.

    images (N, 2, 64, 64, 3) uint8; state (N, 8); action (N, 10, 7) expert chunk; valid (N, 10);
    task (N,) index into `instructions`; speed (N,) and motion (N,) class indices; geometry (N, 6)
    m: named cube - hand, and bowl or zone - hand (what the auxiliary head must find).
    """

    images: np.ndarray
    state: np.ndarray
    action: np.ndarray
    valid: np.ndarray
    task: np.ndarray
    speed: np.ndarray
    motion: np.ndarray
    geometry: np.ndarray
    instructions: list[str]

    def __len__(self) -> int:
        return len(self.state)


def load_or_collect(folder: Path, episodes: int, seed: int, workers: int = 2) -> Demonstrations:
    """Demonstrations from `folder`, recorded there first; each (episodes, seed) has its own."""
    folder = folder / f"{episodes}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "instructions.txt"  # written last: without it the rest is unfinished
    if not done.exists():
        done.write_text("\n".join(_collect(folder, episodes, seed, workers)))
    arrays = {name: np.load(folder / f"{name}.npy") for name in SMALL_FIELDS}
    images = np.memmap(folder / "images.u8", np.uint8, "r").reshape(-1, 2, 64, 64, 3)
    return Demonstrations(images=images, **arrays, instructions=done.read_text().splitlines())


def _collect(folder: Path, episodes: int, seed: int, workers: int) -> list[str]:
    """Record the episodes, images straight to disk; returns the instructions seen."""
    rows: dict[str, list] = {name: [] for name in SMALL_FIELDS}
    instructions: dict[str, int] = {}
    jobs = [(seed, i) for i in range(episodes)]
    with (
        multiprocessing.get_context("spawn").Pool(workers) as pool,
        (folder / "images.u8").open("wb") as images,
    ):
        for record in tqdm(pool.imap(_record, jobs, chunksize=8), "demonstrations", episodes):
            images.write(record.pop("images").tobytes())
            text = record.pop("instruction")
            task = instructions.setdefault(text, len(instructions))
            rows["task"].append(np.full(len(record["state"]), task, np.int16))
            for name, values in record.items():
                rows[name].append(values)
    for name, parts in rows.items():
        np.save(folder / f"{name}.npy", np.concatenate(parts))
    return list(instructions)


def _record(job: tuple[int, int]) -> dict:
    """One successful expert episode as arrays; a failed one is drawn again."""
    seed, episode = job
    rng = np.random.default_rng([seed, episode])
    task_id = int(rng.choice(len(TASKS), p=TASK_SHARE))
    speed = int(rng.integers(len(SPEED_OF)))
    env = TabletopEnv(task_id)
    try:
        while True:
            scene_seed = FIRST_SCENE_SEED + int(rng.integers(1_000_000))
            init_state = FIRST_SCENE_SEED + int(rng.integers(1_000_000))
            frames, success = _episode(env, scene_seed, init_state, list(SPEED_OF)[speed], rng)
            if success:
                break
    finally:
        env.close()
    chunks, valid = _chunks(frames["action"], frames["kicked"])
    keep = ~frames["kicked"]
    n = int(keep.sum())
    return {
        "images": frames["images"][keep],
        "state": frames["state"][keep],
        "action": chunks[keep],
        "valid": valid[keep],
        "instruction": env.instruction(),
        "speed": np.full(n, speed, np.int8),
        "motion": frames["motion"][keep],
        "geometry": frames["geometry"][keep],
    }


def _episode(
    env: TabletopEnv, scene_seed: int, init_state: int, speed: str, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], bool]:
    observation, _ = env.reset(seed=scene_seed, options={"init_state": init_state})
    kicks_left = int(rng.integers(1, 4)) if rng.random() < 0.5 else 0
    kick, kick_velocity = 0, np.zeros(3)
    rows: dict[str, list] = {
        k: [] for k in ("images", "state", "action", "kicked", "motion", "geometry")
    }
    while True:
        action = expert_action(env, speed)
        if kick == 0 and kicks_left and rng.random() < 0.08:
            kick, kicks_left = int(rng.integers(2, 6)), kicks_left - 1
            kick_velocity = rng.uniform(-1, 1, 3)
        rows["images"].append(np.stack(list(observation["pixels"].values())))
        rows["state"].append(policy_state(observation["robot_state"]))
        rows["action"].append(action)
        rows["kicked"].append(kick > 0)
        rows["motion"].append(_motion(env, action))
        rows["geometry"].append(_geometry(env))
        executed = action.copy()
        if kick > 0:
            executed[:3] = kick_velocity
            kick -= 1
        observation, _, terminated, truncated, _ = env.step(executed)
        if terminated or truncated:
            arrays = {key: np.array(value) for key, value in rows.items()}
            return arrays, terminated


def _chunks(actions: np.ndarray, kicked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T, 10, 7) the next ten expert actions from each frame, and (T, 10) which of them count."""
    steps = np.arange(len(actions))[:, None] + np.arange(CHUNK)
    inside = steps < len(actions)
    steps = np.minimum(steps, len(actions) - 1)
    clean = np.cumsum(kicked[steps], axis=1) == 0
    return actions[steps].astype(np.float32), inside & clean


def _motion(env: TabletopEnv, action: np.ndarray) -> int:
    """Index into MOTION_WORDS of what the expert does now."""
    travel = float(np.mean(env.data.ctrl[3:]))
    names = list(MOTION_WORDS)
    if (action[6] > 0) != (travel == 0.0):
        return names.index("close" if action[6] > 0 else "open")
    axis = int(np.argmax(np.abs(action[:3])))
    negative, positive = (("back", "forward"), ("left", "right"), ("down", "up"))[axis]
    return names.index(positive if action[axis] > 0 else negative)


def _geometry(env: TabletopEnv) -> np.ndarray:
    """(6,) m: the cube to attend to now, and the place it goes to, both seen from the hand."""
    waiting = [colour for colour in env.targets if not env.in_bowl(colour)]
    cube = env.cube_pos(waiting[0] if waiting else env.targets[-1])
    place = env.data.body("zone" if env.task.name == "push_cube_to_zone" else "bowl").xpos
    hand = env.grip_pos()
    return np.concatenate([cube - hand, place - hand]).astype(np.float32)

"""Scripted demonstrations for behaviour cloning, with kicks and changed minds.

A demonstration is one expert episode at one of three speeds. Half of them are kicked: for a few
steps a random velocity is executed instead of the expert's, and the expert recovers. Kicked steps
are never labels, and an action chunk ends where one begins. Half of them begin with an instruction
that names other colours and change to the scene's own underway: otherwise the hand would only ever
be seen on its way from home to the named cube, and going to the nearest cube explains such pictures
almost as well as reading does.
"""

import itertools
import multiprocessing
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from engine.envs.expert import SPEED_OF, expert_action
from engine.envs.tabletop import CAMERAS, COLOURS, TASKS, TabletopEnv
from engine.policies.smolvla import policy_state
from engine.policies.words import MOTION_WORDS

FIRST_SCENE_SEED = 100_000  # behaviour cloning draws scenes and initial states from here up
TASK_SHARE = (0.38, 0.22, 0.24, 0.16)
SPEEDS = tuple(SPEED_OF)  # what the index `speed` means
CHUNK = 10
CHANGED = 0.5  # share of demonstrations whose instruction changes underway
KICKED = -1  # stage of a step that is no label; else 0 before and 1 after the change of mind
SMALL_FIELDS = (
    *("state", "action", "valid", "task", "speed", "motion"),
    *("cubes", "placed", "goal", "pixels", "scene"),
)


@dataclass(frozen=True)
class Demonstrations:
    """Frames of all demonstrations; axis 0 is the frame.

    images (N, 2, 64, 64, 3) uint8; state (N, 8); action (N, 10, 7) expert chunk; valid (N, 10);
    task (N,) index into `instructions`; speed (N,) and motion (N,) class indices. What the
    auxiliary heads must find: cubes (N, 3, 3) m, each cube - hand, order COLOURS; placed (N, 3)
    which of them lie in the bowl; goal (N, 3) m, bowl or zone - hand; pixels (N, 2, 3, 2) where
    each camera sees each cube, in picture widths. And where it comes from: scene (N, 2), scene seed
    and initial state.
    """

    images: np.ndarray
    state: np.ndarray
    action: np.ndarray
    valid: np.ndarray
    task: np.ndarray
    speed: np.ndarray
    motion: np.ndarray
    cubes: np.ndarray
    placed: np.ndarray
    goal: np.ndarray
    pixels: np.ndarray
    scene: np.ndarray
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
    refuse_held_out(arrays["scene"])
    images = np.memmap(folder / "images.u8", np.uint8, "r").reshape(-1, 2, 64, 64, 3)
    return Demonstrations(images=images, **arrays, instructions=done.read_text().splitlines())


def refuse_held_out(scenes: np.ndarray) -> None:
    """Stop if a scene seed or an initial state (N, 2) is one that policies are judged on.

    Raises:
        ValueError: with the first such pair.
    """
    held_out = (scenes < FIRST_SCENE_SEED).any(axis=1)
    if held_out.any():
        seed, init_state = scenes[held_out.argmax()]
        raise ValueError(
            f"{held_out.sum()} frames come from held-out scenes, first scene seed {seed} with "
            f"initial state {init_state}; training may use {FIRST_SCENE_SEED} and up only"
        )


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
            texts = record.pop("instruction")
            task = [instructions.setdefault(text, len(instructions)) for text in texts]
            rows["task"].append(np.array(task, np.int16))
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
    speed = int(rng.integers(len(SPEEDS)))
    env = TabletopEnv(task_id)
    try:
        while True:
            scene_seed = FIRST_SCENE_SEED + int(rng.integers(1_000_000))
            init_state = FIRST_SCENE_SEED + int(rng.integers(1_000_000))
            frames, success = _episode(env, scene_seed, init_state, SPEEDS[speed], rng)
            if success:
                break
    finally:
        env.close()
    stage = frames.pop("stage")
    keep = stage != KICKED
    chunks, valid = _chunks(frames["action"], stage)
    fields = frames | {"action": chunks, "valid": valid}
    fields["speed"] = np.full(len(keep), speed, np.int8)
    fields["scene"] = np.tile([scene_seed, init_state], (len(keep), 1))
    return {name: values[keep] for name, values in fields.items()}


def _episode(
    env: TabletopEnv, scene_seed: int, init_state: int, speed: str, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], bool]:
    observation, _ = env.reset(seed=scene_seed, options={"init_state": init_state})
    kicks_left = int(rng.integers(1, 4)) if rng.random() < 0.5 else 0
    kick, kick_velocity = 0, np.zeros(3)
    named, change = env.targets, 0
    if rng.random() < CHANGED:
        named, change = _other_targets(env.targets, rng), int(rng.integers(3, 25))
    rows: dict[str, list] = defaultdict(list)
    for t in itertools.count():
        if t == change:
            named = env.targets
        action = expert_action(env, speed, named)
        if kick == 0 and kicks_left and rng.random() < 0.08:
            kick, kicks_left = int(rng.integers(2, 6)), kicks_left - 1
            kick_velocity = rng.uniform(-1, 1, 3)
        frame = _frame(env, observation, action, named)
        frame |= {"stage": KICKED if kick else int(t >= change)}
        for name, value in frame.items():
            rows[name].append(value)
        executed = action.copy()
        if kick > 0:
            executed[:3] = kick_velocity
            kick -= 1
        observation, _, terminated, truncated, _ = env.step(executed)
        if terminated or truncated:
            return {name: np.array(values) for name, values in rows.items()}, terminated


def _other_targets(targets: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    """As many colours in another order, the first one another colour."""
    while True:
        named = tuple(str(colour) for colour in rng.permutation(COLOURS)[: len(targets)])
        if named[0] != targets[0]:
            return named


def _frame(
    env: TabletopEnv, observation: dict, action: np.ndarray, named: tuple[str, ...]
) -> dict[str, Any]:
    """What one control step adds to each field."""
    hand = env.grip_pos()
    cubes = np.stack([env.cube_pos(colour) for colour in COLOURS])
    goal = env.data.body("zone" if env.task.name == "push_cube_to_zone" else "bowl").xpos
    pixels = np.stack([env.project(camera, cubes) for camera in CAMERAS.values()])
    return {
        "images": np.stack(list(observation["pixels"].values())),
        "state": policy_state(observation["robot_state"]),
        "action": action,
        "instruction": env.task.instruction.format(*named),
        "motion": _motion(env, action),
        "cubes": (cubes - hand).astype(np.float32),
        "placed": np.array([env.in_bowl(colour) for colour in COLOURS]),
        "goal": (goal - hand).astype(np.float32),
        "pixels": pixels.astype(np.float32),
    }


def _chunks(actions: np.ndarray, stage: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T, 10, 7) the next ten expert actions from each frame, and (T, 10) which of them count.

    A chunk ends with the episode, at a kick, and where the instruction changes.
    """
    steps = np.arange(len(actions))[:, None] + np.arange(CHUNK)
    inside = steps < len(actions)
    steps = np.minimum(steps, len(actions) - 1)
    broken = (stage[steps] == KICKED) | (stage[steps] != stage[:, None])
    clean = np.cumsum(broken, axis=1) == 0
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

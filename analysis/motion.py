"""How far the hand moves: MEED, the mean end-effector displacement per control step.

    MEED = 100 * mean over t of |p[t+1] - p[t]|      [cm per control step]

p is the end-effector position in the world [m], before each of the T actions, and p[T] is the pose
the episode ended in. A group's value is the mean of its episodes' values, so that a long episode
weighs no more than a short one.
"""

import math

import numpy as np

from analysis.spans import Spans


def step_lengths_cm(ee_pos_world_m: np.ndarray, final_pos_world_m: np.ndarray) -> np.ndarray:
    """Distance moved in each control step [cm].

    Args:
        ee_pos_world_m: (T, 3) position before each action.
        final_pos_world_m: (3,) position after the last one.

    Returns:
        (T,) lengths; empty when the episode has no step.
    """
    path = np.vstack([ee_pos_world_m, final_pos_world_m[None]]).astype(np.float64)  # (T+1, 3)
    with np.errstate(over="ignore", invalid="ignore"):  # a broken pose gives no finite length
        return 100 * np.linalg.norm(np.diff(path, axis=0), axis=1)


def meed_cm(step_cm: np.ndarray, first: int | None = None) -> float | None:
    """MEED of one episode, or of its first steps; None without steps or with a broken pose.

    Comparing a pair over its common first steps keeps an early end (a success, a failure) from
    looking like slow or fast motion.
    """
    lengths = np.asarray(step_cm, dtype=np.float64)[:first]  # (T,)
    with np.errstate(over="ignore"):
        total = float(lengths.sum())
    return total / len(lengths) if len(lengths) and math.isfinite(total) else None


def displacements_of(
    ee_pos_world_m: np.ndarray, final_pos_world_m: np.ndarray, spans: Spans
) -> np.ndarray:
    """How the hand moved in each control step of many episodes: (T, 3) [m], world frame.

    Args:
        ee_pos_world_m: (T, 3) positions before each action, episode after episode.
        final_pos_world_m: (E, 3) where each episode ended.
        spans: the steps of each episode.
    """
    moved = np.empty(ee_pos_world_m.shape)  # float64
    moved[:-1] = ee_pos_world_m[1:]
    moved[spans.last] = final_pos_world_m[spans.n > 0]
    with np.errstate(over="ignore", invalid="ignore"):  # a broken pose gives no finite length
        moved -= ee_pos_world_m
    return moved


def step_lengths_of(
    ee_pos_world_m: np.ndarray, final_pos_world_m: np.ndarray, spans: Spans
) -> np.ndarray:
    """`step_lengths_cm` of many episodes at once, arguments as above: (T,) [cm]."""
    moved = displacements_of(ee_pos_world_m, final_pos_world_m, spans)
    with np.errstate(over="ignore", invalid="ignore"):
        moved *= moved
        return 100 * np.sqrt(moved[:, 0] + moved[:, 1] + moved[:, 2])

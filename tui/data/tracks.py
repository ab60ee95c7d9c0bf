"""One episode step by step, as the Episode screen draws it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.opening import opened
from tui.terminal import one_line

ACTION_NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "grip")
COLUMNS = ("action", "ee_pos", "gripper", "log_prob", "contact", "intervened", "reward")


@dataclass(frozen=True)
class EpisodeTracks:
    """Arrays of one episode; T control steps."""

    action: np.ndarray
    """(T, A) as sent."""
    action_names: tuple[str, ...]
    path_m: np.ndarray
    """(T+1, 3) end effector before each step, and after the last; world."""
    opening_m: np.ndarray
    """(T,) distance of the fingers."""
    log_prob: np.ndarray
    """(T,) nats; NaN where there is none."""
    why_no_log_prob: str
    contact: np.ndarray
    """(T,) bool."""
    intervened: np.ndarray
    """(T,) bool."""
    reward: np.ndarray
    """(T,)."""

    @property
    def n_steps(self) -> int:
        """T."""
        return len(self.action)


def read_tracks(path: Path, row: int) -> EpisodeTracks:
    """Read one row of episodes/ and its steps; raises `UserError`."""
    with opened(path) as trace:
        steps = trace.steps(*COLUMNS, episode=row)
        final = trace.episodes("final_ee_pos")["final_ee_pos"][row]
        likelihood = trace.header.likelihood
    path_m = np.vstack([steps["ee_pos"], final[None]])
    why = ""
    if not np.isfinite(steps["log_prob"]).any():
        why = one_line(likelihood.get("reason") or likelihood.get("name") or "not recorded")
    n_actions = steps["action"].shape[1]
    standard = n_actions == len(ACTION_NAMES)
    return EpisodeTracks(
        action=steps["action"],
        action_names=ACTION_NAMES if standard else tuple(f"a{i}" for i in range(n_actions)),
        path_m=path_m,
        opening_m=np.abs(steps["gripper"]).sum(axis=1),
        log_prob=steps["log_prob"],
        why_no_log_prob=why,
        contact=steps["contact"],
        intervened=steps["intervened"],
        reward=steps["reward"],
    )

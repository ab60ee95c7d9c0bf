"""Signals of safety and of the scene, per episode: limits, saturation, contact, falls."""

from dataclasses import dataclass

import numpy as np

from traces.reader import TraceReader

NEAR_M = 0.005
"""A hand this close to the end of its range counts as at a limit."""
FALL_M_S = 0.6
"""An object that sinks faster than this is in nobody's hand (tabletop's moves at most 0.5 m/s)."""


@dataclass(frozen=True)
class Safety:
    """One episode."""

    saturated: float | None
    """Share of action entries that the policy put outside [-1, 1], so that they were clipped."""
    at_limit: float | None
    """Share of control steps with the end effector at an end of the workspace; None: unknown."""
    contact: float | None
    """Share of control steps in which the gripper touches something."""
    max_force_n: float | None
    """Largest summed normal force on the fingers."""
    falls: int | None
    """How often an object began to fall; None: no object poses."""


def safety(trace: TraceReader, episode: int) -> Safety:
    """Read the signals of one row of episodes/; every share is None without a step."""
    steps = trace.steps("action_policy", "ee_pos", "contact", "contact_force", episode=episode)
    if len(steps["contact"]) == 0:
        return Safety(None, None, None, None, None)
    force = steps["contact_force"][np.isfinite(steps["contact_force"])]
    return Safety(
        saturated=float((np.abs(steps["action_policy"]) > 1).mean()),
        at_limit=_at_limit(steps["ee_pos"], trace.header.suite.get("workspace")),
        contact=float(steps["contact"].mean()),
        max_force_n=float(force.max()) if force.size else None,
        falls=_falls(trace, episode),
    )


def _at_limit(ee_pos: np.ndarray, workspace: object) -> float | None:
    """Share of positions (T, 3) at an end of a workspace given as [[low] * 3, [high] * 3] in m."""
    if workspace is None:
        return None
    low, high = np.asarray(workspace, float)
    near = (ee_pos < low + NEAR_M) | (ee_pos > high - NEAR_M)  # (T, 3)
    return float(near.any(axis=1).mean())


def _falls(trace: TraceReader, episode: int) -> int | None:
    objects = trace.objects(episode=episode)
    hz = trace.header.suite.get("control_hz")
    if not objects or not hz:
        return None
    return sum(
        fall_count(objects["pos"][objects["object"] == which, 2], float(hz))
        for which in np.unique(objects["object"])
    )


def fall_count(height_m: np.ndarray, hz: float) -> int:
    """How often a height (T,) in m, sampled at hz, begins to sink faster than `FALL_M_S`."""
    falling = np.diff(height_m) * hz < -FALL_M_S  # (T - 1,)
    return int((falling & ~np.r_[False, falling[:-1]]).sum()) if falling.size else 0

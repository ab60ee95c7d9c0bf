"""Signals of safety and of the scene, of one episode or several: limits, contact, falls."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from traces.collection import TraceCollection
from traces.reader import TraceReader
from traces.schema import STEPS

NEAR_M = 0.005
"""A hand or a sliding joint this close to the end of its range counts as at a limit."""
NEAR_RAD = 0.02
"""A turning joint, likewise."""
FALL_M_S = 0.6
"""An object that sinks faster than this is in nobody's hand (tabletop's moves at most 0.5 m/s)."""
HELD_STEPS = 3
"""A fall is a drop when the hand was told to hold, and touched something, so shortly before."""
MANY = 500
"""Episodes that a summary reads at most."""


@dataclass(frozen=True)
class Safety:
    """One episode, or several together."""

    steps: int
    """Control steps that the shares are of."""
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
    drops: int | None
    """Falls out of a hand that was told to hold on: slips, not releases."""
    joints_at_limit: dict[str, float] = field(default_factory=dict)
    """Joint to the share of control steps at an end of its range; empty: the suite gives none."""


def safety(trace: TraceReader, episode: int) -> Safety:
    """Read the signals of one row of episodes/; every share is None without a step."""
    steps, objects = trace.steps(episode=episode), trace.objects(episode=episode)
    return signals(steps, objects, trace.header.suite)


def signals(
    steps: Mapping[str, np.ndarray], objects: Mapping[str, np.ndarray], suite: Mapping
) -> Safety:
    """Return the signals of one episode.

    Args:
        steps: its columns of steps/, `columns_of` at least.
        objects: its columns of objects/; empty where there is no such table.
        suite: the header's.
    """
    if len(steps["contact"]) == 0:
        return Safety(0, None, None, None, None, None, None)
    force = steps["contact_force"][np.isfinite(steps["contact_force"])]
    falls = _falls(objects, suite.get("control_hz"))
    return Safety(
        steps=len(steps["contact"]),
        saturated=float((np.abs(steps["action_policy"]) > 1).mean()),
        at_limit=_at_limit(steps["ee_pos"], suite.get("workspace")),
        contact=float(steps["contact"].mean()),
        max_force_n=float(force.max()) if force.size else None,
        falls=None if falls is None else len(falls),
        drops=None if falls is None else drop_count(falls, steps["action"], steps["contact"]),
        joints_at_limit=_joints(steps, suite.get("joints")),
    )


def columns_of(suite: Mapping) -> tuple[str, ...]:
    """Columns of steps/ that the signals of a suite need."""
    joints = suite.get("joints")
    named = [joint.get("column") for joint in joints.values()] if _is_table(joints) else []
    known = {field.name for field in STEPS}
    own = ("action", "action_policy", "contact", "contact_force", "ee_pos")
    return (*own, *sorted({name for name in named if name in known} - set(own)))


def _is_table(joints: object) -> bool:
    return isinstance(joints, dict) and all(isinstance(one, dict) for one in joints.values())


def safety_of(traces: TraceCollection) -> tuple[int, Safety]:
    """Return how many episodes were read, the first `MANY` at most, and their signals together."""
    files = traces.episodes("uid")["file"]
    first_row = np.searchsorted(files, np.arange(len(traces.paths)))
    found = []
    for row, file in enumerate(files[:MANY]):
        with traces.reading(file) as trace:
            found.append(safety(trace, int(row - first_row[file])))
    return len(found), together(found)


def together(found: Sequence[Safety]) -> Safety:
    """Return the signals of several episodes: shares of all their steps, sums and maxima."""

    def share(values: Iterable[float | None]) -> float | None:
        pairs = zip(values, (one.steps for one in found), strict=True)
        known = [(value, steps) for value, steps in pairs if value is not None]
        total = sum(steps for _, steps in known)
        return sum(value * steps for value, steps in known) / total if total else None

    def known(name: str) -> list:
        return [value for one in found if (value := getattr(one, name)) is not None]

    joints = dict.fromkeys(name for one in found for name in one.joints_at_limit)
    falls, drops = known("falls"), known("drops")
    return Safety(
        steps=sum(one.steps for one in found),
        saturated=share(one.saturated for one in found),
        at_limit=share(one.at_limit for one in found),
        contact=share(one.contact for one in found),
        max_force_n=max(known("max_force_n"), default=None),
        falls=sum(falls) if falls else None,
        drops=sum(drops) if drops else None,
        joints_at_limit={
            name: share(one.joints_at_limit.get(name) for one in found) for name in joints
        },
    )


def _at_limit(ee_pos: np.ndarray, workspace: object) -> float | None:
    """Share of positions (T, 3) at an end of a workspace given as [[low] * 3, [high] * 3] in m."""
    try:
        low, high = np.asarray(workspace, float).reshape(2, 3)
    except (TypeError, ValueError):  # headers are free-form
        return None
    near = (ee_pos < low + NEAR_M) | (ee_pos > high - NEAR_M)  # (T, 3)
    return float(near.any(axis=1).mean())


def _joints(steps: dict[str, np.ndarray], joints: object) -> dict[str, float]:
    """Share of steps at an end of each joint's range, of joints that a column of steps/ shows."""
    found = {}
    for name, joint in joints.items() if isinstance(joints, dict) else ():
        try:
            position = steps[joint["column"]][:, joint["index"]]  # (T,) m or rad
            low, high = map(float, joint["range"])
            near = NEAR_M if joint["unit"] == "m" else NEAR_RAD
        except (IndexError, KeyError, TypeError, ValueError):  # headers are free-form
            continue
        found[name] = float(((position < low + near) | (position > high - near)).mean())
    return found


def _falls(objects: Mapping[str, np.ndarray], hz: object) -> np.ndarray | None:
    """Steps at which objects begin to fall, (falls,); None without poses."""
    if not objects or not isinstance(hz, int | float) or not hz > 0:
        return None
    which = objects["object"]
    heights_m = [objects["pos"][which == one, 2] for one in np.unique(which)]
    return np.concatenate([fall_starts(height, float(hz)) for height in heights_m] or [[]])


def fall_starts(height_m: np.ndarray, hz: float) -> np.ndarray:
    """Where a height (T,) in m, sampled at hz, begins to sink faster than `FALL_M_S`, (falls,)."""
    falling = np.diff(height_m) * hz < -FALL_M_S  # (T - 1,)
    return np.flatnonzero(falling & ~np.r_[False, falling][: falling.size])


def drop_count(falls: np.ndarray, action: np.ndarray, contact: np.ndarray) -> int:
    """How many falls were drops.

    Args:
        falls: (falls,) steps at which objects began to fall.
        action: (T, A) as sent; the last entry closes the gripper where it is positive.
        contact: (T,) whether the hand touched something.
    """
    told = action[:, -1] > 0
    before = [slice(max(0, int(start) - HELD_STEPS), int(start) + 1) for start in falls]
    return sum(bool(told[steps].all() and contact[steps].any()) for steps in before)

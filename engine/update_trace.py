"""The trace of one training update: its episodes, groups, advantages and what the step did."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.groups import Group
from traces.header import TraceHeader
from traces.writer import TraceWriter

LEARNED = (
    "first_ratio_max_abs_dev",
    "ratio_max",
    "approx_kl",
    "clip_fraction",
    "ess",
    "policy_loss",
    "grad_norm",
    "lr",
)
"""Columns of updates/ that are metrics train/actor/<column>."""


def write_update(
    path: Path,
    header: TraceHeader,
    object_names: Sequence[str],
    cameras: Sequence[str],
    update: int,
    groups: Sequence[Group],
    metrics: dict[str, float],
    wall_s: float,
) -> None:
    """Write one closed trace; policy version u is the policy after u updates.

    `cameras` are those whose pictures the episodes bring.
    """
    used = [group for group in groups if group.accepted]
    with TraceWriter(path, header, object_names=object_names, cameras=cameras) as trace:
        trace.write_policy(update, update)
        for group in groups:
            for episode in group.episodes:
                episode.record.episode |= {"attempt": group.attempt, "policy_version": update}
                trace.write_episode(episode.record)
        trace.append("groups", _groups(update, groups))
        trace.append("advantages", _advantages(update, used))
        row = {
            "update": update,
            "policy_version": update + 1,
            "n_episodes": sum(len(group.episodes) for group in used),
            "n_decisions": sum(len(e.samples) for group in used for e in group.episodes),
            "n_groups": len(groups),
            "n_groups_accepted": len(used),
            "success_rate": metrics["env/success_once"],
            "ratio_mean": metrics.get("train/actor/ratio", np.nan),
            "wall_s": wall_s,
        } | {name: metrics.get(f"train/actor/{name}", np.nan) for name in LEARNED}
        trace.append("updates", {name: [value] for name, value in row.items()})


def _groups(update: int, groups: Sequence[Group]) -> dict[str, list]:
    rows = []
    for group in groups:
        plan, returns = group.episodes[0].plan, group.returns
        rows.append(
            {
                "update": update,
                "group": group.number,
                "attempt": group.attempt,
                "policy_version": update,
                "task_id": plan.task_id,
                "init_state": plan.init_state,
                "scene_seed": plan.scene_seed,
                "n_members": len(returns),
                "n_success": sum(episode.success for episode in group.episodes),
                "return_mean": returns.mean(),
                "return_std": returns.std(ddof=1),
                "accepted": group.accepted,
                "reason": group.reason,
            }
        )
    return _columns(rows)


def _advantages(update: int, groups: Sequence[Group]) -> dict[str, list]:
    rows = [
        {
            "uid": episode.plan.uid,
            "update": update,
            "group": group.number,
            "member": member,
            "return": group.returns[member],
            "advantage": group.advantages[member],
        }
        for group in groups
        for member, episode in enumerate(group.episodes)
    ]
    return _columns(rows)


def _columns(rows: list[dict]) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}

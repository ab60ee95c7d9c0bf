"""Any two arms side by side, task by task and pair by pair: success and MEED, B minus A.

An arm is what some traces hold: one condition of one policy. Episodes of both with one pair_key had
the same scene and the same noise. `analysis.outcome` and `analysis.fine_tuning` choose the arms
that belong together; here a person does, so what else differs between them is said.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import polars as pl

from analysis.conditions import count_of, without_errors
from analysis.paired_tasks import Arms, Rate, TaskPairs
from analysis.stats import (
    paired_difference,
    paired_success,
    wilson,
)
from analysis.tables import episode_table

TASK = ("suite", "task_id")


def compare_arms(a: Iterable[Path | str], b: Iterable[Path | str]) -> Arms:
    """Compare the episodes of some traces (B) with those of others (A)."""
    notes: list[str] = []
    frames = []
    for name, paths in (("A", a), ("B", b)):
        table = episode_table(paths)
        said = list(table.notes)
        frames.append(_arm(name, without_errors(table.frame, said), said))
        notes += [f"{name}: {note}" for note in said]
    first, second = frames
    notes += _other_differences(first, second)
    rows, pairs = [], []
    for key in first.select(TASK).unique(maintain_order=True).iter_rows():
        here = [
            frame.filter(pl.col(TASK[0]) == key[0], pl.col(TASK[1]) == key[1]) for frame in frames
        ]
        if here[1].is_empty():
            continue
        rows.append(_row(here[0]["task"][0], *here))
        pairs.append(here)
    if len(rows) > 1:
        both = (pl.concat([here[arm] for here in pairs]) for arm in (0, 1))
        rows.append(_row(f"all {len(rows)} tasks", *both))
    found = Arms(tuple(rows), tuple(notes))
    return replace(found, notes=(*notes, *_alone(found.n_pairs, first, second)))


def _arm(name: str, frame: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    if frame["policy_id"].n_unique() > 1:
        notes.append(f"{frame['policy_id'].n_unique()} policies are in this arm, as training has")
    if "grpo" in frame["kind"]:
        notes.append("episodes of training: exploration noise, training scenes")
    return frame


def _row(task: str, a: pl.DataFrame, b: pl.DataFrame) -> TaskPairs:
    columns = ("pair_key", "success", "meed_cm")
    one, other = (
        frame.select(columns)
        .drop_nulls("pair_key")
        .unique("pair_key", keep="last", maintain_order=True)
        for frame in (a, b)
    )
    pairs = other.join(one, on="pair_key", how="inner", suffix="_a", maintain_order="left")
    whole = pairs.drop_nulls(["meed_cm", "meed_cm_a"])
    return TaskPairs(
        task=task,
        a=_rate(a),
        b=_rate(b),
        success=paired_success(pairs["success"].to_list(), pairs["success_a"].to_list()),
        meed=paired_difference(whole["meed_cm"].to_numpy(), whole["meed_cm_a"].to_numpy()),
    )


def _rate(frame: pl.DataFrame) -> Rate:
    successes = int(frame["success"].sum())
    return Rate(successes, len(frame), wilson(successes, len(frame)))


def _other_differences(a: pl.DataFrame, b: pl.DataFrame) -> list[str]:
    """Say what differs between the arms beside what they are compared for."""
    if a.is_empty() or b.is_empty():
        return []
    ours, theirs = a.row(0, named=True), b.row(0, named=True)
    notes = []
    for key, what in (("sampler", "the sampler"), ("K", "K"), ("replan", "replanning")):
        if ours[key] != theirs[key]:
            notes.append(
                f"{what} differs, too ({ours[key]} in A, {theirs[key]} in B): differences are also "
                "of that"
            )
    if ours["policy_id"] != theirs["policy_id"] and ours["fingerprint"] != theirs["fingerprint"]:
        notes.append("both the policy and the intervention differ between A and B")
    return notes


def _alone(n_pairs: int, a: pl.DataFrame, b: pl.DataFrame) -> list[str]:
    """Say how many episodes have no partner, where some have."""
    return [
        f"{name}: {len(frame) - n_pairs} of {count_of(len(frame))} without a partner"
        for name, frame in (("A", a), ("B", b))
        if 0 < n_pairs < len(frame)
    ]

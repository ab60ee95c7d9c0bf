"""Did training help? Success of each fine-tuned policy beside the base, task by task and in all.

Compared are episodes of one condition (same suite, task, sampler, K, replanning, intervention and
words) under two policies; those with one pair_key had the same scene and the same noise. Where no
pair exists the two shares are compared as independent samples, and `test` says so. Training's own
episodes (kind `grpo`) are no evidence: they were drawn with exploration noise on training scenes.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl

from analysis.aggregate import interquartile_mean, plain_mean, stratified_interval
from analysis.base_policy import base_policy, why_no_base
from analysis.comparison import Summary
from analysis.conditions import by_key, count_of, name_of, without_errors
from analysis.stats import MIN_PAIRS, fisher_exact, holm, paired_success, success_gap, wilson
from analysis.tables import CONDITION, EpisodeTable, read_episodes

ARM = ("sampler_id", "K", "replan", "fingerprint", "prompt")
"""What one table of tasks has in common."""

_ABOUT = {
    "policy": pl.String,
    "base": pl.String,  # name of the base policy
    "suite": pl.String,
    "sampler": pl.String,
    "K": pl.Int32,
    "replan": pl.Int32,
    "label": pl.String,  # of the condition
    "prompt": pl.String,
    "fingerprint": pl.String,
}

TASKS = _ABOUT | {
    "task_id": pl.Int32,
    "task": pl.String,
    "base_n": pl.Int64,
    "base_successes": pl.Int64,
    "base_rate": pl.Float64,
    "base_low": pl.Float64,  # 95 % Wilson interval
    "base_high": pl.Float64,
    "n": pl.Int64,
    "successes": pl.Int64,
    "rate": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n_pairs": pl.Int64,
    "only_policy": pl.Int64,  # pairs that it alone solved
    "only_base": pl.Int64,
    "difference": pl.Float64,  # over the pairs; over all episodes where there is none
    "difference_low": pl.Float64,  # 95 %, Newcombe
    "difference_high": pl.Float64,
    "test": pl.String,  # McNemar (exact, paired) or Fisher (exact, unpaired)
    "p_value": pl.Float64,
    "p_holm": pl.Float64,  # corrected for the tasks of this table
}

AGGREGATES = _ABOUT | {
    "statistic": pl.String,  # IQM over tasks, mean over tasks, all episodes
    "n_tasks": pl.Int64,
    "n_pairs": pl.Int64,
    "base_value": pl.Float64,
    "base_low": pl.Float64,
    "base_high": pl.Float64,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
    "p_value": pl.Float64,  # of all episodes: exact McNemar
}

STATISTICS = {"IQM over tasks": interquartile_mean, "mean over tasks": plain_mean}


def fine_tuning_table(paths: Iterable[Path | str], base: str = "") -> pl.DataFrame:
    """Return one row per fine-tuned policy, condition and task (`TASKS`).

    Args:
        paths: traces, as `traces.open_traces` takes them.
        base: which policy is the base, see `base_policy.base_policy`.
    """
    tasks, _ = fine_tuning(read_episodes(paths), base)
    return tasks.frame


def fine_tuning(table: EpisodeTable, base: str = "") -> tuple[Summary, pl.DataFrame]:
    """Return the table of tasks with its notes, and the aggregates over tasks (`AGGREGATES`).

    Aggregates count the pairs only, so that every task's scenes are the same for both policies.
    """
    notes = list(table.notes)
    frame = without_errors(table.frame, notes)
    training = len(frame.filter(pl.col("kind") == "grpo"))
    if training:
        notes.append(
            f"{count_of(training)} of training left out here: exploration noise, training scenes "
            "(--table advantages reads them)"
        )
    frame = frame.filter(pl.col("kind") != "grpo")
    base_id = base_policy(frame, base, notes)
    conditions = dict(by_key(frame, CONDITION))
    base_name = frame.filter(pl.col("policy_id") == base_id)["policy"].first()
    if frame["policy_id"].n_unique() == 1:
        notes.append(f"{base_name} is the only policy in these files: nothing to compare it with")
    rows, aggregates = [], []
    tuned = frame.filter(pl.col("policy_id") != base_id)
    for _, arm in by_key(tuned, ("policy_id", "suite", *ARM)):
        found, outcomes = [], []
        for key, group in by_key(arm, CONDITION):
            other = conditions.get((base_id, *key[1:]))
            if other is None:
                notes.append(why_no_base(frame, group.row(0, named=True), base_id))
                continue
            row, pairs = _task(group, other, notes)
            found.append(row | {"base": base_name})
            outcomes.append(pairs)
        tested = [row["p_value"] for row in found]
        rows += [row | {"p_holm": p} for row, p in zip(found, holm(tested), strict=True)]
        aggregates += _aggregates(found, outcomes, notes)
    return (
        Summary(pl.DataFrame(rows, schema=TASKS), tuple(notes)),
        pl.DataFrame(aggregates, schema=AGGREGATES),
    )


def _task(
    group: pl.DataFrame, other: pl.DataFrame, notes: list[str]
) -> tuple[dict[str, object], np.ndarray]:
    """Return the numbers of one task, and its pairs: (n, 2) success of base and policy."""
    first = group.row(0, named=True)
    name = f"{first['policy']}, {name_of(first)}"
    pairs = group.select("pair_key", "success").join(
        other.select("pair_key", "success"), on="pair_key", how="inner", suffix="_base"
    )
    won, lost = (int(column.sum()) for column in (group["success"], other["success"]))
    row = {column: first[column] for column in TASKS if column in first}
    row |= _rate("base_", lost, len(other)) | _rate("", won, len(group))
    if len(pairs):
        found = paired_success(pairs["success"].to_list(), pairs["success_base"].to_list())
        row |= {"test": "McNemar", "only_policy": found.only_a, "only_base": found.only_b}
        gap, interval, p = found.difference, found.ci, found.p_value
        if len(pairs) < len(group):
            alone = count_of(len(group) - len(pairs))
            notes.append(f"{name}: {alone} of {len(group)} without a partner of the base")
        if len(pairs) < MIN_PAIRS:
            few = count_of(len(pairs), "pair")
            notes.append(f"{name}: {few}; fewer than {MIN_PAIRS} cannot reach 0.05")
    else:
        gap, interval = success_gap(won, len(group), lost, len(other))
        p = fisher_exact(won, len(group), lost, len(other))
        row |= {"test": "Fisher", "only_policy": None, "only_base": None}
        notes.append(f"{name}: no common scene and noise with the base, so compared unpaired")
    row |= {"n_pairs": len(pairs), "difference": gap, "p_value": p}
    row |= {"difference_low": interval[0], "difference_high": interval[1]}
    return row, pairs.select("success_base", "success").to_numpy()


def _rate(arm: str, successes: int, n: int) -> dict[str, object]:
    low, high = wilson(successes, n)
    names = ("n", "successes", "rate", "low", "high")
    values = (n, successes, successes / n, low, high)
    return {f"{arm}{name}": value for name, value in zip(names, values, strict=True)}


def _aggregates(
    tasks: list[dict], outcomes: list[np.ndarray], notes: list[str]
) -> list[dict[str, object]]:
    """Return what the tasks of one policy and condition say together."""
    paired = [(task, pairs) for task, pairs in zip(tasks, outcomes, strict=True) if len(pairs)]
    if len(paired) < 2:
        return []
    if len(paired) < 4:
        notes.append(
            f"{tasks[0]['policy']}: {len(paired)} tasks; an interquartile mean of fewer than 4 is "
            "the plain mean"
        )
    about = {name: paired[0][0][name] for name in _ABOUT}
    about["n_tasks"] = len(paired)
    about["n_pairs"] = sum(len(pairs) for _, pairs in paired)
    samples = [pairs for _, pairs in paired]
    scores = np.stack([pairs.mean(axis=0) for pairs in samples], axis=-1)  # (2, tasks)
    rows = []
    for name, statistic in STATISTICS.items():
        base, policy = statistic(scores).tolist()
        row = {"statistic": name, "base_value": base, "value": policy, "difference": policy - base}
        for arm, of in (
            ("base_", lambda x, f=statistic: f(x[:, 0])),
            ("", lambda x, f=statistic: f(x[:, 1])),
            ("difference_", lambda x, f=statistic: f(x[:, 1]) - f(x[:, 0])),
        ):
            row[f"{arm}low"], row[f"{arm}high"] = stratified_interval(samples, of)
        rows.append(about | row)
    every = np.concatenate(samples)
    if (every[:, 0] == every[:, 1]).all():
        notes.append(
            f"{about['policy']}: no pair differs, so the bootstrap of the difference has no width; "
            "Newcombe's interval (all episodes) has"
        )
    n, (lost, won) = len(every), every.sum(axis=0).tolist()
    found = paired_success(every[:, 1], every[:, 0])
    row = {"statistic": "all episodes", "difference": found.difference, "p_value": found.p_value}
    row |= {"difference_low": found.ci[0], "difference_high": found.ci[1]}
    for arm, successes in (("base_", lost), ("", won)):
        low, high = wilson(successes, n)
        row |= {f"{arm}value": successes / n, f"{arm}low": low, f"{arm}high": high}
    return [*rows, about | row]

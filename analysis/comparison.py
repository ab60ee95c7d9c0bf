"""Measures of episodes, condition by condition: means with intervals, and paired differences.

A condition is compared with up to two others, pair by pair (same scene, same noise):

    baseline    the same policy without intervention or other words
    base        the base policy under the same condition: what fine-tuning did
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.aggregate import stratified_mean_interval
from analysis.base_policy import base_policy, why_no_base
from analysis.conditions import by_key, count_of, name_of, without_errors
from analysis.stats import MIN_PAIRS, bootstrap_ci, holm, paired_difference, sign_flip_p
from analysis.tables import CONDITION, SETTING, EpisodeTable
from traces.condition import CONTROLS

ABOUT = (
    *("policy", "policy_id", "suite", "task_id", "task", "sampler", "K", "replan", "role"),
    *("label", "prompt", "intervention", "alpha", "sites", "fingerprint"),
)
"""Columns that say which condition a row is about."""

SUMMARY = {
    "measure": pl.String,
    "n": pl.Int64,  # episodes that have the measure
    "mean": pl.Float64,  # over them
    "mean_low": pl.Float64,  # 95 % bootstrap interval
    "mean_high": pl.Float64,
    "against": pl.String,  # baseline, base, or "" where there is nothing to compare with
    "n_pairs": pl.Int64,  # pairs of which both have the measure
    "difference": pl.Float64,  # mean over pairs: this condition minus the other
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
    "p_value": pl.Float64,  # sign-flip, two-sided
    "p_holm": pl.Float64,  # corrected for all tests that are no control's
    "d_z": pl.Float64,
}


@dataclass(frozen=True)
class Summary:
    """A table and the sentences that belong to it."""

    frame: pl.DataFrame
    notes: tuple[str, ...]


def summarise(table: EpisodeTable, measures: Mapping[str, str], base: str = "") -> Summary:
    """Summarise measures of every condition of a table of episodes.

    Args:
        table: episodes with a column for each measure; null where an episode has none.
        measures: columns, and what notes call them.
        base: which policy is the base, see `base_policy`.

    Returns:
        One row per condition, measure and comparison: what says which (`ABOUT`) and `SUMMARY`. A
        measure that no episode of a condition has gives no row but a note. A condition of several
        tasks has rows over all of them too, without `task_id`: see `over_tasks`.
    """
    notes = list(table.notes)
    frame = without_errors(table.frame, notes)
    base_id = base_policy(frame, base, notes)
    rows, missing, tasks = [], {}, {}
    for group, against, other in arms(frame, base_id, notes):
        about = {name: group[name][0] for name in ABOUT}
        pairs = _pairs(group, other, against, list(measures), notes)
        same = tuple(value for name, value in about.items() if not name.startswith("task"))
        tasks.setdefault((same, against), (about, []))[1].append((group, pairs))
        for measure in measures:
            row = _row(group, pairs, measure)
            if row["n"]:
                rows.append(about | {"measure": measure, "against": against} | row)
            else:
                missing.setdefault(measure, []).append(name_of(about))
    for (_, against), (about, parts) in tasks.items():
        about = about | {"task_id": None, "task": f"all {len(parts)} tasks", "against": against}
        for measure in measures if len(parts) > 1 else ():
            rows += [about | {"measure": measure} | row for row in over_tasks(parts, measure)]
    notes += [
        f"{measures[measure]}: no episode has it in {_some(list(dict.fromkeys(names)))}"
        for measure, names in missing.items()
    ]
    tested = [row for row in rows if row["p_value"] is not None and not _is_control(row)]
    for row, p in zip(tested, holm([row["p_value"] for row in tested]), strict=True):
        row["p_holm"] = p
    if tested:
        notes.append(f"Holm corrects p for the {len(tested)} tests here that are no control's")
    schema = {name: frame.schema[name] for name in ABOUT} | SUMMARY
    return Summary(pl.DataFrame(rows, schema=schema), tuple(notes))


def over_tasks(
    parts: list[tuple[pl.DataFrame, pl.DataFrame | None]], measure: str
) -> Iterator[dict[str, object]]:
    """Yield the numbers of one measure over tasks, each task once: the mean of task means.

    Intervals are those of `stratified_mean_interval`; p is the sign-flip test of the sum of
    differences, each over the number of pairs of its task. Tasks without the measure do not count,
    and fewer than two that have it give nothing.

    Args:
        parts: per task, its episodes, and its pairs if there are any.
        measure: the column.
    """
    own = [group[measure].drop_nulls().to_numpy() for group, _ in parts]
    own = [values for values in own if len(values)]
    if len(own) < 2:
        return
    low, high = stratified_mean_interval(own)
    mean = float(np.mean([values.mean() for values in own]))
    row = {"n": sum(map(len, own)), "mean": mean, "mean_low": low, "mean_high": high}
    row |= {"n_pairs": 0, "p_value": None}
    columns = pl.col(measure) - pl.col(f"{measure}_other")
    gaps = [
        pairs.select(columns).to_series().drop_nulls() for _, pairs in parts if pairs is not None
    ]
    gaps = [gap.to_numpy() for gap in gaps if len(gap)]
    if len(gaps) > 1:
        row["n_pairs"] = sum(map(len, gaps))
        row["difference"] = float(np.mean([gap.mean() for gap in gaps]))
        if row["n_pairs"] >= MIN_PAIRS:
            row["difference_low"], row["difference_high"] = stratified_mean_interval(gaps)
            row["p_value"] = sign_flip_p(np.concatenate([gap / len(gap) for gap in gaps]))
    yield row


def _some(names: list[str]) -> str:
    many = f"{len(names)} conditions, such as {names[0]}"
    return " and ".join(names) if len(names) < 3 else many


def _is_control(row: dict) -> bool:
    return row["role"] in CONTROLS and row["against"] == "baseline"


def arms(
    frame: pl.DataFrame, base_id: str, notes: list[str]
) -> Iterator[tuple[pl.DataFrame, str, pl.DataFrame | None]]:
    """Yield (episodes of a condition, "baseline", "base" or "", episodes to compare them with).

    A condition without anything to be compared with comes once, with None.
    """
    found = dict(by_key(frame, CONDITION))
    for group in found.values():
        if 2 <= len(group) < MIN_PAIRS:
            name = name_of(group.row(0, named=True))
            notes.append(
                f"{name}: {len(group)} episodes; an interval of fewer than 6 is too narrow"
            )
    baselines = dict(by_key(frame.filter(pl.col("role") == "baseline"), SETTING))
    several = frame.filter(pl.col("kind") != "grpo")["policy_id"].n_unique() > 1
    for key, group in found.items():
        first = group.row(0, named=True)
        others = []
        if first["role"] != "baseline":
            others.append(("baseline", baselines.get(key[: len(SETTING)])))
        if several and first["policy_id"] != base_id and first["kind"] != "grpo":
            others.append(("base", found.get((base_id, *key[1:]))))
        for against, other in others:
            if other is None and against == "base":
                notes.append(why_no_base(frame, first, base_id))
            elif other is None:
                notes.append(f"{name_of(first)}: no baseline of its settings in these files")
        compared = [(against, other) for against, other in others if other is not None]
        for against, other in compared or [("", None)]:
            yield group, against, other


def _pairs(
    group: pl.DataFrame,
    other: pl.DataFrame | None,
    against: str,
    measures: list[str],
    notes: list[str],
) -> pl.DataFrame | None:
    """Return pairs of episodes, columns NAME and NAME_other; None without any."""
    if other is None:
        return None
    columns = ["pair_key", *measures]
    pairs = group.select(columns).join(
        other.select(columns), on="pair_key", how="inner", suffix="_other", maintain_order="left"
    )
    name = name_of(group.row(0, named=True))
    if len(pairs) < len(group):
        alone = count_of(len(group) - len(pairs))
        notes.append(f"{name}: {alone} of {len(group)} without a partner in the {against}")
    if 0 < len(pairs) < MIN_PAIRS:
        few = count_of(len(pairs), "pair")
        notes.append(f"{name}: {few} with the {against}; fewer than {MIN_PAIRS} cannot reach 0.05")
    return pairs if len(pairs) else None


def _row(group: pl.DataFrame, pairs: pl.DataFrame | None, measure: str) -> dict[str, object]:
    """Return the numbers of one measure, as `SUMMARY` names them."""
    values = group[measure].drop_nulls().to_numpy()
    low, high = bootstrap_ci(values) or (None, None)
    row = {
        "n": len(values),
        "mean": float(values.mean()) if len(values) else None,
        "mean_low": low,
        "mean_high": high,
        "n_pairs": 0,
        "p_value": None,
    }
    if pairs is None:
        return row
    both = pairs.select(measure, f"{measure}_other").drop_nulls()
    found = paired_difference(*(both[name].to_numpy() for name in both.columns))
    low, high = found.ci or (None, None)
    return row | {
        "n_pairs": found.n,
        "difference": found.mean,
        "difference_low": low,
        "difference_high": high,
        "p_value": found.p_value,
        "d_z": found.d_z,
    }

"""What training had to learn from: groups, advantages, drift and value, from traces of updates.

Read from the tables `groups`, `advantages` and `updates` that `vla-trace train --traces N` keeps.
Four tables: one row a group, an update, an initial state, and the points of the value curve.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from analysis.conditions import count_of
from analysis.proportions import wilson
from analysis.tables import HUGE
from traces.collection import TraceCollection, open_traces
from traces.errors import NotATrace, UserError
from traces.schema import TABLES

GROUP = ("run_id", "update", "group", "attempt")
"""What names a drawn group."""

GROUPS = {
    "run_id": pl.String,
    "update": pl.Int32,
    "group": pl.Int32,
    "attempt": pl.Int32,  # round in which it was drawn
    "task_id": pl.Int32,
    "init_state": pl.Int32,
    "scene_seed": pl.Int64,
    "n": pl.Int32,  # members that finished
    "n_success": pl.Int32,
    "return_mean": pl.Float64,
    "return_std": pl.Float64,  # ddof 1, as recorded
    "zero_variance": pl.Boolean,  # every member had one return: nothing to learn
    "accepted": pl.Boolean,
    "reason": pl.String,
    "n_advantages": pl.Int64,
    "advantage_mean": pl.Float64,
    "advantage_std": pl.Float64,  # ddof 1
    "n_positive": pl.Int64,
    "n_negative": pl.Int64,
    "positive_weight": pl.Float64,  # share of sum |A| that is positive
    "ess_episodes": pl.Float64,  # (sum |A|)^2 / sum A^2
}

UPDATES = {
    "run_id": pl.String,
    "update": pl.Int32,
    "n_groups": pl.Int64,  # drawn
    "n_accepted": pl.Int64,
    "n_zero_variance": pl.Int64,
    "zero_variance_share": pl.Float64,  # of those drawn
    "zero_variance_low": pl.Float64,  # 95 % Wilson interval
    "zero_variance_high": pl.Float64,
    "n": pl.Int64,  # episodes of all drawn groups
    "n_success": pl.Int64,
    "success_rate": pl.Float64,  # with exploration noise: not a result
    "success_low": pl.Float64,
    "success_high": pl.Float64,
    "n_advantages": pl.Int64,  # episodes in the loss
    "advantage_mean": pl.Float64,
    "advantage_std": pl.Float64,
    "n_positive": pl.Int64,
    "n_negative": pl.Int64,
    "positive_weight": pl.Float64,
    "ess_episodes": pl.Float64,
    "ess_share": pl.Float64,  # recorded: of action rows or chunks, by their ratios
    "n_decisions": pl.Int64,  # in the loss
    "ratio_mean": pl.Float64,  # new over old likelihood
    "ratio_max": pl.Float64,
    "first_ratio_max_abs_dev": pl.Float64,
    "approx_kl": pl.Float64,  # nat
    "clip_fraction": pl.Float64,
    "log_prob": pl.Float64,  # nat per decision, mean over those played
    "log_prob_drift": pl.Float64,  # less that of the run's first update here
}

STATES = {
    "run_id": pl.String,
    "task_id": pl.Int32,
    "init_state": pl.Int32,
    "scene_seed": pl.Int64,
    "n_groups": pl.Int64,  # visits
    "n": pl.Int64,  # episodes
    "n_success": pl.Int64,
    "success_rate": pl.Float64,
    "success_low": pl.Float64,
    "success_high": pl.Float64,
    "outcome": pl.String,  # always, never or mixed
}

VALUE = {
    "run_id": pl.String,
    "update": pl.Int32,
    "n": pl.Int64,  # episodes of the update
    "value": pl.Float64,  # their mean return
    "n_cumulative": pl.Int64,
    "value_cumulative": pl.Float64,  # sum of `value` over updates so far
    "value_so_far": pl.Float64,  # mean return of all episodes so far
}


@dataclass(frozen=True)
class Training:
    """The four tables, and what they do not rest on."""

    groups: pl.DataFrame
    updates: pl.DataFrame
    states: pl.DataFrame
    value: pl.DataFrame
    notes: tuple[str, ...]


def advantage_tables(paths: Iterable[Path | str]) -> Training:
    """Read the training tables of some traces: columns of `GROUPS`, `UPDATES`, `STATES`, `VALUE`.

    Of a group or update that a resumed run recorded again, the newest file counts.
    """
    paths, notes = list(paths), []
    with open_traces(*paths) if paths else TraceCollection(()) as traces:
        groups = _credible(_read(traces, "groups").rename({"n_members": "n"}))
        advantages = _read(traces, "advantages")
        updates = _read(traces, "updates")
        log_prob = _log_probs(traces)
        notes += traces.notes if paths else ()
    groups = _newest(groups, [*GROUP])
    advantages = _newest(advantages, ["run_id", "uid"])
    updates = _newest(updates, ["run_id", "update"])
    if groups.is_empty():
        notes.append(
            "no groups in these files: advantages are in traces of training "
            "(vla-trace train --traces 1)"
        )
    groups = _group_table(groups, advantages)
    return Training(
        groups,
        _update_table(groups, advantages, updates, log_prob, notes),
        _state_table(groups, notes),
        _value_curve(groups, notes),
        tuple(notes),
    )


def _read(traces: TraceCollection, name: str) -> pl.DataFrame:
    """Return a side table with the run and the age of the file that each row is from."""
    nothing = {f.name: np.zeros(0, "U" if f.text_bytes else f.dtype) for f in TABLES[name]}
    columns = traces.table(name) if traces.paths else nothing | {"file": np.zeros(0, int)}
    if lacking := [field.name for field in TABLES[name] if field.name not in columns]:
        raise UserError(
            f"not all of these files have the column {name}/{lacking[0]}; "
            "vla-trace check FILES says which is damaged"
        )
    headers = []
    for number in range(len(traces.paths)):
        with traces.reading(number) as trace:
            headers.append((trace.header.run_id, trace.header.created_utc, str(trace.path)))
    file = columns.pop("file")
    names = ("run_id", "created_utc", "path")
    own = {name: [header[place] for header in headers] for place, name in enumerate(names)}
    origin = {name: np.array(values, str)[file] for name, values in own.items()}
    frame = pl.DataFrame(origin | columns)
    return frame.with_columns(pl.when(pl.col(pl.Float64).abs() < HUGE).then(pl.col(pl.Float64)))


def _credible(groups: pl.DataFrame) -> pl.DataFrame:
    """Refuse more successes than members."""
    wrong = groups.filter(~pl.col("n_success").is_between(0, pl.col("n")))
    if len(wrong):
        raise NotATrace(wrong["path"][0], "it is damaged (groups/n_success exceeds n_members)")
    return groups


def _newest(frame: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    newest = frame.sort("created_utc", "path", descending=True).unique(keys, maintain_order=True)
    return newest.sort(keys)


def _log_probs(traces: TraceCollection) -> pl.DataFrame:
    """Mean log-probability [nat] of the decisions of each run and update."""
    found = {"run_id": [], "update": [], "log_prob": []}
    for file in range(len(traces.paths)):
        with traces.reading(file) as trace:
            if trace.header.kind != "grpo":
                continue
            drawn = trace.episodes("update", "n_decisions")
            found["log_prob"].append(trace.decisions("log_prob")["log_prob"])
            found["update"].append(np.repeat(drawn["update"], drawn["n_decisions"]))
            found["run_id"].append(np.full(len(found["update"][-1]), trace.header.run_id))
    schema = {"run_id": pl.String, "update": pl.Int32, "log_prob": pl.Float64}
    columns = {name: np.concatenate(parts) if parts else [] for name, parts in found.items()}
    frame = pl.DataFrame(columns, schema=schema).filter(pl.col("log_prob").abs() < HUGE)
    return frame.group_by("run_id", "update").agg(pl.col("log_prob").sort().mean())


def _advantage_columns() -> list[pl.Expr]:
    """What is said of the advantages of a group or an update."""
    value = pl.col("advantage").drop_nulls().sort()
    size = value.abs()
    return [
        value.len().cast(pl.Int64).alias("n_advantages"),
        value.mean().alias("advantage_mean"),
        value.std().alias("advantage_std"),
        (value > 0).sum().cast(pl.Int64).alias("n_positive"),
        (value < 0).sum().cast(pl.Int64).alias("n_negative"),
        pl.when(size.sum() > 0)
        .then(value.filter(value > 0).sum() / size.sum())
        .alias("positive_weight"),
        pl.when(size.sum() > 0).then(size.sum() ** 2 / (size**2).sum()).alias("ess_episodes"),
    ]


def _group_table(groups: pl.DataFrame, advantages: pl.DataFrame) -> pl.DataFrame:
    """One row per drawn group; only accepted ones have advantages."""
    of_group = ["run_id", "update", "group"]
    learned = advantages.group_by(of_group).agg(_advantage_columns())
    found = groups.join(learned, on=of_group, how="left").with_columns(
        zero_variance=pl.col("return_std").fill_null(0.0) == 0,
        n_advantages=pl.col("n_advantages").fill_null(0),
        n_positive=pl.col("n_positive").fill_null(0),
        n_negative=pl.col("n_negative").fill_null(0),
    )
    return found.select(pl.col(name).cast(kind) for name, kind in GROUPS.items()).sort(GROUP)


def _update_table(
    groups: pl.DataFrame,
    advantages: pl.DataFrame,
    updates: pl.DataFrame,
    log_prob: pl.DataFrame,
    notes: list[str],
) -> pl.DataFrame:
    """One row per update: its groups, its advantages, and how far the step went."""
    keys = ["run_id", "update"]
    drawn = groups.group_by(keys).agg(
        n_groups=pl.len().cast(pl.Int64),
        n_accepted=pl.col("accepted").sum().cast(pl.Int64),
        n_zero_variance=pl.col("zero_variance").sum().cast(pl.Int64),
        n=pl.col("n").sum().cast(pl.Int64),
        n_success=pl.col("n_success").sum().cast(pl.Int64),
    )
    drawn = _with_wilson(drawn, "n_zero_variance", "n_groups", "zero_variance", "_share")
    drawn = _with_wilson(drawn, "n_success", "n", "success", "_rate")
    learned = advantages.group_by(keys).agg(_advantage_columns())
    step = updates.rename({"ess": "ess_share"}).drop(
        "n_groups", "success_rate", "created_utc", "path"
    )
    found = drawn.join(learned, on=keys, how="left").join(step, on=keys, how="left")
    found = found.join(log_prob, on=keys, how="left").sort(keys)
    first = pl.col("log_prob").drop_nulls().first().over("run_id")
    found = found.with_columns(
        log_prob_drift=pl.col("log_prob") - first,
        n_advantages=pl.col("n_advantages").fill_null(0),
        n_positive=pl.col("n_positive").fill_null(0),
        n_negative=pl.col("n_negative").fill_null(0),
    )
    for run, update, n in found.filter(pl.col("n_accepted") == 0)["run_id", "update", "n"].rows():
        notes.append(
            f"{run} update {update}: no group had variance ({count_of(n)}), so nothing was learned"
        )
    off = found.filter(pl.col("first_ratio_max_abs_dev") > 1e-3)
    for run, update, worst in off["run_id", "update", "first_ratio_max_abs_dev"].rows():
        notes.append(
            f"{run} update {update}: the ratio was off by {worst:.2g} before the first step; "
            "training scored other actions than were played"
        )
    return found.select(pl.col(name).cast(kind) for name, kind in UPDATES.items())


def _state_table(groups: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """One row per scene that training drew, and whether its episodes always or never succeeded."""
    keys = ["run_id", "task_id", "init_state", "scene_seed"]
    states = (
        groups.filter(pl.col("n") > 0)
        .group_by(keys)
        .agg(
            n_groups=pl.len().cast(pl.Int64),
            n=pl.col("n").sum().cast(pl.Int64),
            n_success=pl.col("n_success").sum().cast(pl.Int64),
        )
    )
    states = _with_wilson(states, "n_success", "n", "success", "_rate").with_columns(
        outcome=pl.when(pl.col("n_success") == pl.col("n"))
        .then(pl.lit("always"))
        .when(pl.col("n_success") == 0)
        .then(pl.lit("never"))
        .otherwise(pl.lit("mixed"))
    )
    once = states.filter(pl.col("n_groups") == 1)
    if len(states) and len(once) == len(states):
        notes.append(
            "every initial state was drawn once, so always and never are about one group each"
        )
    return states.select(pl.col(name).cast(kind) for name, kind in STATES.items()).sort(keys)


def _value_curve(groups: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """Value of each update (mean return of all its episodes) and its sum over updates."""
    total = (pl.col("return_mean") * pl.col("n")).sort().sum()
    curve = (
        groups.drop_nulls("return_mean")
        .group_by("run_id", "update")
        .agg(n=pl.col("n").sum().cast(pl.Int64), total=total)
        .filter(pl.col("n") > 0)
        .sort("run_id", "update")
        .with_columns(value=pl.col("total") / pl.col("n"))
        .with_columns(
            n_cumulative=pl.col("n").cum_sum().over("run_id"),
            value_cumulative=pl.col("value").cum_sum().over("run_id"),
        )
        .with_columns(
            value_so_far=pl.col("total").cum_sum().over("run_id") / pl.col("n_cumulative")
        )
    )
    for (run,), own in curve.partition_by("run_id", as_dict=True, maintain_order=True).items():
        last = own["update"].max()
        absent = last + 1 - len(own)  # updates count from 0
        if absent:
            notes.append(
                f"{run}: {count_of(absent, 'update')} before {last} kept no trace here; the "
                f"cumulative value sums the {len(own)} that did"
            )
    return curve.select(pl.col(name).cast(kind) for name, kind in VALUE.items())


def _with_wilson(frame: pl.DataFrame, hits: str, of: str, name: str, ending: str) -> pl.DataFrame:
    """Add a share and its 95 % Wilson interval; null where `of` is 0."""
    found = [wilson(k, n) or (None, None) for k, n in frame.select(hits, of).iter_rows()]
    low, high = zip(*found, strict=True) if found else ((), ())
    return frame.with_columns(
        pl.when(pl.col(of) > 0).then(pl.col(hits) / pl.col(of)).alias(f"{name}{ending}"),
        pl.Series(f"{name}_low", low, dtype=pl.Float64),
        pl.Series(f"{name}_high", high, dtype=pl.Float64),
    )

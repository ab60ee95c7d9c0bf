"""What each condition did: success and MEED, compared pair by pair with its unsteered baseline.

A baseline shares everything with another condition but intervention and prompt (`tables.SETTING`),
and its episodes are matched by pair_key: same scene, same noise. A steered condition is also
ranked among its controls. The report carries, for each intervention recorded at several doses, the
trend over alpha, and notes: sentences that say what the numbers do not rest on.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import polars as pl

from analysis.conditions import by_key, count_of, name_of, place_of, without_errors
from analysis.motion import meed_cm
from analysis.specificity import MIN_RANDOM, Specificity, specificity
from analysis.stats import (
    MIN_PAIRS,
    Interval,
    PairedDifference,
    bootstrap_ci,
    holm,
    paired_difference,
    paired_success,
    wilson,
)
from analysis.tables import CONDITION, SETTING, EpisodeTable, episode_table
from analysis.trend import Trend, trend

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Condition:
    """One row of the report; None where nothing can be said."""

    policy: str
    suite: str
    task_id: int
    task: str
    sampler: str
    K: int
    replan: int
    role: str
    """baseline, prompt, steered, random or null."""
    label: str
    """Short name within its setting."""
    prompt: str
    """What the policy was told; "{}" is the task's own instruction."""
    intervention: str | None
    """Name; None without one."""
    alpha: float | None
    sites: str | None
    fingerprint: str | None
    """SHA-256 of what the intervention does, the dose included."""
    episodes: int
    successes: int
    success_rate: float | None
    success_ci: Interval | None
    meed_cm: float | None
    """Mean over episodes of each one's MEED [cm per control step]."""
    meed_ci: Interval | None
    n_pairs: int
    """Episodes with a baseline partner."""
    delta_meed_cm: float | None
    """Mean over pairs of steered minus baseline."""
    delta_ci: Interval | None
    p_value: float | None
    """Sign-flip p of delta_meed_cm, two-sided."""
    d_z: float | None
    delta_meed_common_cm: float | None
    """The same over the control steps that both episodes of a pair have."""
    delta_common_ci: Interval | None
    delta_success: float | None
    delta_success_ci: Interval | None
    success_p_value: float | None
    """Exact McNemar p."""
    files: list[str]
    p_holm: float | None = None
    """p_value, corrected by Holm for all steered conditions of the report."""
    specificity: Specificity | None = None
    """A steered condition beside its controls; None where there are none."""


@dataclass(frozen=True)
class Family:
    """One intervention at all its doses, in one setting."""

    policy: str
    suite: str
    task_id: int
    intervention: str
    sites: str
    alphas: list[float]
    n_pairs: int
    """Pairs recorded at every dose."""
    page_l: float | None
    p_value: float | None
    """Two-sided p of Page's L."""
    slope_cm_per_alpha: float | None
    slope_ci: Interval | None


@dataclass(frozen=True)
class Report:
    """What `vla-trace analyze` prints."""

    conditions: list[Condition]
    families: list[Family]
    notes: list[str]

    def to_dict(self) -> dict:
        """Return the JSON object of `vla-trace analyze --json`."""
        return {
            "schema": SCHEMA_VERSION,
            "conditions": [asdict(condition) for condition in self.conditions],
            "trend": {"quantity": "meed_cm", "families": [asdict(f) for f in self.families]},
            "notes": self.notes,
        }


def analyse(paths: Iterable[Path | str]) -> Report:
    """Read traces (as `open_traces` finds them) and report on every condition in them."""
    return report(episode_table(paths))


def report(table: EpisodeTable) -> Report:
    """Report on every condition of an episode table."""
    notes = list(table.notes)
    frame = without_errors(table.frame, notes)
    baselines = {
        setting: group
        for setting, group in by_key(frame.filter(pl.col("role") == "baseline"), SETTING)
    }
    conditions = []
    for key, group in by_key(frame, CONDITION):
        baseline = baselines.get(key[: len(SETTING)])
        condition = _condition(group, baseline, frame, notes)
        if condition.role == "steered" and condition.n_pairs:
            found = _specificity(group, baseline, frame, notes)
            condition = replace(condition, specificity=found)
        conditions.append(condition)
    conditions = _corrected(conditions, notes)
    steered = frame.filter(pl.col("role") == "steered", pl.col("alpha").is_not_null())
    families = [
        _family(group, notes)
        for _, group in by_key(steered, (*SETTING, "family"))
        if group.get_column("alpha").n_unique() > 1
    ]
    return Report(conditions, families, notes)


def _corrected(conditions: list[Condition], notes: list[str]) -> list[Condition]:
    """Fill in `p_holm`: the steered conditions are one family, whatever was looked at first."""
    tested = [c for c in conditions if c.role == "steered" and c.p_value is not None]
    if len(tested) < 2:
        return conditions
    notes.append(f"p (Holm) is corrected for the {len(tested)} steered conditions in these files")
    adjusted = dict(zip(map(id, tested), holm([c.p_value for c in tested]), strict=True))
    return [replace(c, p_holm=adjusted.get(id(c))) for c in conditions]


def _specificity(
    group: pl.DataFrame, baseline: pl.DataFrame, frame: pl.DataFrame, notes: list[str]
) -> Specificity | None:
    """Find the controls of a steered condition and rank it among them."""
    first = group.row(0, named=True)
    mine = [pl.col(key) == first[key] for key in (*SETTING, "prompt")]
    controls = frame.filter(*mine, pl.col("matched_to").is_in([first["family"], ""]))
    randoms = controls.filter(
        pl.col("role") == "random",
        pl.col("matched_to") == first["family"],
        pl.col("alpha").eq_missing(pl.lit(first["alpha"])),
    )
    nulls = controls.filter(pl.col("role") == "null")  # one matched to nothing serves all
    if randoms.is_empty() and nulls.is_empty():
        notes.append(
            f"{name_of(first)}: without controls nothing says that it is the concept that acts "
            "(record --controls light)"
        )
        return None
    found = specificity(
        group,
        baseline,
        [part for _, part in by_key(randoms, ("fingerprint",))],
        [part for _, part in by_key(nulls, ("fingerprint",))],
    )
    if 0 < found.n_random < MIN_RANDOM:
        notes.append(
            f"{name_of(first)}: a rank among {found.n_random} random clusters cannot reach p 0.05; "
            f"{MIN_RANDOM} or more are needed (record --controls full)"
        )
    if found.null_equal < found.null_pairs:
        notes.append(
            f"{name_of(first)}: the null control CHANGED {found.null_pairs - found.null_equal} of "
            f"{found.null_pairs} episodes; it must change none, so nothing here can be trusted"
        )
    return found


def _condition(
    group: pl.DataFrame, baseline: pl.DataFrame | None, frame: pl.DataFrame, notes: list[str]
) -> Condition:
    first = group.row(0, named=True)
    name = name_of(first)
    n, successes = len(group), int(group.get_column("success").sum())
    meeds = group.get_column("meed_cm").drop_nulls().to_numpy()
    if len(meeds) < n:
        notes.append(f"{name}: {count_of(n - len(meeds))} without a measurable path, not in MEED")
    if 2 <= len(meeds) < MIN_PAIRS:
        notes.append(f"{name}: {len(meeds)} episodes; an interval of fewer than 6 is too narrow")
    if first["role"] in ("steered", "random"):
        _check_intervened(group, name, notes)
    return Condition(
        **{key: first[key] for key in ("policy", "suite", "task_id", "task", "sampler")},
        **{key: first[key] for key in ("K", "replan", "role", "label", "prompt")},
        **{key: first[key] for key in ("intervention", "alpha", "sites")},
        fingerprint=first["fingerprint"] or None,
        episodes=n,
        successes=successes,
        success_rate=successes / n,
        success_ci=wilson(successes, n),
        meed_cm=float(meeds.mean()) if len(meeds) else None,
        meed_ci=bootstrap_ci(meeds),
        **_comparison(group, _partner(first, baseline, frame, notes), name, notes),
        files=sorted(set(group.get_column("file").to_list())),
    )


def _partner(
    first: dict, baseline: pl.DataFrame | None, frame: pl.DataFrame, notes: list[str]
) -> pl.DataFrame | None:
    """Return the baseline of a condition; a note when there is none."""
    if first["role"] == "baseline" or baseline is not None:
        return None if first["role"] == "baseline" else baseline
    same = [pl.col(key) == first[key] for key in ("policy_id", "suite", "task_id")]
    others = frame.filter(*same, pl.col("role") == "baseline")
    why = "recorded with another sampler, K or replanning" if len(others) else "in these files"
    found = "its baseline was" if len(others) else "there is no baseline"
    notes.append(f"{name_of(first)}: {found} {why}, so it is compared with nothing")
    return None


def _comparison(
    group: pl.DataFrame, baseline: pl.DataFrame | None, name: str, notes: list[str]
) -> dict:
    """Return the columns that compare a condition with its baseline."""
    pairs = None
    if baseline is not None:
        columns = ("pair_key", "meed_cm", "step_cm", "success")
        pairs = group.select(columns).join(
            baseline.select(columns), on="pair_key", how="inner", suffix="_base"
        )
        if len(pairs) < len(group):
            alone = count_of(len(group) - len(pairs))
            notes.append(f"{name}: {alone} of {len(group)} without a baseline partner")
    if pairs is None or pairs.is_empty():
        unknown = [field.name for field in fields(Condition) if field.name.startswith("delta_")]
        return dict.fromkeys((*unknown, "p_value", "d_z", "success_p_value")) | {"n_pairs": 0}
    whole = pairs.drop_nulls(["meed_cm", "meed_cm_base"])
    meed = paired_difference(whole["meed_cm"].to_numpy(), whole["meed_cm_base"].to_numpy())
    if group.item(0, "role") != "null":  # of which no variance is the point
        notes.extend(f"{name}: {note}" for note in meed.notes)
    common = _common_difference(whole)
    success = paired_success(pairs["success"].to_list(), pairs["success_base"].to_list())
    return {
        "n_pairs": len(pairs),
        "delta_meed_cm": meed.mean,
        "delta_ci": meed.ci,
        "p_value": meed.p_value,
        "d_z": meed.d_z,
        "delta_meed_common_cm": common.mean,
        "delta_common_ci": common.ci,
        "delta_success": success.difference,
        "delta_success_ci": success.ci,
        "success_p_value": success.p_value,
    }


def _common_difference(pairs: pl.DataFrame) -> PairedDifference:
    """Compare MEED over the first steps that both episodes of each pair have."""
    steered, base = [], []
    for one, other in zip(pairs["step_cm"].to_list(), pairs["step_cm_base"].to_list(), strict=True):
        n = min(len(one), len(other))
        steered.append(meed_cm(one, first=n))
        base.append(meed_cm(other, first=n))
    return paired_difference(steered, base)


def _check_intervened(group: pl.DataFrame, name: str, notes: list[str]) -> None:
    """Say it when the recorded intervention did not act."""
    share = group.get_column("intervened").drop_nulls()
    idle = int((share == 0).sum())
    if idle:
        which = "any episode" if idle == len(group) else f"{count_of(idle)} of {len(group)}"
        notes.append(f"{name}: the intervention never acted in {which}")


def _family(group: pl.DataFrame, notes: list[str]) -> Family:
    first = group.row(0, named=True)
    alphas = sorted(set(group.get_column("alpha").to_list()))
    by_pair: dict[str, dict[float, float]] = defaultdict(dict)
    rows = group.drop_nulls(["pair_key", "meed_cm"]).sort("pair_key", "alpha")
    for pair_key, alpha, value in rows.select("pair_key", "alpha", "meed_cm").iter_rows():
        by_pair[pair_key][alpha] = value
    whole = [list(pair.values()) for pair in by_pair.values() if len(pair) == len(alphas)]
    found: Trend = trend(alphas, whole)
    where = f"{first['intervention']} in {place_of(first)}"
    notes.extend(f"{where}: {note} (the baseline is not a dose)" for note in found.notes)
    return Family(
        **{key: first[key] for key in ("policy", "suite", "task_id", "intervention", "sites")},
        alphas=alphas,
        n_pairs=found.n,
        page_l=found.page_l,
        p_value=found.p_value,
        slope_cm_per_alpha=found.slope,
        slope_ci=found.slope_ci,
    )

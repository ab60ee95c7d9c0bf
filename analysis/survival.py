"""Does steering survive fine-tuning? The base's cluster, applied to the fine-tuned policy.

Four arms of the same scenes: the base policy B and the fine-tuned T, each as it is (0) and with the
same intervention (s), equal to the last neuron and dose. Per pair of scene and noise

    effect in the base      B_s - B_0
    effect in the tuned     T_s - T_0
    difference              (T_s - T_0) - (B_s - B_0)            (difference in differences)
    kept                    mean (T_s - T_0) / mean (B_s - B_0)

with the episode quadruple as the unit: BCa bootstrap intervals and sign-flip p of means, as in
`analysis.stats`; `kept`, a ratio, has a percentile bootstrap interval over quadruples, and is given
only where the interval of the base's effect excludes zero. Random clusters recorded on both sides
say whether what is lost is lost by any neurons:

    excess                  difference - mean over random clusters of theirs

No difference found does not mean survival: the interval says how much may have been lost.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from analysis.base_policy import base_policy
from analysis.conditions import by_key, name_of, without_errors
from analysis.motion import meed_cm
from analysis.stats import RESAMPLES, Interval, holm, paired_difference
from analysis.tables import SETTING, EpisodeTable, episode_table

MEASURES = {
    "meed_cm": "MEED cm/step",
    "meed_common_cm": "common steps",  # MEED over those that all four of a quadruple have
    "success": "success",
}

SCHEMA = {
    "base": pl.String,
    "policy": pl.String,  # the fine-tuned one
    "policy_id": pl.String,
    "suite": pl.String,
    "task_id": pl.Int32,
    "task": pl.String,
    "label": pl.String,  # of the steered condition
    "fingerprint": pl.String,
    "alpha": pl.Float64,
    "sites": pl.String,
    "measure": pl.String,
    "n": pl.Int64,  # quadruples
    "base_effect": pl.Float64,
    "base_effect_low": pl.Float64,
    "base_effect_high": pl.Float64,
    "tuned_effect": pl.Float64,
    "tuned_effect_low": pl.Float64,
    "tuned_effect_high": pl.Float64,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
    "p_value": pl.Float64,
    "p_holm": pl.Float64,  # over the rows of the same measure
    "d_z": pl.Float64,
    "kept": pl.Float64,
    "kept_low": pl.Float64,
    "kept_high": pl.Float64,
    "n_random": pl.Int64,  # random clusters recorded on both sides at this dose
    "excess": pl.Float64,
    "excess_low": pl.Float64,
    "excess_high": pl.Float64,
    "excess_p": pl.Float64,
    "null_pairs": pl.Int64,  # episodes of the tuned policy's null control
    "null_equal": pl.Int64,  # of them, bit-equal to its unsteered ones
}

COLUMNS = ("pair_key", "meed_cm", "step_cm", "success")
ARMS = ("base_0", "base_s", "tuned_0", "tuned_s")


@dataclass(frozen=True)
class Missing:
    """An arm that was not recorded."""

    policy: str
    arm: str
    """Label of the condition."""
    suite: str
    task_id: int
    replan: int


@dataclass(frozen=True)
class Survival:
    """What `survival` found."""

    frame: pl.DataFrame
    """Columns of `SCHEMA`, one row a tuned policy, task, steered condition and measure."""
    missing: tuple[Missing, ...]
    base: str
    """Name of the base policy."""
    base_id: str
    notes: tuple[str, ...]


def survival(paths: Iterable[Path | str], base: str = "") -> Survival:
    """Compare the effect of interventions in a base policy and in policies tuned from it.

    Args:
        paths: traces of all arms.
        base: which policy is the base, see `base_policy.base_policy`.
    """
    return survival_of(episode_table(paths), base)


def survival_of(table: EpisodeTable, base: str = "") -> Survival:
    """The same for episodes that were read."""
    notes = list(table.notes)
    frame = without_errors(table.frame, notes).filter(pl.col("kind") == "record")
    base_id = base_policy(frame, base, notes)
    frame = frame.drop_nulls("pair_key")
    found = {key: group for key, group in by_key(frame, (*TASK, "policy_id", "fingerprint"))}
    tuned = frame.filter(pl.col("policy_id") != base_id)["policy_id"].unique(maintain_order=True)
    steered = frame.filter(pl.col("role") == "steered", pl.col("prompt") == "{}")
    rows, missing = [], []
    wanted = steered.unique([*TASK, "fingerprint"], maintain_order=True)
    for first in wanted.iter_rows(named=True):
        task, fingerprint = tuple(first[key] for key in TASK), first["fingerprint"]
        for policy_id in tuned:
            keys = [(one, acts) for one in (base_id, policy_id) for acts in ("", fingerprint)]
            arms = [_one_arm(found.get((*task, *key)), notes) for key in keys]
            absent = [key for key, arm in zip(keys, arms, strict=True) if arm is None]
            if absent:
                missing += [_missing(frame, first, *key) for key in absent]
                continue
            if not _same_settings(arms, notes):
                continue
            controls = _random_arms(frame, first, base_id, policy_id)
            rows += _rows(arms, controls, frame, notes)
    result = pl.DataFrame(rows, schema=SCHEMA)
    names = frame.filter(pl.col("policy_id") == base_id)["policy"]
    return Survival(
        frame=_corrected(result),
        missing=tuple(dict.fromkeys(missing)),
        base=names[0] if len(names) else "",
        base_id=base_id,
        notes=tuple(dict.fromkeys(notes)),
    )


TASK = ("suite", "task_id", "replan")


def _one_arm(group: pl.DataFrame | None, notes: list[str]) -> pl.DataFrame | None:
    """The arm's episodes under one sampler, the more numerous if there are several."""
    if group is None:
        return None
    group = group.filter(pl.col("prompt") == "{}")
    parts = sorted((part for _, part in by_key(group, SETTING)), key=len)
    if len(parts) > 1:
        first = parts[-1].row(0, named=True)
        notes.append(
            f"{name_of(first)}, {first['policy']}: recorded with several samplers; the "
            "one with most episodes counts"
        )
    return parts[-1] if parts else None


def _same_settings(arms: list[pl.DataFrame], notes: list[str]) -> bool:
    """Whether steered and unsteered were sampled alike; a note where the two policies were not."""
    first = [arm.row(0, named=True) for arm in arms]
    alike = True
    for natural, steered in (first[:2], first[2:]):
        if natural["sampler_id"] != steered["sampler_id"]:
            what = f"{name_of(steered)}, {steered['policy']}"
            notes.append(f"{what}: its unsteered arm has another sampler, so it is not compared")
            alike = False
    if alike and first[0]["sampler_id"] != first[2]["sampler_id"]:
        told = " and ".join(f"{r['sampler']}, K {r['K']}" for r in (first[0], first[2]))
        notes.append(
            f"{first[2]['policy']} was sampled otherwise than the base ({told}): each effect is "
            "within a policy, but they are not of the same noise"
        )
    return alike


def _quadruples(arms: list[pl.DataFrame]) -> pl.DataFrame:
    """One row a pair_key that all arms have, columns such as `meed_cm_base_s`."""
    joined = None
    for name, arm in zip(ARMS, arms, strict=True):
        part = arm.select("pair_key", pl.col(*COLUMNS[1:]).name.suffix(f"_{name}"))
        joined = part if joined is None else joined.join(part, on="pair_key")
    return joined.sort("pair_key")


def _measured(arms: list[pl.DataFrame]) -> dict[str, np.ndarray]:
    """Measure to (n, 4) values of the quadruples that have it."""
    rows = _quadruples(arms)
    steps = rows.select(f"step_cm_{name}" for name in ARMS).rows()
    common = [[meed_cm(lengths, first=min(map(len, four))) for lengths in four] for four in steps]
    values = {
        "meed_cm": rows.select(f"meed_cm_{name}" for name in ARMS).to_numpy(),
        "meed_common_cm": np.array(common, dtype=float).reshape(-1, 4),
        "success": rows.select(f"success_{name}" for name in ARMS).to_numpy().astype(float),
    }
    return {name: v[np.isfinite(v).all(axis=1)] for name, v in values.items()}


def _rows(
    arms: list[pl.DataFrame],
    controls: list[list[pl.DataFrame]],
    frame: pl.DataFrame,
    notes: list[str],
) -> list[dict[str, object]]:
    first, tuned = arms[1].row(0, named=True), arms[3].row(0, named=True)
    name = f"{name_of(first)}, {tuned['policy']}"
    about = {key: first[key] for key in ("suite", "task_id", "task", "label", "fingerprint")}
    about |= {key: first[key] for key in ("alpha", "sites")}
    about |= {"base": first["policy"], "policy": tuned["policy"], "policy_id": tuned["policy_id"]}
    about |= _nulls(frame, first, arms[2])
    rows = []
    for measure, values in _measured(arms).items():
        base, changed = values[:, 1] - values[:, 0], values[:, 3] - values[:, 2]
        found = paired_difference(changed, base)
        effects = {"base_effect": bootstrap_of(base), "tuned_effect": bootstrap_of(changed)}
        row = about | {"measure": measure, "n": found.n, "p_value": found.p_value}
        row |= {"d_z": found.d_z} | _estimate("difference", found.mean, found.ci)
        for effect, (mean, interval) in effects.items():
            row |= _estimate(effect, mean, interval)
        row |= _estimate("kept", *kept(base, changed, effects["base_effect"][1]))
        rows.append(row | _excess(arms, controls, measure))
        if measure == "meed_cm":
            notes.extend(f"{name}: {note}" for note in found.notes)
    if not controls:
        notes.append(
            f"{name}: no random cluster was recorded on both sides, so nothing says whether any "
            "neurons would have lost as much (survive --plan records the base's)"
        )
    return rows


def bootstrap_of(effect: np.ndarray) -> tuple[float | None, Interval | None]:
    """Mean of paired differences and its interval, as `stats.paired_difference` gives them."""
    found = paired_difference(effect, np.zeros_like(effect))
    return found.mean, found.ci


def kept(
    base: np.ndarray, tuned: np.ndarray, base_ci: Interval | None
) -> tuple[float | None, Interval | None]:
    """Share of the base's effect that the tuned policy shows, and its interval.

    Args:
        base: (n,) steered minus unsteered of each quadruple.
        tuned: (n,) the same of the tuned policy.
        base_ci: of the mean of `base`.

    Returns:
        None where the base's effect may be zero: a share of nothing is no number.
    """
    if base_ci is None or base_ci[0] <= 0 <= base_ci[1]:
        return None, None
    draws = np.random.default_rng(0).integers(0, len(base), size=(RESAMPLES, len(base)))
    below = base[draws].mean(axis=1)
    ratios = tuned[draws].mean(axis=1)[below != 0] / below[below != 0]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(tuned.mean() / base.mean()), (float(low), float(high))


def _random_arms(
    frame: pl.DataFrame, first: dict, base_id: str, policy_id: str
) -> list[list[pl.DataFrame]]:
    """(base, tuned) episodes of each random cluster at this dose that both recorded."""
    task = [pl.col(key) == first[key] for key in TASK]
    randoms = frame.filter(
        *task,
        pl.col("role") == "random",
        pl.col("matched_to") == first["family"],
        pl.col("alpha").eq_missing(pl.lit(first["alpha"])),
    )
    pairs = []
    for _, part in by_key(randoms, ("fingerprint",)):
        sides = [part.filter(pl.col("policy_id") == one) for one in (base_id, policy_id)]
        if all(len(one) for one in sides):
            pairs.append(sides)
    return pairs


def _excess(
    arms: list[pl.DataFrame], controls: list[list[pl.DataFrame]], measure: str
) -> dict[str, object]:
    """The difference beyond that of random clusters, over quadruples that all of them have."""
    sets = [arms, *([arms[0], one, arms[2], other] for one, other in controls)]
    if len(sets) == 1:
        return {"n_random": 0}
    shared = set.intersection(*(set(arm["pair_key"]) for four in sets for arm in four))
    of_pairs = pl.col("pair_key").is_in(sorted(shared))
    values = [_measured([arm.filter(of_pairs) for arm in four])[measure] for four in sets]
    if len({len(v) for v in values}) > 1:  # a broken pose in one of them
        return {"n_random": len(controls)}
    each = np.array([(v[:, 3] - v[:, 2]) - (v[:, 1] - v[:, 0]) for v in values])
    found = paired_difference(each[0], each[1:].mean(axis=0))
    estimate = _estimate("excess", found.mean, found.ci)
    return {"n_random": len(controls), "excess_p": found.p_value} | estimate


def _nulls(frame: pl.DataFrame, first: dict, natural: pl.DataFrame) -> dict[str, int]:
    """How many episodes of the tuned policy's null control are its unsteered ones, bit for bit."""
    policy_id = natural["policy_id"][0]
    nulls = frame.filter(
        *(pl.col(key) == first[key] for key in TASK),
        pl.col("role") == "null",
        pl.col("policy_id") == policy_id,
        pl.col("matched_to").is_in([first["family"], ""]),
    )
    columns = ("pair_key", "actions_sha256")
    pairs = nulls.select(columns).join(natural.select(columns), on="pair_key", suffix="_0")
    equal = (pairs["actions_sha256"] == pairs["actions_sha256_0"]).sum()
    return {"null_pairs": len(pairs), "null_equal": int(equal)}


def _estimate(name: str, mean: float | None, interval: Interval | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _corrected(frame: pl.DataFrame) -> pl.DataFrame:
    """Fill in `p_holm`: the tested rows of a measure are one family."""
    parts = []
    for _, part in by_key(frame, ("measure",)):
        tested = part.drop_nulls("p_value")
        adjusted = tested.with_columns(
            p_holm=pl.Series(holm(tested["p_value"].to_list()), dtype=pl.Float64)
        )
        parts += [adjusted, part.filter(pl.col("p_value").is_null())]
    order = ["policy", "policy_id", "suite", "task_id", "label", "fingerprint"]
    place = pl.col("measure").replace_strict(list(MEASURES), range(len(MEASURES)))
    return pl.concat(parts).sort(*order, place) if parts else frame


def _missing(frame: pl.DataFrame, first: dict, policy_id: str, fingerprint: str) -> Missing:
    names = frame.filter(pl.col("policy_id") == policy_id)["policy"]
    arm = first["label"] if fingerprint else "baseline"
    return Missing(names[0], arm, *(first[key] for key in TASK))

"""Is an effect the concept's, or would any neurons do? An effect beside its controls.

Overwriting neurons damages a policy, so a p value against the baseline says only that something
happened. What speaks for the concept is its rank among clusters drawn by chance, matched in layer,
size and value-vector norm, at the same dose:

    p = (1 + #{k : |random_k| >= |effect|}) / (K + 1)

and what the effect is beyond theirs, pair by pair: (steered - base) - mean_k (random_k - base).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.stats import Interval, paired_difference

MIN_RANDOM = 19
"""Random clusters below which the rank cannot reach 0.05: 1 / (19 + 1)."""


@dataclass(frozen=True)
class Specificity:
    """The controls of one steered condition; MEED in cm per control step."""

    n_random: int
    """Random clusters at the same dose."""
    beyond: int
    """How many of them the effect lies beyond, on its own side of zero."""
    rank_p: float | None
    """None without random clusters."""
    random_cm: tuple[float, ...]
    """Paired difference of each random cluster to the baseline, sorted."""
    excess_cm: float | None
    """Effect minus the mean of the random clusters', over pairs that all of them have."""
    excess_ci: Interval | None
    null_pairs: int
    """Episodes of the null control with a baseline partner."""
    null_equal: int
    """Those of them whose actions are the baseline's, bit for bit."""


def specificity(
    steered: pl.DataFrame,
    baseline: pl.DataFrame,
    randoms: Sequence[pl.DataFrame],
    nulls: Sequence[pl.DataFrame],
) -> Specificity:
    """Rank a steered condition among its controls.

    Args:
        steered: episodes of the condition (`tables.episode_table`), as the following.
        baseline: of its baseline.
        randoms: of each random cluster at the same dose.
        nulls: of each null control.
    """
    deltas = meed_deltas(steered, baseline)
    others = [meed_deltas(frame, baseline) for frame in randoms]
    others = [frame for frame in others if len(frame)]
    effect = deltas["delta"].mean()
    random_cm = sorted(float(frame["delta"].mean()) for frame in others)
    rank_p = excess = excess_ci = None
    if effect is not None and random_cm:
        as_large = sum(abs(cm) >= abs(effect) for cm in random_cm)
        rank_p = (1 + as_large) / (len(random_cm) + 1)
        both = _common(deltas, others)
        difference = paired_difference(both[:, 0], both[:, 1:].mean(axis=1))
        excess, excess_ci = difference.mean, difference.ci
    pairs = [_same_actions(frame, baseline) for frame in nulls]
    return Specificity(
        n_random=len(random_cm),
        beyond=0 if effect is None else beyond(effect, random_cm),
        rank_p=rank_p,
        random_cm=tuple(random_cm),
        excess_cm=excess,
        excess_ci=excess_ci,
        null_pairs=sum(len(same) for same in pairs),
        null_equal=sum(int(same.sum()) for same in pairs),
    )


def beyond(effect: float, controls: Sequence[float]) -> int:
    """How many control effects the effect lies beyond, on its own side of zero."""
    side = 1.0 if effect >= 0 else -1.0
    return sum(side * effect > side * control for control in controls)


def meed_deltas(one: pl.DataFrame, baseline: pl.DataFrame) -> pl.DataFrame:
    """MEED minus the baseline's, pair by pair: `pair_key` and `delta` [cm], in order of key."""
    columns = ("pair_key", "meed_cm")
    pairs = one.select(columns).join(
        baseline.select(columns), on="pair_key", how="inner", suffix="_base"
    )
    delta = pl.col("meed_cm") - pl.col("meed_cm_base")
    return pairs.select("pair_key", delta=delta).drop_nulls().sort("pair_key")


def _common(deltas: pl.DataFrame, others: Sequence[pl.DataFrame]) -> np.ndarray:
    """(pairs, 1 + others): differences of the pairs that every condition has."""
    table = deltas
    for number, frame in enumerate(others):
        table = table.join(frame.rename({"delta": f"random {number}"}), on="pair_key")
    return table.drop("pair_key").to_numpy()


def _same_actions(one: pl.DataFrame, baseline: pl.DataFrame) -> np.ndarray:
    columns = ("pair_key", "actions_sha256")
    pairs = one.select(columns).join(
        baseline.select(columns), on="pair_key", how="inner", suffix="_base"
    )
    return (pairs["actions_sha256"] == pairs["actions_sha256_base"]).to_numpy()

"""What fine-tuning changed in the weights: every matrix, and every value vector in words.

    relative      |W_t - W_b|_F / |W_b|_F
    stable rank   |D|_F^2 / |D|_2^2 of the change D: of how many directions it consists
    angle         between the value vectors v_b and v_t of a neuron (its column of `down_proj`), as
                  2 atan2(|u - w|, |u + w|) of the unit vectors, exact for small angles, too (Kahan,
                  "How futile are mindless assessments of roundoff", 2006, section 12)
    overlap       of two lists of top tokens by rank: extrapolated RBO (Webber et al., "A similarity
                  measure for indefinite rankings", 2010) of lists of one length, p 0.9

What equals the base to the last bit is `frozen`, and its numbers are exactly zero.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from engine import sites
from engine.neurons import table_of
from engine.policies.smolvla import LoadedPolicy
from traces.errors import UserError

MATRICES = {
    "parameter": pl.String,
    "tower": pl.String,  # vlm, expert, vision, or the module that holds it
    "layer": pl.Int32,  # null outside the two towers' layers
    "shape": pl.String,
    "size": pl.Int64,
    "norm": pl.Float64,  # Frobenius, of the base
    "delta_norm": pl.Float64,
    "relative": pl.Float64,  # null where the base is zero
    "max_abs": pl.Float64,  # largest change of an entry
    "changed": pl.Float64,  # share of entries that differ
    "stable_rank": pl.Float64,  # of the change; null for vectors, and where nothing changed
    "frozen": pl.Boolean,
}

TOWERS = {
    "tower": pl.String,
    "parameters": pl.Int64,  # matrices and vectors
    "changed": pl.Int64,  # of them
    "size": pl.Int64,
    "norm": pl.Float64,
    "delta_norm": pl.Float64,
    "relative": pl.Float64,
    "frozen": pl.Boolean,
}

VALUES = {
    "tower": pl.String,
    "layer": pl.Int32,
    "neuron": pl.Int32,
    "reach": pl.Boolean,  # whether this feed-forward block can move an action
    "angle": pl.Float64,  # degrees; null where a vector is zero
    "norm_base": pl.Float64,
    "norm_tuned": pl.Float64,
    "norm_change": pl.Float64,  # |v_t| / |v_b| - 1
    "delta": pl.Float64,  # |v_t - v_b| / |v_b|
    "frozen": pl.Boolean,
    "top_kept": pl.Float64,  # Jaccard of the top tokens; null in the expert, which spells none
    "top_overlap": pl.Float64,  # rank-biased: 1 for the same tokens in the same order
    "top_base": pl.String,  # the top tokens, the largest logit first
    "top_tuned": pl.String,
}


@dataclass(frozen=True)
class WeightDiff:
    """What `weight_diff` found."""

    base: str
    tuned: str
    towers: pl.DataFrame
    """Columns of `TOWERS`."""
    matrices: pl.DataFrame
    """Columns of `MATRICES`."""
    values: pl.DataFrame
    """Columns of `VALUES`: one row a neuron of either tower."""
    notes: tuple[str, ...]


@torch.no_grad()
def weight_diff(
    base: LoadedPolicy,
    tuned: LoadedPolicy,
    progress: Callable[[str], None] = lambda doing: None,
) -> WeightDiff:
    """Compare the weights of two policies of one architecture.

    Raises:
        UserError: they have other parameters, or other shapes.
    """
    ours, theirs = (dict(one.policy.named_parameters()) for one in (base, tuned))
    _check_alike(base, tuned, ours, theirs)
    progress("comparing weights")
    matrices = pl.DataFrame(
        [_matrix(base, name, ours[name], theirs[name]) for name in ours], schema=MATRICES
    )
    values = pl.concat(
        _values(base, tuned, tower, layer)
        for tower in sites.TOWERS
        for layer in range(len(sites.layers(base.policy, tower)))
    )
    progress("reading value vectors in words")
    notes = []
    if base.sha256 == tuned.sha256:
        notes.append(f"both are the same weights ({base.sha256[:8]})")
    return WeightDiff(
        base=f"{base.name}@{base.sha256[:8]}",
        tuned=f"{tuned.name}@{tuned.sha256[:8]}",
        towers=_towers(matrices),
        matrices=matrices,
        values=_with_tokens(values, base, tuned).select(*VALUES).cast(VALUES),
        notes=tuple(notes),
    )


def angles(one: Tensor, other: Tensor) -> Tensor:
    """Angle [degrees] between the rows of two (n, d); NaN where one is zero, 0 for equal rows."""
    one, other = one.double(), other.double()
    u = one / one.norm(dim=1, keepdim=True)
    w = other / other.norm(dim=1, keepdim=True)
    return torch.rad2deg(2 * torch.atan2((u - w).norm(dim=1), (u + w).norm(dim=1)))


def stable_rank(delta: Tensor) -> float | None:
    """Stable rank of a matrix; None for what is no matrix, or zero.

    The largest singular value is the root of the largest eigenvalue of the smaller Gram matrix.
    """
    if delta.ndim != 2 or not delta.any():
        return None
    scaled = delta.double() / delta.abs().max()
    rows, columns = scaled.shape
    gram = scaled @ scaled.T if rows <= columns else scaled.T @ scaled
    return float(gram.trace() / torch.linalg.eigvalsh(gram)[-1])


def rank_biased_overlap(one: np.ndarray, other: np.ndarray, p: float = 0.9) -> np.ndarray:
    """Agreement of rankings, weighted towards their beginnings: 0 to 1.

    Args:
        one: (n, k) lists of k different items each, the first the best.
        other: (n, k).
        p: how slowly weight falls; the first ten of p = 0.9 have 86 % of it.
    """
    depth = np.arange(1, one.shape[1] + 1)
    same = one[:, :, None] == other[:, None, :]  # (n, k, k)
    shared = same.cumsum(axis=1).cumsum(axis=2)[:, depth - 1, depth - 1] / depth  # (n, k)
    return shared[:, -1] * p ** depth[-1] + (1 - p) / p * (shared * p**depth).sum(axis=1)


def _check_alike(
    base: LoadedPolicy, tuned: LoadedPolicy, ours: dict[str, Tensor], theirs: dict[str, Tensor]
) -> None:
    what = f"{base.name} and {tuned.name} are not the same architecture: "
    if alone := sorted(set(ours) ^ set(theirs)):
        raise UserError(f"{what}only one of them has {alone[0]} (and {len(alone) - 1} more)")
    for name, weight in ours.items():
        if weight.shape != theirs[name].shape:
            raise UserError(
                f"{what}{name} is {_shape(weight)} here and {_shape(theirs[name])} there"
            )


def _matrix(base: LoadedPolicy, name: str, before: Tensor, after: Tensor) -> dict[str, object]:
    tower, layer = sites.tower_of(base.policy, name)
    norm, delta = before.double().norm(), after.double() - before.double()
    return {
        "parameter": name,
        "tower": tower,
        "layer": layer,
        "shape": _shape(before),
        "size": before.numel(),
        "norm": float(norm),
        "delta_norm": float(delta.norm()),
        "relative": float(delta.norm() / norm) if norm else None,
        "max_abs": float(delta.abs().max()),
        "changed": float((delta != 0).double().mean()),
        "stable_rank": stable_rank(delta),
        "frozen": not delta.any(),
    }


def _towers(matrices: pl.DataFrame) -> pl.DataFrame:
    order = {name: place for place, name in enumerate(("vlm", "expert", "vision"))}
    place = pl.col("tower").replace_strict(order, default=len(order), return_dtype=pl.Int8)
    squared = (pl.col(name).pow(2).sum().sqrt() for name in ("norm", "delta_norm"))
    return (
        matrices.group_by("tower", maintain_order=True)
        .agg(
            pl.len().alias("parameters"),
            pl.col("frozen").not_().sum().alias("changed"),
            pl.col("size").sum(),
            *squared,
            pl.col("frozen").all(),
        )
        .with_columns(relative=pl.col("delta_norm") / pl.col("norm"))
        .with_columns(relative=pl.when(pl.col("norm") > 0).then("relative"))
        .sort(place, maintain_order=True)
        .select(*TOWERS)
        .cast(TOWERS)
    )


def _values(base: LoadedPolicy, tuned: LoadedPolicy, tower: str, layer: int) -> pl.DataFrame:
    before, after = (
        sites.ffn_input(one.policy, tower, layer).weight.T.double() for one in (base, tuned)
    )
    norm = before.norm(dim=1)
    columns = {
        "angle": angles(before, after),
        "norm_base": norm,
        "norm_tuned": after.norm(dim=1),
        "norm_change": after.norm(dim=1) / norm - 1,
        "delta": (after - before).norm(dim=1) / norm,
        "frozen": (before == after).all(dim=1),
    }
    return pl.DataFrame(
        {"neuron": np.arange(len(before), dtype=np.int32)}
        | {name: column.numpy() for name, column in columns.items()}
    ).with_columns(
        pl.lit(tower).alias("tower"),
        pl.lit(layer, pl.Int32).alias("layer"),
        pl.lit(sites.reaches_action(base.policy, tower, layer)).alias("reach"),
        pl.col(pl.Float64).fill_nan(None),
    )


def _with_tokens(values: pl.DataFrame, base: LoadedPolicy, tuned: LoadedPolicy) -> pl.DataFrame:
    """Add what the value vectors of the VLM spell, before and after."""
    ours, theirs = (
        table_of(one)
        .rows.select("layer", "neuron", pl.col("top_ids", "top_tokens").arr.to_list())
        .collect()
        for one in (base, tuned)
    )
    ids = pl.col("top_ids"), pl.col("top_ids_tuned")
    kept = ids[0].list.set_intersection(ids[1]).list.len()
    both = ours.join(theirs, on=["layer", "neuron"], suffix="_tuned")
    lists = (np.stack(both[name].to_numpy()) for name in ("top_ids", "top_ids_tuned"))
    top_overlap = pl.Series("top_overlap", rank_biased_overlap(*lists))
    spelled = both.select(
        pl.lit("vlm").alias("tower"),
        "layer",
        "neuron",
        (kept / ids[0].list.set_union(ids[1]).list.len()).alias("top_kept"),
        top_overlap,
        _words("top_tokens").alias("top_base"),
        _words("top_tokens_tuned").alias("top_tuned"),
    )
    return values.join(spelled, on=["tower", "layer", "neuron"], how="left", maintain_order="left")


def _words(column: str) -> pl.Expr:
    return pl.col(column).list.eval(pl.element().str.strip_chars()).list.join(" ")


def _shape(weight: Tensor) -> str:
    return " x ".join(map(str, weight.shape)) or "a number"

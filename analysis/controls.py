"""Control conditions for a steered cluster: what the same dose does to neurons chosen by chance."""

from dataclasses import replace

import numpy as np
import polars as pl

from traces.errors import UserError
from traces.intervention import Intervention, Site


def random_clusters(
    table: pl.DataFrame, cluster: Intervention, k: int, seed: int = 0, pool: int = 40
) -> list[Intervention]:
    """Random clusters with the layers, the sizes and the value-vector norms of a chosen one.

    Each neuron of the cluster is replaced by one drawn from the `pool` neurons of its layer whose
    value vectors are nearest to its own in norm; the chosen neurons themselves are never drawn,
    and no neuron twice within a cluster. Operator, dose, token groups and windows stay.

    Args:
        table: neuron table with `layer`, `neuron` and `v_norm`.
        cluster: the chosen one; sites without a `vector`.
        k: how many clusters.
        seed: of the draws.
        pool: candidates per neuron.

    Raises:
        UserError: a site carries a vector, or its layer has too few other neurons.
    """
    rng = np.random.default_rng(seed)
    return [
        replace(
            cluster,
            name=f"random {i} for {cluster.name}",
            sites=tuple(_matched(table, site, rng, pool) for site in cluster.sites),
            provenance={
                "method": f"random, matched in layer, size and value-vector norm (pool {pool})",
                "matched_to": cluster.fingerprint(),
                "seed": seed,
                "number": i,
            },
        )
        for i in range(k)
    ]


def _matched(table: pl.DataFrame, site: Site, rng: np.random.Generator, pool: int) -> Site:
    if site.vector:
        raise UserError("a control for neurons with their own doses is not defined")
    layer = table.filter(pl.col("layer") == site.layer).sort("neuron")
    norms = dict(zip(layer["neuron"].to_list(), layer["v_norm"].to_list(), strict=True))
    others = [neuron for neuron in norms if neuron not in set(site.neurons)]
    if len(others) < len(site.neurons):
        raise UserError(
            f"layer {site.layer} has {len(others)} other neurons, too few to match a cluster of "
            f"{len(site.neurons)}"
        )
    drawn: list[int] = []
    for neuron in rng.permutation(site.neurons):
        free = [other for other in others if other not in drawn]
        near = sorted(free, key=lambda other: abs(norms[other] - norms[int(neuron)]))[:pool]
        drawn.append(int(rng.choice(near)))
    return replace(site, neurons=tuple(drawn))


def beyond(effect: float, controls: list[float]) -> int:
    """How many control effects the effect lies beyond, on its own side of zero."""
    side = 1.0 if effect >= 0 else -1.0
    return sum(side * effect > side * control for control in controls)

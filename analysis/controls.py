"""Controls of a steered cluster: neurons drawn by chance, neurons nothing reads, and words."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from traces.condition import Condition
from traces.errors import UserError
from traces.intervention import Intervention, Site

LEVELS = {"none": 0, "light": 2, "full": 20}
"""Name -> random clusters a dose; light and full also have the null and the prompt control."""

PROMPTS = {
    "fast": "{} quickly",
    "slow": "{} slowly",
    "careful": "{} carefully",
    "up": "{} upward",
    "down": "{} downward",
    "left": "{} leftward",
    "right": "{} rightward",
}
"""Concept -> the words that ask for it; of another concept, its own name."""


def with_controls(
    table: pl.DataFrame, cluster: Intervention, doses: Sequence[float], level: str
) -> list[Condition]:
    """A cluster at some doses, and what makes its effect mean something.

    Args:
        table: neuron table with `layer`, `neuron`, `reach` and `v_norm`.
        cluster: the chosen neurons.
        doses: coefficients, in the order wanted.
        level: a key of `LEVELS`.

    Returns:
        The steered conditions; then, unless level is none, the prompt control (of a cluster that
        has a concept), the null control at the largest dose, and the random clusters at every one.
    """
    conditions = [Condition(cluster.with_coefficient(dose)) for dose in doses]
    if level == "none":
        return conditions
    if concept := cluster.provenance.get("concept"):
        conditions.append(Condition(prompt=PROMPTS.get(concept, f"{{}} {concept}")))
    largest = max(doses, key=abs)
    if null := null_control(table, cluster.with_coefficient(largest)):
        conditions.append(Condition(null))
    randoms = random_clusters(table, cluster, LEVELS[level])
    return conditions + [
        Condition(random.with_coefficient(dose)) for dose in doses for random in randoms
    ]


def can_be_matched(intervention: Intervention) -> bool:
    """Whether controls are defined: neurons of the VLM, all at the same dose."""
    return not intervention.sae and all(
        site.tower == "vlm" and site.neurons and not site.vector and not site.offset
        for site in intervention.sites
    )


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
                "control": "random",
                "method": f"random, matched in layer, size and value-vector norm (pool {pool})",
                "matched_to": family(cluster),
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


def null_control(table: pl.DataFrame, intervention: Intervention) -> Intervention | None:
    """The same neuron numbers at the same dose, in a layer whose output nothing reads.

    Its effect must be zero, bit for bit; None when every layer of the table can act.
    """
    dead = table.filter(~pl.col("reach")).get_column("layer")
    if dead.is_empty():
        return None
    neurons = sorted({neuron for site in intervention.sites for neuron in site.neurons})
    return replace(
        intervention,
        name=f"null for {intervention.name}",
        sites=(Site(intervention.sites[0].tower, int(dead.max()), tuple(neurons)),),
        provenance={"control": "null", "matched_to": family(intervention)},
    )


def family(intervention: Intervention) -> str:
    """Fingerprint of an intervention without its dose."""
    return intervention.with_coefficient(0.0).fingerprint()

"""The arms of a sweep: clusters over layers, sizes and doses; ablations; other instructions.

Every arm is a `Condition`; all of them are played on the same scenes with the same noise, beside
one baseline.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import polars as pl

from analysis.clusters import choose_cluster
from analysis.controls import with_controls
from traces.condition import BASELINE, Condition
from traces.errors import UserError
from traces.intervention import TOKEN_GROUPS, Donor, Intervention, Site

COUNTERFACTUALS = {
    "empty": "",
    "negated": "do not {}",
    "other object": "{other}",
    "fast": "{} quickly",
    "slow": "{} slowly",
}
"""What else the policy may be told, by name."""


def steered_arms(
    table: pl.DataFrame,
    concepts: Sequence[str],
    doses: Sequence[float],
    *,
    checkpoint_sha256: str,
    layers: Sequence[int] | None = None,
    sizes: Sequence[int] = (10,),
    controls: str = "light",
) -> tuple[list[Condition], list[str]]:
    """Every concept in every layer at every size and dose, each with its controls.

    Args:
        table: neuron table of the checkpoint.
        concepts: which lexicons.
        doses: coefficients.
        checkpoint_sha256: hash of the weights.
        layers: where to look; None: where each concept is best.
        sizes: neurons a cluster.
        controls: a key of `analysis.controls.LEVELS`.

    Returns:
        The arms, and sentences about cells that are empty because no neuron qualifies.

    Raises:
        UserError: no cell has a cluster.
    """
    arms, missing = [], []
    for concept in concepts:
        for layer in layers or [None]:
            for size in sizes:
                try:
                    cluster = choose_cluster(
                        table,
                        concept,
                        alpha=doses[0],
                        checkpoint_sha256=checkpoint_sha256,
                        layer=layer,
                        size=size,
                    )
                except UserError as error:
                    if layers is None:
                        raise
                    missing.append(str(error))
                    continue
                where = cluster.sites[0].layer
                cluster = replace(cluster, name=f"{concept} L{where} n{size}")
                arms += with_controls(table, cluster, doses, controls)
    if not arms:
        raise UserError(f"nothing to steer: {missing[0]}")
    return once(arms), missing


def ablation_arms(blocks: Iterable[tuple[str, int, bool]]) -> list[Condition]:
    """Every feed-forward block silenced in turn.

    Args:
        blocks: tower, layer, and whether it reaches the action; one that does not is the null
            control of all the others.
    """
    arms = []
    for tower, layer, reaches in blocks:
        site = Site(tower, layer)
        off = Intervention(f"{tower} {layer} off", "zero_ablation", (site,), 0.0)
        arms.append(Condition(off if reaches else replace(off, provenance={"control": "null"})))
    return arms


def patch_arms(donor: str, blocks: Sequence[tuple[str, int, bool]], what: str) -> list[Condition]:
    """Feed-forward activations of another recording put in, decision by decision.

    Args:
        donor: a trace of the same scenes that recorded the blocks token by token.
        blocks: tower, layer, and whether it reaches the action; one that does not is the null
            control of all the others.
        what: name of the donor on screen.

    Returns:
        Each block alone on all tokens, then all of them together on each group of tokens.
    """
    arms = []
    for tower, layer, reaches in blocks:
        patch = _patch(donor, [(tower, layer)], f"{tower} {layer} of {what}")
        arms.append(Condition(patch if reaches else replace(patch, provenance={"control": "null"})))
    live = [(tower, layer) for tower, layer, reaches in blocks if reaches]
    for group in TOKEN_GROUPS:
        patch = _patch(donor, live, f"{group} tokens of {what}")
        arms.append(Condition(replace(patch, token_groups=(group,))))
    return arms


def _patch(donor: str, places: Sequence[tuple[str, int]], name: str) -> Intervention:
    sites = tuple(Site(tower, layer) for tower, layer in places)
    return Intervention(name, "patch", sites, 0.0, donor=Donor(donor))


def prompt_arms(names: Sequence[str] = tuple(COUNTERFACTUALS)) -> list[Condition]:
    """Other instructions in place of the task's own."""
    return [Condition(prompt=COUNTERFACTUALS[name]) for name in names]


def once(arms: Iterable[Condition]) -> list[Condition]:
    """The baseline, then each arm once (clusters of one concept share their prompt control)."""
    return list({arm.label: arm for arm in (BASELINE, *arms)}.values())

"""Controls of a steered direction, and of a feature that is set or scaled.

Random directions have the length of the chosen one; random features are drawn from those of the
same autoencoder that are active in as many episodes. The null control is the same direction where
nothing reads it.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from analysis.controls import LEVELS, PROMPTS, family
from traces.condition import Condition
from traces.errors import UserError
from traces.intervention import DIRECTION_OPERATORS, FEATURE_OPERATORS, Intervention, Site

POOL = 40
"""Features nearest in coverage, of which random ones are drawn."""


def has_controls(chosen: Intervention) -> bool:
    """Whether controls are defined here: one site, a direction or features."""
    return len(chosen.sites) == 1 and chosen.operator in (*DIRECTION_OPERATORS, *FEATURE_OPERATORS)


def with_controls(
    chosen: Intervention,
    doses: Sequence[float],
    level: str,
    dead_layer: int | None = None,
    features: pl.DataFrame | None = None,
) -> list[Condition]:
    """A direction or feature at some doses, and what makes its effect mean something.

    Args:
        chosen: see `has_controls`.
        doses: coefficients, in the order wanted.
        level: a key of `controls.LEVELS`.
        dead_layer: one of the site's tower that cannot change the action; None: there is none.
        features: for an operator on features, all of them: `feature`, `coverage` and `strength`,
            what a coefficient of 1 sets it to.

    Returns:
        The steered conditions; then the prompt control (where `provenance` names a concept), the
        null control at the largest dose and the random ones at every dose.
    """
    conditions = [Condition(chosen.with_coefficient(dose)) for dose in doses]
    if level == "none":
        return conditions
    if concept := chosen.provenance.get("concept"):
        conditions.append(Condition(prompt=PROMPTS.get(concept, f"{{}} {concept}")))
    if chosen.operator in DIRECTION_OPERATORS and dead_layer is not None:
        null = _control(chosen, "null", replace(chosen.sites[0], layer=dead_layer))
        conditions.append(Condition(null.with_coefficient(max(doses, key=abs))))
    if chosen.operator in DIRECTION_OPERATORS:
        randoms = random_directions(chosen, LEVELS[level])
    else:
        randoms = random_features(chosen, features, LEVELS[level])
    return conditions + [
        Condition(random.with_coefficient(dose)) for dose in doses for random in randoms
    ]


def random_directions(chosen: Intervention, k: int, seed: int = 0) -> list[Intervention]:
    """Directions drawn evenly from the sphere, as long as the chosen one."""
    rng = np.random.default_rng(seed)
    site = chosen.sites[0]
    length = float(np.linalg.norm(site.vector))
    drawn = rng.standard_normal((k, len(site.vector)))
    drawn *= length / np.linalg.norm(drawn, axis=1, keepdims=True)
    return [
        _control(chosen, "random", replace(site, vector=tuple(row)), i, seed)
        for i, row in enumerate(drawn.tolist())
    ]


def random_features(
    chosen: Intervention, features: pl.DataFrame | None, k: int, seed: int = 0
) -> list[Intervention]:
    """As many other features of the autoencoder, drawn from those nearest in coverage.

    Raises:
        UserError: the features were never described, or too few are active.
    """
    if features is None:
        raise UserError(
            f"the features of {chosen.sae} are not described, so none can be drawn as controls; do "
            "it with: vla-trace sae features FOLDER --traces FILES, or take --controls none"
        )
    site, rng = chosen.sites[0], np.random.default_rng(seed)
    own = features.filter(pl.col("feature").is_in(site.neurons))["coverage"].mean() or 0.0
    others = features.filter(~pl.col("feature").is_in(site.neurons) & (pl.col("coverage") > 0))
    pool = others.sort((pl.col("coverage") - own).abs(), "feature").head(POOL)
    if len(pool) < len(site.neurons):
        raise UserError(f"{chosen.sae} has {len(pool)} other active features: too few to draw from")
    found = []
    order, n = rng.permutation(len(pool)), len(site.neurons)
    for i in range(k):  # none twice before all were drawn
        rows = pool[order[np.arange(i * n, (i + 1) * n) % len(pool)].tolist()]
        vector = tuple(rows["strength"].to_list()) if site.vector else ()
        drawn = replace(site, neurons=tuple(rows["feature"].to_list()), vector=vector)
        found.append(_control(chosen, "random", drawn, i, seed))
    return found


def _control(
    chosen: Intervention, kind: str, site: Site, number: int = 0, seed: int = 0
) -> Intervention:
    name = f"random {number} for {chosen.name}" if kind == "random" else f"null for {chosen.name}"
    facts = {"control": kind, "matched_to": family(chosen)}
    facts |= {"seed": seed, "number": number} if kind == "random" else {}
    return replace(chosen, name=name, sites=(site,), provenance=facts)

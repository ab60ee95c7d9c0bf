"""Interventions that steer a feature of an autoencoder, and the direction between two means.

    add           x + c p d        d: the feature's direction, length 1; p: its mean peak
    project_out   x - c (d . x) d
    set           z <- c p         as `sae_set`, which leaves the rest of x as it is
    scale         z <- c z         as `sae_scale`

So c = 1 of add and set is what the feature reaches by itself, on the mean over the episodes in
which it is active (`mean_peak`). d' = mean(x | signal high) - mean(x | signal low) is the simplest
rival: rows in the highest and lowest quarter of a signal, as long as p d (AxBench,
arXiv:2501.17148, found difference-in-means to steer language models better than autoencoders do).
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from analysis.natural import Chosen, by_episode, natural_episodes
from analysis.sae.rows import named_site, tokens_of
from analysis.signals import SIGNALS
from traces.autoencoder import Autoencoder, load_autoencoder
from traces.collection import open_traces
from traces.errors import UnknownName, UserError
from traces.intervention import TOKEN_GROUPS, Intervention, Site

WAYS = ("add", "project_out", "set", "scale")
DESCRIBED, FACTS = "features_coverage.parquet", "features.json"


@dataclass(frozen=True)
class Described:
    """An autoencoder and what `sae features` found of it."""

    folder: Path
    sae: Autoencoder
    table: pl.DataFrame
    """Columns of `features.OF_FEATURES`, and `strength`: the mean peak, as a value of z."""


def described(folder: Path | str) -> Described:
    """Read both.

    Raises:
        UserError: there is no autoencoder, its features were not described, or of another one.
    """
    folder = Path(folder)
    sae = load_autoencoder(folder)
    if not (folder / DESCRIBED).exists() or not (folder / FACTS).exists():
        raise UserError(
            f"the features of {folder} are not described yet; do it with: vla-trace sae features "
            f"{folder} --traces FILES"
        )
    table = pl.read_parquet(folder / DESCRIBED, glob=False)
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    if facts.get("sae_sha256") != sae.sha256 or len(table) != sae.features:
        raise UserError(
            f"{folder / DESCRIBED} describes another autoencoder than the one there; describe its "
            f"features again: vla-trace sae features {folder} --traces FILES"
        )
    scale = np.sqrt(sae.width - 1) if sae.normalisation == "layer_norm" else None
    strength = pl.col("mean_peak") * scale if scale else pl.col("peak_length")
    return Described(folder, sae, table.with_columns(strength.fill_null(0.0).alias("strength")))


def steered_feature(found: Described, feature: int, way: str, concept: str = "") -> Intervention:
    """The intervention that steers one feature, at a coefficient of 1.

    Args:
        found: the autoencoder and its features.
        feature: its number.
        way: one of `WAYS`.
        concept: what it is taken for, such as fast: names the prompt control.

    Raises:
        UserError: no such feature or way, or one that is never active.
    """
    sae = found.sae
    if way not in WAYS:
        raise UnknownName("way to steer", way, WAYS)
    if not 0 <= feature < sae.features:
        raise UserError(f"feature {feature} does not exist; 0 to {sae.features - 1}")
    row = found.table.filter(pl.col("feature") == feature).row(0, named=True)
    if not row["mean_peak"] and way != "project_out":
        raise UserError(f"feature {feature} is active in no recorded episode, so it has no size")
    direction = sae.W_dec[feature] / np.linalg.norm(sae.W_dec[feature])
    tower, layer, kind = sae.place
    facts = {"sae": str(found.folder), "sae_sha256": sae.sha256, "feature": feature, "way": way}
    facts |= {key: row[key] for key in ("label", "coverage", "mean_peak", "peak_length")}
    facts |= {"concept": concept} if concept else {}
    common = {"name": f"feature {feature}", "coefficient": 1.0, "provenance": facts}
    tokens = str(sae.metadata.get("tokens", "all"))
    if tokens in TOKEN_GROUPS:
        common["token_groups"] = (tokens,)
    if way in ("add", "project_out"):
        if kind != "resid_post":
            raise UserError(
                f"{sae.site} is not the residual stream: directions are added to that; "
                "take --way set or scale"
            )
        length = row["peak_length"] if way == "add" else 1.0
        site = Site(tower, layer, vector=tuple((direction * length).tolist()))
        operator = "add_direction" if way == "add" else "project_out"
        return Intervention(operator=operator, sites=(site,), **common)
    vector = (row["strength"],) if way == "set" else ()
    site = Site(tower, layer, neurons=(feature,), vector=vector, kind=kind)
    reference = {"sae": str(found.folder), "sae_sha256": sae.sha256}
    return Intervention(operator=f"sae_{way}", sites=(site,), **reference, **common)


def difference_in_means(
    paths: Iterable[Path | str], site: str, signal: str, length: float, concept: str = ""
) -> Intervention:
    """The direction from rows where a signal is low to rows where it is high.

    Args:
        paths: unsteered traces of one policy.
        site: a recorded residual stream, one vector a decision.
        signal: of `signals.SIGNALS`.
        length: of the direction, in units of the activations: that of what it is compared with.
        concept: as in `steered_feature`.

    Raises:
        UserError: no such site or signal, or one that never changes.
    """
    if signal not in SIGNALS:
        raise UnknownName("signal", signal, SIGNALS)
    paths = list(paths)
    frame, _ = natural_episodes(paths)
    with open_traces(*paths) as traces:
        info = named_site(traces, site)
        if info.dims != ("D", "N") or info.name.split(".")[2] != "resid_post":
            raise UserError(f"{info.name}: expected a residual stream with one vector a decision")
        chosen = Chosen.of(traces, frame)
        along = chosen.signals[list(SIGNALS).index(signal)]
        of_rows = along[chosen.decisions.rows]
        low, high = np.nanquantile(of_rows, [0.25, 0.75]).tolist()
        if not low < high:
            raise UserError(f"{signal} hardly changes in these traces: no quarter is higher")
        sums, counts = np.zeros((2, info.shape[-1])), np.zeros(2)
        for _, decisions, x in by_episode(traces.activation(info.name), chosen.decisions):
            values, finite = along[decisions], np.isfinite(x).all(axis=1)
            for i, some in enumerate(((values <= low) & finite, (values >= high) & finite)):
                sums[i] += x[some].sum(axis=0)
                counts[i] += some.sum()
    if not counts.all():
        raise UserError(f"{info.name} was not recorded where {signal} is high and where it is low")
    difference = sums[1] / counts[1] - sums[0] / counts[0]
    if not difference.any():
        raise UserError(f"{info.name} has the same mean whether {signal} is high or low")
    vector = difference / np.linalg.norm(difference) * length
    facts = {"method": "difference in means", "signal": signal, "quartiles": [low, high]}
    facts |= {"concept": concept} if concept else {}
    tokens = tokens_of(info)
    some = {"token_groups": (tokens,)} if tokens in TOKEN_GROUPS else {}
    return Intervention(
        name=f"difference in {signal}",
        operator="add_direction",
        sites=(Site(info.tower, info.layer, vector=tuple(vector.tolist())),),
        coefficient=1.0,
        provenance=facts,
        **some,
    )

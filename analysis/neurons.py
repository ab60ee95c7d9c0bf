"""Choosing neurons by what they write: the value-vector route, over a checkpoint's neuron table.

Neuron i of a feed-forward block adds a_i v_i to the residual stream, v_i being its column of
down_proj. Projected on the unembedding, v_i names the tokens it promotes; a neuron speaks of a
concept when several of its top tokens are words of the concept's lexicon (Geva et al., EMNLP 2022,
arXiv:2203.14680; Haon et al., arXiv:2509.00328). Its neighbours in meaning join it in a cluster.

The table holds one row a (layer, neuron): `layer`, `neuron`, `reach` (whether the layer's
feed-forward block can change the action), `top_tokens` (decoded), `top_logits`, and `embedding`,
the L2-normalised mean of the top tokens' unembedding rows, weighted by the softmax of the logits.
"""

import numpy as np
import polars as pl

from traces.errors import UnknownName, UserError
from traces.intervention import Intervention, Site

METHOD = "value-vector lexicon hits, cosine nearest neighbours of semantic embeddings"

LEXICONS: dict[str, frozenset[str]] = {
    concept: frozenset(words.split())
    for concept, words in {
        "fast": """fast faster fastest quick quicker quickly rapid rapidly swift swiftly speedy
            speed speedily hurry hurriedly hasty hastily brisk briskly prompt promptly rush rushing
            sprint instantly immediately urgently""",
        "slow": """slow slower slowest slowly slowing sluggish sluggishly leisurely unhurried
            unhurriedly gradual gradually calmly patiently crawl lazily plodding dawdle""",
        "up": """up upward upwards above higher high raise raised raising rise rising lift lifted
            lifting top ascend elevate""",
        "down": """down downward downwards below lower lowered lowering low drop descend sink fall
            falling bottom beneath""",
        "left": """left leftward leftwards leftmost lefthand lefty port larboard west
            westward western counterclockwise anticlockwise""",
        "right": """right rightward rightwards rightmost righthand righty starboard east eastward
            eastern clockwise""",
        "open": """open opens opened opening reopen unlock unlocked unfold uncover unseal unclasp
            release ajar""",
        "close": """close closes closed closing shut shuts shutting seal sealed lock locked fasten
            clasp""",
        "careful": """careful carefully caution cautious cautiously gentle gently gingerly delicate
            delicately soft softly tenderly precise precisely""",
    }.items()
}
"""Concept -> lower-case single words that count as a hit."""


def concept_hits(table: pl.DataFrame, lexicon: frozenset[str]) -> pl.DataFrame:
    """Count, per neuron, the top tokens that are words of a lexicon.

    A token counts when it is a word of the lexicon once decoded, stripped and lower-cased:
    " Fast" does for fast, " breakfast" does not.

    Returns:
        The table's rows in order, as `layer`, `neuron`, `reach`, `hits`, `hit_tokens` (as decoded)
        and `hit_logit` (their sum).
    """
    rows = table.select("layer", "neuron", "reach", "top_tokens", "top_logits").with_row_index()
    word = pl.col("top_tokens").str.strip_chars().str.to_lowercase()
    found = (
        rows.select("index", "top_tokens", "top_logits")
        .explode("top_tokens", "top_logits")
        .filter(word.is_in(sorted(lexicon)))
        .group_by("index", maintain_order=True)
        .agg(
            pl.len().cast(pl.Int32).alias("hits"),
            pl.col("top_tokens").alias("hit_tokens"),
            pl.col("top_logits").cast(pl.Float64).sum().alias("hit_logit"),
        )
    )
    return (
        rows.select("index", "layer", "neuron", "reach")
        .join(found, on="index", how="left", maintain_order="left")
        .with_columns(
            pl.col("hits").fill_null(0),
            pl.col("hit_tokens").fill_null([]),
            pl.col("hit_logit").fill_null(0.0),
        )
        .drop("index")
    )


def choose_cluster(
    table: pl.DataFrame,
    concept: str,
    *,
    alpha: float,
    checkpoint_sha256: str,
    layer: int | None = None,
    size: int = 10,
    min_hits: int = 4,
    tower: str = "vlm",
) -> Intervention:
    """Choose a cluster of neurons for a concept and overwrite it with alpha.

    The seed neuron has the most hits among the layers that reach the action (ties: the larger sum
    of hit logits); the rest are its nearest neighbours by cosine distance in the same layer.

    Args:
        table: neuron table of the checkpoint.
        concept: a key of `LEXICONS`.
        alpha: coefficient of the overwrite.
        checkpoint_sha256: hash of the weights the table was made from.
        layer: look in this layer only.
        size: number of steered neurons, the seed included.
        min_hits: hits the seed must have.
        tower: the tower the table describes.

    Raises:
        UnknownName: no lexicon for the concept.
        UserError: the layer does not exist or cannot reach the action, or no neuron qualifies.
    """
    if concept not in LEXICONS:
        raise UnknownName("concept", concept, LEXICONS)
    live = _live_layers(table)
    if layer is not None:
        _check_layer(table, layer, live)
    layers = live if layer is None else [layer]
    best = _best(table, concept, layers)
    if best["hits"] < min_hits:
        raise UserError(_no_such_concept(table, concept, layers, live, best, min_hits))
    neurons, distances = _nearest(table, best["layer"], best["neuron"], size)
    return Intervention(
        name=concept,
        operator="overwrite",
        sites=(Site(tower=tower, layer=best["layer"], neurons=tuple(neurons)),),
        coefficient=alpha,
        provenance={
            "concept": concept,
            "method": METHOD,
            "checkpoint_sha256": checkpoint_sha256,
            "layer": best["layer"],
            "seed_neuron": best["neuron"],
            "hits": best["hits"],
            "hit_tokens": best["hit_tokens"],
            "size": len(neurons),
            "distances": distances,
        },
    )


def _live_layers(table: pl.DataFrame) -> list[int]:
    live = table.filter("reach").get_column("layer").unique().sort().to_list()
    if not live:
        raise UserError("no layer of this policy's neuron table can change the action")
    return live


def _check_layer(table: pl.DataFrame, layer: int, live: list[int]) -> None:
    layers = table.get_column("layer").unique().sort().to_list()
    works = f"layers that work: {_listed(live)}"
    if layer not in layers:
        raise UserError(f"no layer {layer}; this policy has {_listed(layers)}; {works}")
    if layer not in live:
        raise UserError(
            f"layer {layer} cannot change the action: nothing reads what its feed-forward block "
            f"writes; {works}"
        )


def _best(table: pl.DataFrame, concept: str, layers: list[int]) -> dict:
    hits = concept_hits(table.filter(pl.col("layer").is_in(layers)), LEXICONS[concept])
    order = hits.sort("hits", "hit_logit", "layer", "neuron", descending=[True, True, False, False])
    return order.row(0, named=True)


def _no_such_concept(
    table: pl.DataFrame,
    concept: str,
    layers: list[int],
    live: list[int],
    best: dict,
    min_hits: int,
) -> str:
    """Say what the best neuron was, and what this policy does have."""
    where = "this policy" if layers == live else f"layer {layers[0]}"
    message = (
        f"no neuron of {where} speaks of '{concept}': the best, layer {best['layer']} neuron "
        f"{best['neuron']}, has {best['hits']} of the {min_hits} hits needed"
    )
    if layers != live:
        elsewhere = [x for x in live if _best(table, concept, [x])["hits"] >= min_hits]
        if elsewhere:
            return f"{message}; layers that have one: {_listed(elsewhere)}"
    there = [
        f"{name} (layer {found['layer']}, {found['hits']} hits)"
        for name in LEXICONS
        if (found := _best(table, name, live))["hits"] >= min_hits
    ]
    return f"{message}; concepts it has: {', '.join(there) or 'none'}"


def _nearest(
    table: pl.DataFrame, layer: int, seed: int, size: int
) -> tuple[list[int], list[float]]:
    """Return the seed and its size - 1 nearest neighbours in the layer, with cosine distances."""
    from sklearn.neighbors import NearestNeighbors

    rows = table.filter(pl.col("layer") == layer).select("neuron", "embedding").sort("neuron")
    if not 1 <= size <= len(rows):
        raise UserError(f"a cluster of {size} neurons: layer {layer} holds 1 to {len(rows)}")
    if size == 1:
        return [seed], [0.0]
    others = rows.filter(pl.col("neuron") != seed)
    origin = _matrix(rows.filter(pl.col("neuron") == seed))  # (1, d)
    search = NearestNeighbors(n_neighbors=size - 1, metric="cosine", algorithm="brute")
    distances, places = search.fit(_matrix(others)).kneighbors(origin)  # (1, size - 1) each
    neurons = others.get_column("neuron").to_numpy()[places[0]]
    return (
        [seed, *(int(neuron) for neuron in neurons)],
        [0.0, *(round(max(0.0, float(distance)), 6) for distance in distances[0])],
    )


def _matrix(rows: pl.DataFrame) -> np.ndarray:
    flat = rows.get_column("embedding").explode().to_numpy()
    return flat.reshape(len(rows), -1).astype(np.float64)  # (neurons, d)


def _listed(layers: list[int]) -> str:
    """Whole numbers as "0, 2-6"."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)

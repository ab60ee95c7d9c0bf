"""Choosing a cluster: a source neuron that speaks of a concept, and the neurons that join it.

The source has the best contrastive score (`analysis.neurons`) in the layers that reach the action;
its neighbours by the cosine of semantic embeddings join it. The size of a cluster is the number of
steered neurons, the source included (in the published programs it comes on top).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import polars as pl

from analysis.lexicons import LEXICONS, Lexicons, opposite_of
from analysis.neurons import all_hits, best_first, concept_scores, layers_named
from traces.errors import UnknownName, UserError
from traces.intervention import Intervention, Site

METHODS = {
    "neighbours": "cosine nearest neighbours of the source's semantic embedding",
    "score": "next best contrastive lexicon scores",
}
"""What joins the source."""

Place = tuple[int, int]
"""(layer, neuron)"""


@dataclass(frozen=True)
class Choice:
    """What may be asked of a cluster beside its concept, layer and size.

    Raises:
        UnknownName: no such way to fill a cluster.
        UserError: a neuron is both wanted and rejected.
    """

    source: Place | None = None
    """Take this neuron, whatever its score."""
    by: str = "neighbours"
    """A key of `METHODS`."""
    across: bool = False
    """Neurons of every layer that reaches the action may join, not only of the source's layer."""
    accept: tuple[Place, ...] = ()
    """In the cluster, by hand."""
    reject: tuple[Place, ...] = ()
    """Not in the cluster, by hand."""
    lexicons: Lexicons = field(default_factory=lambda: LEXICONS)
    against: str | None = None
    """The concept whose hits count against it, if not that of `OPPOSITES`."""

    def __post_init__(self) -> None:
        if self.by not in METHODS:
            raise UnknownName("way to fill a cluster", self.by, METHODS)
        for place in self.wanted:
            if place in self.reject:
                raise UserError(f"neuron {place_named(place)} is both wanted and rejected")

    @property
    def wanted(self) -> tuple[Place, ...]:
        """The neurons that are in it, by hand."""
        return ((self.source,) if self.source else ()) + self.accept


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
    choice: Choice = Choice(),
) -> Intervention:
    """Choose a cluster of neurons for a concept and overwrite it with alpha.

    Args:
        table: neuron table of the checkpoint.
        concept: a key of the lexicons; "" if the source is chosen by hand, whatever it says.
        alpha: coefficient of the overwrite.
        checkpoint_sha256: hash of the weights the table was made from.
        layer: look for the source in this layer only.
        size: number of steered neurons, the source and those accepted by hand included.
        min_hits: the score that the source must have.
        tower: the tower the table describes.
        choice: everything else.

    Raises:
        UnknownName: no lexicon for the concept.
        UserError: a layer or a neuron does not exist or cannot reach the action, no neuron
            qualifies, or there are fewer neurons than the size.
    """
    live = _live_layers(table)
    for asked in [layer, *(place[0] for place in choice.wanted)]:
        if asked is not None:
            _check_layer(table, asked, live)
    _check_neurons(table, [*choice.wanted, *choice.reject])
    if not concept and (choice.source is None or choice.by == "score"):
        raise UserError("a cluster needs a concept, or a source neuron and its neighbours")
    candidates = _without(table.filter("reach"), choice.reject)
    scores = None
    if concept:
        scores = concept_scores(candidates, concept, choice.lexicons, choice.against)
    source = choice.source or _source(scores, candidates, concept, layer, min_hits, choice)
    members = _members(candidates, scores, source, size, choice)
    return Intervention(
        name=concept or f"neuron {place_named(source)}",
        operator="overwrite",
        sites=sites_of(members, tower),
        coefficient=alpha,
        provenance={
            "concept": concept,
            "source": "by hand" if choice.source else "best contrastive lexicon score",
            "method": METHODS[choice.by],
            "checkpoint_sha256": checkpoint_sha256,
            "layer": source[0],
            "seed_neuron": source[1],
            **(_spelled(scores, source, concept, choice) if concept else {}),
            "size": len(members),
            "neurons": [place_named(place) for place in members],
            "distances": distances(table, source, members),
            **_by_hand(choice),
        },
    )


def places_of(cluster: Intervention) -> list[Place]:
    """Return the neurons of a cluster, the source first where provenance knows the order."""
    places = [(site.layer, neuron) for site in cluster.sites for neuron in site.neurons]
    order = {name: i for i, name in enumerate(cluster.provenance.get("neurons", ()))}
    return sorted(places, key=lambda place: order.get(place_named(place), len(order)))


def sites_of(places: Iterable[Place], tower: str = "vlm") -> tuple[Site, ...]:
    """Return the sites of some neurons: one a layer, neurons in the order given."""
    by_layer = sorted(places, key=lambda place: place[0])
    return tuple(
        Site(tower, layer, tuple(neuron for _, neuron in group))
        for layer, group in groupby(by_layer, key=lambda place: place[0])
    )


def place_named(place: Place) -> str:
    """Return "3:126"."""
    return f"{place[0]}:{place[1]}"


def rows_of(table: pl.DataFrame, places: Sequence[Place]) -> pl.DataFrame:
    """Return the rows of some neurons, in the order given."""
    return _frame(places).join(table, on=["layer", "neuron"], maintain_order="left")


def members(
    table: pl.DataFrame,
    cluster: Intervention,
    concept: str = "",
    lexicons: Lexicons = LEXICONS,
    against: str | None = None,
) -> pl.DataFrame:
    """Describe the neurons of a cluster, the source first.

    Returns:
        `layer`, `neuron`, `v_norm`, `distance` (cosine, to the first), `top_tokens`, a column
        `hits_CONCEPT` per concept and, for a concept, what `concept_scores` adds.
    """
    places = places_of(cluster)
    rows = rows_of(table, places)
    found = rows.select("layer", "neuron", "v_norm", "top_tokens").hstack(all_hits(rows, lexicons))
    if concept:
        scores = concept_scores(rows, concept, lexicons, against)
        found = found.hstack(scores.drop("layer", "neuron", "reach"))
    return found.with_columns(pl.Series("distance", distances(table, places[0], places)))


def distances(table: pl.DataFrame, source: Place, places: Sequence[Place]) -> list[float]:
    """Return the cosine distance of each neuron's semantic embedding to the source's."""
    origin = _embeddings(rows_of(table, [source]))[0].astype(np.float64)
    cosines = _embeddings(rows_of(table, places)).astype(np.float64) @ origin
    return [round(float(distance), 6) for distance in np.clip(1 - cosines, 0, 2)]


def _live_layers(table: pl.DataFrame) -> list[int]:
    live = table.filter("reach").get_column("layer").unique().sort().to_list()
    if not live:
        raise UserError("no layer of this policy's neuron table can change the action")
    return live


def _check_layer(table: pl.DataFrame, layer: int, live: list[int]) -> None:
    layers = table.get_column("layer").unique().sort().to_list()
    works = f"layers that work: {layers_named(live)}"
    if layer not in layers:
        raise UserError(f"no layer {layer}; this policy has {layers_named(layers)}; {works}")
    if layer not in live:
        raise UserError(
            f"layer {layer} cannot change the action: nothing reads what its feed-forward block "
            f"writes; {works}"
        )


def _check_neurons(table: pl.DataFrame, places: Sequence[Place]) -> None:
    for place in places:
        if rows_of(table, [place]).is_empty():
            last = table.select(pl.col("layer", "neuron").max()).row(0)
            raise UserError(
                f"no neuron {place_named(place)}; this policy has 0:0 to {place_named(last)}"
            )


def _source(
    scores: pl.DataFrame,
    candidates: pl.DataFrame,
    concept: str,
    layer: int | None,
    min_hits: int,
    choice: Choice,
) -> Place:
    """Return the neuron that speaks most clearly of the concept."""
    here = scores if layer is None else scores.filter(pl.col("layer") == layer)
    where = "this policy" if layer is None else f"layer {layer}"
    if here.is_empty():
        raise UserError(f"every neuron of {where} that could act is rejected")
    best = best_first(here).row(0, named=True)
    if best["score"] >= min_hits:
        return best["layer"], best["neuron"]
    opposite = opposite_of(concept, choice.lexicons, choice.against)
    net = f" more than of '{opposite}'" if opposite else ""
    message = (
        f"no neuron of {where} speaks of '{concept}': the best, layer {best['layer']} neuron "
        f"{best['neuron']}, has {best['score']} of the {min_hits} hits{net} needed"
    )
    there = scores.filter(pl.col("score") >= min_hits).get_column("layer").unique().sort().to_list()
    if there:
        raise UserError(f"{message}; layers that have one: {layers_named(there)}")
    raise UserError(f"{message}; concepts it has: {_concepts(candidates, min_hits, choice)}")


def _concepts(candidates: pl.DataFrame, min_hits: int, choice: Choice) -> str:
    """Name the concepts that some neuron qualifies for, with the first such layer."""
    hits = all_hits(candidates, choice.lexicons)
    named = []
    for concept in choice.lexicons:
        opposite = opposite_of(concept, choice.lexicons)
        against = pl.col(f"hits_{opposite}") if opposite else 0
        score = hits.select(pl.col(f"hits_{concept}") - against).to_series()
        if (best := score.max()) >= min_hits:
            layer = candidates.filter(score == best).get_column("layer").min()
            named.append(f"{concept} (layer {layer}, {best} hits)")
    return ", ".join(named) or "none"


def _members(
    candidates: pl.DataFrame,
    scores: pl.DataFrame | None,
    source: Place,
    size: int,
    choice: Choice,
) -> list[Place]:
    """Return the source, those accepted by hand, and what fills the cluster up."""
    first = list(dict.fromkeys([source, *choice.accept]))
    where = "the layers that work hold" if choice.across else f"layer {source[0]} holds"
    pool = candidates if choice.across else candidates.filter(pl.col("layer") == source[0])
    others = _without(pool, first)
    if not len(first) <= size <= len(first) + len(others):
        most = len(first) + len(others)
        raise UserError(f"a cluster of {size} neurons: {where} {len(first)} to {most}")
    wanted = size - len(first)
    if choice.by == "score":
        ranked = best_first(scores.join(others.select("layer", "neuron"), on=["layer", "neuron"]))
        joining = ranked.head(wanted)
    else:
        joining = _nearest(others, rows_of(candidates, [source]), wanted)
    return [*first, *joining.select("layer", "neuron").rows()]


def _nearest(others: pl.DataFrame, source: pl.DataFrame, n: int) -> pl.DataFrame:
    """Return the n neurons whose embeddings are nearest to the source's, nearest first."""
    from sklearn.neighbors import NearestNeighbors

    if n == 0:
        return others.head(0)
    others = others.sort("layer", "neuron")
    search = NearestNeighbors(n_neighbors=n, metric="cosine", algorithm="brute")
    search.fit(_embeddings(others))
    return others[search.kneighbors(_embeddings(source), return_distance=False)[0]]


def _spelled(scores: pl.DataFrame, source: Place, concept: str, choice: Choice) -> dict:
    """What the source spells."""
    found = rows_of(scores, [source]).row(0, named=True)
    words = choice.lexicons[concept]
    return {
        "score": found["score"],
        "hits": found["hits"],
        "hit_tokens": found["hit_tokens"],
        "opposite": opposite_of(concept, choice.lexicons, choice.against),
        "opposite_hits": found["opposite_hits"],
        **({} if words == LEXICONS.get(concept) else {"lexicon": sorted(words)}),
    }


def _by_hand(choice: Choice) -> dict:
    """What a person chose, where somebody did."""
    by_hand = {
        "accepted": [place_named(place) for place in choice.accept],
        "rejected": [place_named(place) for place in choice.reject],
    }
    return {name: value for name, value in by_hand.items() if value}


def _without(table: pl.DataFrame, places: Sequence[Place]) -> pl.DataFrame:
    return table.join(_frame(places), on=["layer", "neuron"], how="anti", maintain_order="left")


def _frame(places: Sequence[Place]) -> pl.DataFrame:
    return pl.DataFrame(list(places), schema={"layer": pl.Int32, "neuron": pl.Int32}, orient="row")


def _embeddings(rows: pl.DataFrame) -> np.ndarray:
    return rows.get_column("embedding").explode().to_numpy().reshape(len(rows), -1)  # (n, d)

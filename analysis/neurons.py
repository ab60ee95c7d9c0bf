"""Questions to a neuron table: which value vectors spell a word, or a concept.

Neuron i of a feed-forward block adds a_i v_i to the residual stream, v_i being its column of
down_proj. Projected on the unembedding, v_i names the tokens it promotes; a neuron speaks of a
concept when several of its top tokens are words of the concept's lexicon (Geva et al., EMNLP 2022,
arXiv:2203.14680; Haon et al., arXiv:2509.00328).

Where vectors spell words of opposite concepts at once, hits alone mislead. So a concept's score is
contrastive, which the publications' is not:

    score = hits of the concept - hits of its opposite
    contrast = sum of the logits of the first - sum of the logits of the second

The table holds one row a (layer, neuron): `layer`, `neuron`, `reach` (whether the layer's
feed-forward block can change the action), `top_tokens` (decoded), `top_logits`, and `embedding`,
the L2-normalised mean of the top tokens' unembedding rows, weighted by the softmax of the logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from analysis.lexicons import LEXICONS, Lexicons, lexicon_of, opposite_of
from traces.errors import UnknownName, UserError

WORD = pl.col("token").str.strip_chars().str.to_lowercase()
BEST_FIRST = {"score": True, "layer": False, "contrast": True, "neuron": False}
"""Column -> descending; of equal scores the earliest layer, then the larger contrast."""


@dataclass(frozen=True)
class Query:
    """What is asked of a neuron table.

    Raises:
        UnknownName: there is no such concept.
    """

    layers: tuple[int, ...] = ()
    """Empty: all."""
    concept: str = ""
    against: str | None = None
    """The concept whose hits count against it, if not that of `OPPOSITES`."""
    word: str = ""
    """Only neurons with this word among their top tokens."""
    sort: str = ""
    """Column, largest first; with a minus, smallest first."""
    top: int | None = None
    lexicons: Lexicons = field(default_factory=lambda: LEXICONS)

    def __post_init__(self) -> None:
        if self.concept:
            lexicon_of(self.concept, self.lexicons)
            opposite_of(self.concept, self.lexicons, self.against)
        elif self.against:
            raise UserError("--against is what counts against a concept; add --concept NAME")


def answer(table: pl.DataFrame, query: Query, fired: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return the neurons asked for.

    Args:
        table: neuron table.
        query: what is asked.
        fired: more columns, by `layer` and `neuron` (see `analysis.activity`).

    Returns:
        Rows of the table with a column `hits_CONCEPT` per concept; asked for a concept, also those
        of `concept_scores`; asked for a word, those of `spelling`. Sorted by what was asked, else
        by the most hits of any concept.

    Raises:
        UserError: there is no such layer or column, or a column has no order.
    """
    rows = in_layers(table, query.layers)
    rows = rows.hstack(all_hits(rows, query.lexicons))
    if query.concept:
        scores = concept_scores(rows, query.concept, query.lexicons, query.against)
        rows = rows.hstack(scores.drop("layer", "neuron", "reach"))
    if query.word:
        rows = spelling(rows, query.word)
    if fired is not None:
        rows = rows.join(fired, on=["layer", "neuron"], how="left", maintain_order="left")
    ordered = _ordered(rows, query)
    return ordered if query.top is None else ordered.head(query.top)


def in_layers(table: pl.DataFrame, layers: Sequence[int]) -> pl.DataFrame:
    """Return the rows of some layers, of all when none is named."""
    known = table.get_column("layer").unique().sort().to_list()
    for layer in layers:
        if layer not in known:
            raise UserError(f"no layer {layer}; this policy has {layers_named(known)}")
    return table.filter(pl.col("layer").is_in(list(layers))) if layers else table


def _ordered(rows: pl.DataFrame, query: Query) -> pl.DataFrame:
    if query.sort:
        name = query.sort.removeprefix("-")
        numbers = [c for c, kind in rows.schema.items() if kind.is_numeric() or kind == pl.Boolean]
        if name not in numbers:
            raise UnknownName("column of numbers", name, numbers)
        descending = name == query.sort
        return rows.sort(name, descending=descending, nulls_last=True, maintain_order=True)
    if query.word:
        return rows
    if query.concept:
        return best_first(rows)
    most = pl.max_horizontal("^hits_.*$")
    return rows.sort(most, descending=True, maintain_order=True)


def concept_hits(table: pl.DataFrame, lexicon: frozenset[str]) -> pl.DataFrame:
    """Count, per neuron, the top tokens that are words of a lexicon.

    A token counts when it is a word of the lexicon once decoded, stripped and lower-cased:
    " Fast" does for fast, " breakfast" does not.

    Returns:
        The table's rows in order, as `layer`, `neuron`, `reach`, `hits`, `hit_tokens` (as decoded)
        and `hit_logit` (their sum).
    """
    rows = table.select("layer", "neuron", "reach").with_row_index()
    found = (
        _tokens(table)
        .filter(WORD.is_in(sorted(lexicon)))
        .group_by("index", maintain_order=True)
        .agg(
            pl.len().cast(pl.Int32).alias("hits"),
            pl.col("token").alias("hit_tokens"),
            pl.col("logit").cast(pl.Float64).sum().alias("hit_logit"),
        )
    )
    return (
        rows.join(found, on="index", how="left", maintain_order="left")
        .with_columns(
            pl.col("hits").fill_null(0),
            pl.col("hit_tokens").fill_null([]),
            pl.col("hit_logit").fill_null(0.0),
        )
        .drop("index")
    )


def concept_scores(
    table: pl.DataFrame, concept: str, lexicons: Lexicons = LEXICONS, against: str | None = None
) -> pl.DataFrame:
    """Score every neuron for a concept, its opposite's words counting against it.

    Args:
        table: neuron table.
        concept: a key of `lexicons`.
        lexicons: concept to words.
        against: the opposite, if it is not that of `OPPOSITES`.

    Returns:
        What `concept_hits` does, and `opposite_hits`, `opposite_tokens`, `score`, `contrast`.

    Raises:
        UnknownName: there is no such concept.
    """
    hits = concept_hits(table, lexicon_of(concept, lexicons))
    opposite = opposite_of(concept, lexicons, against)
    other = concept_hits(table, lexicons[opposite] if opposite else frozenset())
    return hits.with_columns(
        other.get_column("hits").alias("opposite_hits"),
        other.get_column("hit_tokens").alias("opposite_tokens"),
        (hits.get_column("hits") - other.get_column("hits")).alias("score"),
        (hits.get_column("hit_logit") - other.get_column("hit_logit")).alias("contrast"),
    )


def best_first(scores: pl.DataFrame) -> pl.DataFrame:
    """Sort scored neurons as `choose_cluster` prefers them."""
    return scores.sort(list(BEST_FIRST), descending=list(BEST_FIRST.values()))


def all_hits(table: pl.DataFrame, lexicons: Lexicons = LEXICONS) -> pl.DataFrame:
    """Return a column `hits_CONCEPT` per concept, rows as in the table."""
    found = _tokens(table).with_columns(word=WORD)
    known = pl.DataFrame(
        [(word, concept) for concept, words in lexicons.items() for word in sorted(words)],
        schema={"word": pl.String, "concept": pl.String},
        orient="row",
    )
    counts = found.join(known, on="word").group_by("index", "concept").agg(pl.len().cast(pl.Int32))
    rows = pl.DataFrame({"index": pl.int_range(len(table), dtype=pl.UInt32, eager=True)})
    for concept in lexicons:
        of_concept = counts.filter(pl.col("concept") == concept)
        named = of_concept.select("index", pl.col("len").alias(f"hits_{concept}"))
        rows = rows.join(named, on="index", how="left", maintain_order="left")
    return rows.drop("index").fill_null(0)


def spelling(table: pl.DataFrame, word: str) -> pl.DataFrame:
    """Return the neurons with a word among their top tokens, the largest logit of it first.

    Args:
        table: neuron table.
        word: matched whole, decoded, stripped and lower-cased.

    Returns:
        Rows of the table with `word_rank` (1 is the top) and `word_logit`.
    """
    found = (
        _tokens(table)
        .with_columns(pl.int_range(1, pl.len() + 1).over("index").alias("word_rank"))
        .filter(word.strip().lower() == WORD)
        .group_by("index", maintain_order=True)
        .agg(pl.col("word_rank").first(), pl.col("logit").first().alias("word_logit"))
    )
    return (
        table.with_row_index()
        .join(found, on="index")
        .sort("word_logit", "layer", "neuron", descending=[True, False, False])
        .drop("index")
    )


def chance(
    random_tokens: Sequence[Sequence[str]],
    concept: str,
    lexicons: Lexicons = LEXICONS,
    against: str | None = None,
) -> list[int]:
    """Return the scores that a concept has with the top tokens of random directions."""
    words = lexicon_of(concept, lexicons)
    opposite = opposite_of(concept, lexicons, against)
    others = lexicons[opposite] if opposite else frozenset()
    spelled = [[token.strip().lower() for token in tokens] for tokens in random_tokens]
    return [sum((w in words) - (w in others) for w in tokens) for tokens in spelled]


def layers_named(layers: Sequence[int]) -> str:
    """Whole numbers as "0, 2-6"."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _tokens(table: pl.DataFrame) -> pl.DataFrame:
    """One row a top token: `index` of its neuron, `token`, `logit`."""
    return (
        table.select(pl.col("top_tokens").alias("token"), pl.col("top_logits").alias("logit"))
        .with_row_index()
        .explode("token", "logit")
    )

"""Reads the Parquet file that `vla-trace neurons` keeps for each set of weights, part by part.

It takes polars, so the screens ask for it in another process (`tui.data.apart`).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from analysis.lexicons import LEXICONS, opposite_of
from analysis.neurons import all_hits
from traces.errors import UserError
from traces.neuron_file import FACTS, FORMAT
from tui.data.neurons import Neurons, Place, Spelling, Words


def read_neurons(path: Path, sha256: str) -> Neurons:
    """Read the columns that are numbers.

    Raises:
        UserError: the file is of other weights, of another layout, or damaged.
    """
    try:
        facts = json.loads(pl.read_parquet_metadata(path)[FACTS])
        if (facts["sha256"], facts["format"]) != (sha256, FORMAT):
            raise UserError(
                "this neuron table is of another version; make it again: vla-trace neurons "
                f"({path})"
            )
        columns = pl.read_parquet(path, columns=["layer", "neuron", "reach", "v_norm"])
        columns = columns.sort("layer", "neuron")  # costs nothing where it is so already
    except (OSError, KeyError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise UserError(
            "this neuron table cannot be read; delete it and make it again: vla-trace neurons "
            f"({path}: {error})"
        ) from None
    layer, neuron, reach, norm = (column.to_numpy() for column in columns.get_columns())
    return Neurons(facts, layer, neuron, reach, norm)


def read_words(path: Path) -> Words:
    """Read the top tokens and score them for every concept."""
    table = pl.scan_parquet(path)
    layers = table.select("layer").unique().sort("layer").collect()["layer"].to_list()
    ids, vocabulary = [], {}
    for layer in layers:
        part = table.filter(pl.col("layer") == layer).sort("neuron")
        ids.append(part.select("top_ids").collect()["top_ids"].to_numpy())
        found, first = np.unique(ids[-1], return_index=True)
        unseen = [i not in vocabulary for i in found.tolist()]
        if any(unseen):
            tokens = part.select("top_tokens").collect()["top_tokens"].explode()
            known = tokens.gather(first[unseen]).to_list()
            vocabulary.update(zip(found[unseen].tolist(), known, strict=True))
    small = np.uint16 if max(vocabulary, default=0) < 1 << 16 else np.int32
    everything = np.concatenate(ids, dtype=small, casting="unsafe")
    return Words(everything, vocabulary, _scores(everything, vocabulary))


def _scores(ids: np.ndarray, vocabulary: dict[int, str]) -> dict[str, np.ndarray]:
    """Return concept to (n,) hits of it less hits of its opposite.

    Each token of the vocabulary is looked up once, as if it were the only one of a neuron.
    """
    tokens = pl.Series("top_tokens", list(vocabulary.values()), pl.String)
    logits = pl.Series("top_logits", np.zeros(len(tokens)))
    alone = pl.DataFrame([column.reshape((-1, 1)) for column in (tokens, logits)])
    of_token = all_hits(alone)
    hits = {}
    for concept in LEXICONS:
        counted = np.zeros(max(vocabulary, default=-1) + 1, np.int8)
        counted[list(vocabulary)] = of_token[f"hits_{concept}"].to_numpy()
        hits[concept] = counted[ids].sum(axis=1, dtype=np.int8)
    opposites = {concept: opposite_of(concept) for concept in LEXICONS}
    return {
        concept: score - hits[opposites[concept]] if opposites[concept] else score
        for concept, score in hits.items()
    }


def read_spelling(path: Path, place: Place) -> Spelling:
    """Read one row of the table."""
    here = (pl.col("layer") == place[0]) & (pl.col("neuron") == place[1])
    columns = ("top_tokens", "bottom_tokens", "entropy")
    top, bottom, entropy = pl.scan_parquet(path).filter(here).select(columns).collect().row(0)
    return Spelling(tuple(top), tuple(bottom), entropy)

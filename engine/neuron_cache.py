"""Neuron tables on the disk: one Parquet file per weights and variant; reading needs no torch.

A file carries what its table was made from, and the version of its layout. One of another version,
or a damaged one, counts as absent: the table is computed again and takes its place.
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass

import polars as pl

from traces.errors import UnknownName
from traces.neuron_file import FACTS, FORMAT, neuron_file

TOKEN_NORMS = ("l2", "none")


@dataclass(frozen=True)
class Variant:
    """How value vectors are read in words.

    Raises:
        UnknownName: no such normalisation of tokens.
    """

    token_norm: str = "l2"
    """Whether the semantic embedding averages unit token vectors ("l2") or raw ones ("none")."""
    fold_norm: bool = False
    """Whether the weight of the final norm is folded into the unembedding."""

    def __post_init__(self) -> None:
        if self.token_norm not in TOKEN_NORMS:
            raise UnknownName("token normalisation", self.token_norm, TOKEN_NORMS)


USUAL = Variant()


@dataclass(frozen=True)
class NeuronTable:
    """One row a (layer, neuron), and what the rows were made from."""

    rows: pl.LazyFrame
    facts: dict
    """policy, sha256, token_norm, fold_norm, sizes, lm_head (its checks), random_tokens (top tokens
    of random directions: what chance spells)."""


def cached(sha256: str, variant: Variant) -> NeuronTable | None:
    """The table of these weights, if it was stored in the present layout."""
    path = neuron_file(sha256, **asdict(variant))
    try:
        facts = json.loads(pl.read_parquet_metadata(path)[FACTS])
        if {key: facts[key] for key in _key(sha256, variant)} != _key(sha256, variant):
            return None
        return NeuronTable(pl.scan_parquet(path), facts)
    except (OSError, KeyError, TypeError, ValueError, pl.exceptions.PolarsError):
        return None


def stored(rows: pl.DataFrame, sha256: str, variant: Variant, facts: dict) -> NeuronTable:
    """Store a table; where the home cannot be written, that only costs the time."""
    facts = _key(sha256, variant) | facts
    path = neuron_file(sha256, **asdict(variant))
    scratch = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        row_group = rows.get_column("neuron").max() + 1  # a layer, so that layers are read alone
        rows.write_parquet(scratch, metadata={FACTS: json.dumps(facts)}, row_group_size=row_group)
        scratch.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
    return NeuronTable(rows.lazy(), facts)


def _key(sha256: str, variant: Variant) -> dict:
    return {"format": FORMAT, "sha256": sha256} | asdict(variant)

"""A small hand-made neuron table in which every answer is known."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

FAST = [" fast", "Quick", " rapid", " swiftly", " hurry"]
SLOW = [" slow", " slowly", " gradual", " sluggish"]
NOISE = [" breakfast", "fastidious", " cat", " the", " unfast", "ing"]


def angle(degrees):
    return [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))]


def row(layer, neuron, tokens, degrees, reach=True, logit=1.0):
    tokens = (tokens + NOISE)[:6]
    return {
        "layer": layer,
        "neuron": neuron,
        "reach": reach,
        "v_norm": 1.0,
        "top_ids": list(range(6)),
        "top_tokens": tokens,
        "top_pieces": [token.replace(" ", "Ġ") for token in tokens],
        "top_logits": [logit] * 6,
        "embedding": angle(degrees),
    }


@pytest.fixture
def table():
    """Three layers, the last without reach; embeddings are angles in a plane."""
    rows = [
        row(0, 0, FAST[:3], 0),
        row(0, 1, SLOW, 90),
        row(0, 2, [], 45),
        row(1, 0, [], 60),
        row(1, 1, FAST[:4], 0, logit=1.0),
        row(1, 2, FAST[:4], 10, logit=2.0),  # as many hits as neuron 1, larger logits: the seed
        row(1, 3, [], 12),
        row(1, 4, [], 40),
        row(1, 5, FAST[:1], 300),
        row(2, 0, FAST, 0, reach=False),
        row(2, 1, FAST, 0, reach=False),
    ]
    schema = {"layer": pl.Int32, "neuron": pl.Int32, "v_norm": pl.Float32}
    floats = {"top_logits": pl.List(pl.Float32), "embedding": pl.List(pl.Float32)}
    return pl.DataFrame(rows, schema_overrides=schema | floats)


@pytest.fixture
def build():
    """What the table is made of."""
    return SimpleNamespace(row=row, angle=angle, fast=FAST, slow=SLOW)

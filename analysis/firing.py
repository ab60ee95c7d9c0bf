"""How strongly neurons fire in recordings: mean and 99th percentile of each, all values of one.

Rows are decisions, read from `vlm.L.ffn_act`; they describe and test nothing, since those of an
episode follow each other too closely (`analysis.activity` and `analysis.shifts` test).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from traces.collection import TraceCollection, open_traces

BLOCKS, BLOCK_ROWS = 32, 128
"""Of a layer with more decisions, this many spans of so many are read: enough for a percentile."""


@dataclass(frozen=True)
class Firing:
    """The recorded neurons of a policy."""

    layers: dict[int, tuple[np.ndarray, np.ndarray]]
    """Layer to (mean, 99th percentile), each (N,); NaN without a finite value."""
    decisions: int
    """Read of each layer at most."""
    episodes: int


def site_of(layer: int) -> str:
    """Return the name of the site that holds a layer's neurons."""
    return f"vlm.{layer}.ffn_act"


def firing(paths: Iterable[Path | str]) -> Firing:
    """Read mean and 99th percentile of every recorded neuron.

    Args:
        paths: unsteered traces of one policy.
    """
    layers = {}
    read = 0
    with open_traces(*paths) as traces:
        for layer in _layers(traces):
            values = traces.activation(site_of(layer))
            known = _finite_rows(np.concatenate([values[span] for span in _spans(len(values))]))
            read = max(read, len(known))
            unknown = np.full(known.shape[1], np.nan)
            mean, high = (
                (known.mean(0), np.quantile(known, 0.99, 0)) if len(known) else [unknown] * 2
            )
            layers[layer] = mean, high
        return Firing(layers, read, traces.n_episodes)


def values_of(paths: Iterable[Path | str], layer: int, neuron: int) -> np.ndarray:
    """Return every finite recorded activation of one neuron, (n,); none if it was not recorded."""
    with open_traces(*paths) as traces:
        if layer not in _layers(traces):
            return np.zeros(0)
        site = traces.activation(site_of(layer))
        if neuron >= site.shape[-1]:
            return np.zeros(0)
        step = BLOCKS * BLOCK_ROWS
        spans = (slice(start, start + step) for start in range(0, len(site), step))
        found = np.concatenate([np.zeros(0), *(site[span, neuron] for span in spans)])
    return found[np.isfinite(found)]


def _spans(n: int) -> list[slice]:
    """Return all of n rows, or spans of them, evenly spaced from the first to the last."""
    if n <= BLOCKS * BLOCK_ROWS:
        return [slice(0, n)]
    starts = np.linspace(0, n - BLOCK_ROWS, BLOCKS).astype(int).tolist()
    return [slice(start, start + BLOCK_ROWS) for start in starts]


def _layers(traces: TraceCollection) -> list[int]:
    """Return the layers whose neurons were recorded, one number a decision each."""
    return [
        site.layer
        for site in traces.sites()
        if site.name == site_of(site.layer) and len(site.shape) == 1
    ]


def _finite_rows(values: np.ndarray) -> np.ndarray:
    """Return the rows of which every value is finite: float16 may have overflowed."""
    values = values.astype(np.float32)
    return values[np.isfinite(values).all(axis=1)]

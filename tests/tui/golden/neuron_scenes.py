"""Neuron tables as `vla-trace neurons` keeps them, and recordings of a fine-tuned policy."""

import json

import numpy as np
import polars as pl

from traces.neuron_file import FACTS, FORMAT, neuron_file

WORDS = {
    "fast": "quick rapid swift hurry brisk prompt rush",
    "slow": "slowly gradual calmly crawl lazily plodding",
    "up": "upward above raise lift rise higher",
    "down": "below lower drop sink fall bottom",
    "none": "bowl cup milk plate sofa wall drawer door lamp floor",
}
VOCABULARY = [word for words in WORDS.values() for word in words.split()]
TOP = 8
TUNED = "c0de" * 16
TUNED_PATH = "runs/goal/checkpoints/000040/pretrained_model"


def top_ids(row):
    """What neuron `row` spells: it begins with the words of one concept, then goes on."""
    concepts = list(WORDS)
    first = VOCABULARY.index(WORDS[concepts[row % len(concepts)]].split()[0])
    return [(first + k) % len(VOCABULARY) for k in range(TOP)]


def write_table(sha256, layers=2, neurons=16, vocabulary=VOCABULARY, ids=None, **facts):
    """Write the table of some weights into the cache; the last layer reaches no action."""
    n = layers * neurons
    ids = np.array([top_ids(row) for row in range(n)], np.int32) if ids is None else ids
    words = pl.Series([f" {word}" for word in vocabulary])
    spelled = words.gather(ids.ravel()).reshape(ids.shape)
    least = ids[:, ::-1][:, :4]
    rows = pl.DataFrame(
        {
            "layer": np.repeat(np.arange(layers, dtype=np.int32), neurons),
            "neuron": np.tile(np.arange(neurons, dtype=np.int32), layers),
            "reach": np.arange(n) < n - neurons if layers > 1 else np.ones(n, bool),
            "v_norm": (0.1 + np.arange(n) * 7919 % n / n).astype(np.float32),
            "entropy": np.full(n, 5.5, np.float32),
            "top_ids": ids,
            "top_tokens": spelled,
            "top_logits": np.tile(np.arange(ids.shape[1], 0, -1, dtype=np.float32), (n, 1)),
            "bottom_tokens": words.gather(least.ravel()).reshape(least.shape),
        }
    )
    path = neuron_file(sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"format": FORMAT, "sha256": sha256, "policy": "smolvla-tabletop"} | facts
    rows.write_parquet(path, metadata={FACTS: json.dumps(facts)}, row_group_size=neurons)
    return path

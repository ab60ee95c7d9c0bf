"""The neuron table of a full-size SmolVLA beside the bare matrix product it contains.

32 layers of 2,560 neurons, width 960, 49,280 tokens, random weights: 7.8 TFLOP. Asked: at most
twice the time of the product on the same cores, under 3 GB beside the weights. Layer by layer in
turn, so that all share the machine's mood: the product in the table's own batches, the product of a
whole layer at once, the table. `--layers 4` for a quick look.
"""

import argparse
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import torch

from engine.neuron_cache import USUAL, cached, stored
from engine.neurons import BATCH, Readout, compute

NEURONS, WIDTH, TOKENS = 2560, 960, 49_280


def weights(layers: int) -> Readout:
    torch.manual_seed(0)
    return Readout(
        values=[torch.randn(WIDTH, NEURONS) / WIDTH**0.5 for _ in range(layers)],
        unembedding=torch.randn(TOKENS, WIDTH),
        final_norm=torch.ones(WIDTH),
        reach=[layer < layers - 1 for layer in range(layers)],
        words=[f" word{i}" for i in range(TOKENS)],
        pieces=[f"Ġword{i}" for i in range(TOKENS)],
    )


def product(values: torch.Tensor, unembedding: torch.Tensor, out: torch.Tensor) -> None:
    for part in values.T.split(len(out)):
        torch.mm(part, unembedding.T, out=out[: len(part)])


def seconds(work: Callable[[], object]) -> tuple[float, object]:
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=32)
    layers = parser.parse_args().layers
    whole = weights(layers)
    before = peak_gb()
    frames, batched, at_once, table = [], 0.0, 0.0, 0.0
    some, all_of = (torch.empty(n, TOKENS) for n in (BATCH, NEURONS))  # pages come when written
    peak = before
    for layer, values in enumerate(whole.values):
        one = replace(whole, values=[values], reach=[whole.reach[layer]])
        spent, frame = seconds(lambda one=one: compute(one))
        table += spent
        frames.append(frame.with_columns(pl.lit(layer, pl.Int32).alias("layer")))
        if layer == layers - 1:
            spent, rows = seconds(lambda: pl.concat(frames))
            table += spent
            peak = peak_gb()
        batched += seconds(lambda v=values: product(v, whole.unembedding, some))[0]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        file, _ = seconds(lambda: stored(rows, "random", USUAL, {}))
        peak_file = peak_gb()
        again, _ = seconds(lambda: cached("random", USUAL).rows.drop("embedding").collect())
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    product(whole.values[0], whole.unembedding, all_of)
    for values in whole.values:  # last: a layer at once holds 0.5 GB of logits
        at_once += seconds(lambda v=values: product(v, whole.unembedding, all_of))[0]
    bare = min(batched, at_once)
    print(
        f"neuron_table on {platform.machine()}, {torch.get_num_threads()} threads: {layers} layers "
        f"of {NEURONS} neurons, width {WIDTH}, {TOKENS} tokens; {before:.2f} GB before it starts"
    )
    print(f"{'':<34}{'s':>8}{'x product':>11}{'peak GB':>9}{'of it new':>11}")
    for name, spent, held in (
        (f"product, {BATCH} neurons at a time", batched, None),
        ("product, a layer at once", at_once, None),
        ("table", table, peak),
        (f"table and file of {size / 1e6:.0f} MB", table + file, peak_file),
        ("reading the file, no embeddings", again, None),
    ):
        memory = "" if held is None else f"{held:9.2f}{held - before:11.2f}"
        print(f"{name:<34}{spent:8.1f}{spent / bare:11.2f}{memory}")
    print("asked: table at most 2.00 x the product, under 3.00 GB")

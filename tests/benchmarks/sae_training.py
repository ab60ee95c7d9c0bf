"""How fast a sparse autoencoder trains, beside SAELens' own trainer, and whether memory grows.

Asked: not slower than SAELens' SAETrainer (TopKTrainingSAE) on the same activations, on the CPU,
and memory that does not grow with the traces. Both get one thread, batches out of memory, the same
latents and k, and take turns; ours evaluates held-out rows within its time as well, SAELens none.
Memory is the peak of a process that trains one epoch from a trace, and from one four times as
large, with a buffer that neither fits into.

    python -P tests/benchmarks/sae_training.py       SAELens: uv sync --extra sae
"""

import importlib.util
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CASES = ((200_000, 128, 16, 1024), (50_000, 960, 32, 4096))
"""rows, width (and latents), k, rows of a batch"""
TURNS = 3
MEMORY_WIDTH, DECISIONS = 256, 500
BUFFER = 16 * 2**20
"""Bytes, so that small traces are too large for it."""


def activations(n: int, width: int) -> np.ndarray:
    """Rows made of 16 of as many directions as they are wide, and a little noise."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((width, width), np.float32) / np.sqrt(width)
    rows = 0.1 * rng.standard_normal((n, width), np.float32)
    for _ in range(16):
        rows += rng.uniform(1, 3, (n, 1)).astype(np.float32) * directions[rng.integers(0, width, n)]
    return rows


def ours(rows: np.ndarray, k: int, batch: int) -> float:
    """Rows a second of an epoch, a twentieth of the rows being held out."""
    import torch

    from analysis.sae.rows import SiteRows
    from analysis.sae.training import SaeConfig, Training

    starts = range(0, len(rows), 256)
    blocks = [slice(start, min(start + 256, len(rows))) for start in starts]
    some = len(blocks) // 20
    train, held_out = SiteRows(rows, tuple(blocks[some:])), SiteRows(rows, tuple(blocks[:some]))
    config = SaeConfig(k=k, batch=batch, normalisation="none").fitted(train.width, train.n)
    training = Training(config, train, held_out)
    torch.set_num_threads(1)
    began = time.perf_counter()
    training.run_epoch()
    return training.step * batch / (time.perf_counter() - began)


def saelens(rows: np.ndarray, k: int, batch: int) -> float:
    """Rows a second of SAELens' trainer."""
    import torch
    from sae_lens import SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig

    torch.set_num_threads(1)
    steps = len(rows) // batch
    order = np.random.default_rng(0).permutation(len(rows))
    batches = (torch.from_numpy(rows[order[i * batch : (i + 1) * batch]]) for i in range(steps))
    width = rows.shape[1]
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=width, d_sae=width, k=k))
    config = SAETrainerConfig(
        total_training_samples=steps * batch,
        train_batch_size_samples=batch,
        lr=3e-4,
        lr_end=3e-5,
        logger=LoggingConfig(log_to_wandb=False),
    )
    trainer = SAETrainer(cfg=config, sae=sae, data_provider=batches)
    began = time.perf_counter()
    trainer.fit()
    return steps * batch / (time.perf_counter() - began)


def compare() -> None:
    """Print rows a second of both, the median of some turns."""
    theirs = importlib.util.find_spec("sae_lens") is not None
    if not theirs:
        print("SAELens: not run, it is not installed (uv sync --extra sae)")
    for n, width, k, batch in CASES:
        rows = activations(n, width)
        speeds: dict[str, list[float]] = {"ours": [], "SAELens": []}
        for _ in range(TURNS):
            speeds["ours"].append(ours(rows, k, batch))
            if theirs:
                speeds["SAELens"].append(saelens(rows, k, batch))
        mine = statistics.median(speeds["ours"])
        text = f"{n:,} rows of {width}, k {k}, batch {batch}: ours {mine:,.0f} rows/s"
        if theirs:
            other = statistics.median(speeds["SAELens"])
            ratios = [a / b for a, b in zip(speeds["ours"], speeds["SAELens"], strict=True)]
            text += f", SAELens {other:,.0f}, ratio {statistics.median(ratios):.2f}"
            text += f" (turns {min(ratios):.2f} to {max(ratios):.2f})"
        print(text, flush=True)


def train_from(path: str) -> None:
    """Train an epoch from a trace and print the peak of memory; runs in a process of its own."""
    from analysis.sae import rows as sae_rows
    from analysis.sae.training import SaeConfig, Training
    from traces.collection import open_traces

    sae_rows.BUFFER_BYTES = BUFFER
    with open_traces(path) as traces:
        train, held_out, _, _ = sae_rows.split_rows(traces, [path], "vlm.1.resid_post")
        config = SaeConfig(batch=1024).fitted(train.width, train.n)
        training = Training(config, train, held_out)
        training.run_epoch()
    status = Path("/proc/self/status").read_text()  # ru_maxrss would begin as the parent's
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
    print(f"{train.n} rows, {train.n * train.width * 4 / 2**20:.0f} MB: peak {peak:.0f} MB")


def memory() -> None:
    """Print the peak of memory of one epoch from traces of two sizes."""
    import runpy

    write = runpy.run_path(str(Path(__file__).parents[1] / "conftest.py"))["write_activations"]
    rng = np.random.default_rng(0)
    block = rng.normal(size=(DECISIONS, MEMORY_WIDTH)).astype(np.float16)
    for episodes in (400, 1600):
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder) / "a.h5", [{"vlm.1.resid_post": block}] * episodes)
            subprocess.run([sys.executable, "-P", __file__, str(path)], check=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if len(sys.argv) > 1:
        train_from(sys.argv[1])
    else:
        memory()
        compare()

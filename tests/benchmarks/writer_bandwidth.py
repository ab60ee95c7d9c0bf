"""Bandwidth of TraceWriter against plain h5py appends of the same arrays, 1 GB of activations.

Asked: at least 70 % of plain h5py with under 300 MB of memory. Plain h5py appends every episode's
arrays to one dataset per site, in the same chunks, without checksums, statistics, crash safety or
any other table, and flushes after each episode. Every measurement is a new process; the two
take turns, and the ratio is the median over pairs. "written" ends when the system has everything,
"on disk" when an fsync of the closed file has returned.

    python -P tests/benchmarks/writer_bandwidth.py [FOLDER]    FOLDER: on the disk to measure
"""

import json
import os
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from traces.layout import CHUNK_BYTES
from traces.writer import TraceWriter

GIGABYTE = 10**9
N_SITES, WIDTH, DECISIONS = 16, 2560, 200  # sites, units of each, decisions of an episode
PAIRS = 5
KINDS = {  # what is measured: type of the arrays given, type stored
    "float16 kept as float16": ("float16", "float16"),
    "float32 kept as float16": ("float32", "float16"),
    "float32 kept as float32": ("float32", "float32"),
}


def plain(path: Path, given: str, stored: str) -> tuple[float, float, int]:
    """Seconds to write, seconds until it is on the disk, bytes of activations."""
    block, episodes = episode(given, stored)
    rows = max(1, CHUNK_BYTES // (WIDTH * np.dtype(stored).itemsize))
    began = time.perf_counter()
    with h5py.File(path, "x", libver=("v110", "v110")) as file:
        datasets = [
            file.create_dataset(
                f"site{i}",
                shape=(0, WIDTH),
                maxshape=(None, WIDTH),
                chunks=(rows, WIDTH),
                dtype=stored,
            )
            for i in range(N_SITES)
        ]
        for _ in range(episodes):
            for dataset, values in zip(datasets, block, strict=True):
                start = len(dataset)
                dataset.resize(start + DECISIONS, axis=0)
                dataset[start:] = values
            file.flush()
    written = time.perf_counter() - began
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return written, time.perf_counter() - began, total_bytes(stored, episodes)


def ours(path: Path, given: str, stored: str) -> tuple[float, float, int]:
    """The same with TraceWriter and everything else that it keeps."""
    names = runpy.run_path(str(Path(__file__).parents[1] / "traces" / "conftest.py"))
    block, episodes = episode(given, stored)
    site = replace(names["SITES"][0], shape=(WIDTH,), dtype=stored)
    sites = [replace(site, name=f"vlm.{i}.ffn_act", layer=i) for i in range(N_SITES)]
    record = names["make_record"](0, n_steps=DECISIONS, replan=1)
    record.activations = {s.name: values for s, values in zip(sites, block, strict=True)}
    record.objects = record.frames = record.sim_state = None
    began = time.perf_counter()
    writer = TraceWriter(path, names["make_header"](), sites, keep_chain=False)
    for _ in range(episodes):
        writer.write_episode(record)
    written = time.perf_counter() - began
    writer.close()
    return written, time.perf_counter() - began, total_bytes(stored, episodes)


def episode(given: str, stored: str) -> tuple[list[np.ndarray], int]:
    """Activations of one episode by site, and how many episodes make a gigabyte."""
    block = np.random.default_rng(0).normal(size=(DECISIONS, WIDTH)).astype(given)
    sites = [np.roll(block, i, axis=1) for i in range(N_SITES)]
    return sites, round(GIGABYTE / total_bytes(stored, 1))


def total_bytes(stored: str, episodes: int) -> int:
    """Bytes of activations in a file."""
    return episodes * N_SITES * DECISIONS * WIDTH * np.dtype(stored).itemsize


def measure(writer: str, given: str, stored: str, folder: Path) -> tuple[float, float, float]:
    """MB/s written, MB/s on disk, peak MB of memory, of a new process."""
    path = folder / "bandwidth.h5"
    os.sync()
    command = [sys.executable, "-P", __file__, "child", writer, given, stored, str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    path.unlink()
    written, on_disk, n_bytes, peak = json.loads(done.stdout)
    return n_bytes / 1e6 / written, n_bytes / 1e6 / on_disk, peak


def main(folder: Path) -> None:
    """Print the table."""
    print(f"writer_bandwidth: 1 GB, {N_SITES} sites of {WIDTH}, median of {PAIRS} pairs, MB/s")
    print(f"{'':25}{'written':>26}{'on disk':>26}{'peak MB':>9}")
    print(
        f"{'':25}{'plain':>9}{'ours':>8}{'ratio':>9}{'plain':>9}{'ours':>8}{'ratio':>9}{'ours':>9}"
    )
    for name, (given, stored) in KINDS.items():
        pairs = [
            [measure(writer, given, stored, folder) for writer in ("plain", "ours")]
            for _ in range(PAIRS)
        ]
        line = f"{name:25}"
        for column in (0, 1):
            a, b = ([pair[i][column] for pair in pairs] for i in (0, 1))
            ratio = statistics.median(y / x for x, y in zip(a, b, strict=True))
            line += f"{statistics.median(a):9.0f}{statistics.median(b):8.0f}{ratio:9.2f}"
        print(f"{line}{max(pair[1][2] for pair in pairs):9.0f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        _, _, writer, given, stored, path = sys.argv
        times = {"plain": plain, "ours": ours}[writer](Path(path), given, stored)
        print(json.dumps([*times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3]))
    elif len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))

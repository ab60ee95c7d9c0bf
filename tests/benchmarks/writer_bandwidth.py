"""Bandwidth of TraceWriter against plain h5py appends of the same arrays, 1 GB of activations.

Asked: at least 70 % of plain h5py with under 300 MB of memory. Plain h5py appends every episode's
arrays to one dataset per site, in the same chunks, without checksums, statistics, crash safety or
any other table, and flushes after each episode; "sums" is the same with HDF5's checksums, which is
what they alone cost. Every measurement is a new process; the three take turns, and a ratio to plain
is the median over rounds. "written" ends when the system has everything, "on disk" when an fsync of
the closed file has returned; "CPU s" is that of all threads until then.

TraceWriter computes statistics on a second thread: where no core is idle, its ratio falls to that
of the CPU times.  For 1 GB of float16 plain h5py takes 0.7 CPU seconds, HDF5's checksums 0.3, the
statistics 0.85 (of float32: 0.3; half as many values, and none to convert from halves), tables and
flushes 0.3 to 0.6.  So checksums alone cost the 30 % that are allowed.  Chunks put
together and summed in numpy, and written past HDF5's filter, took between 6 % more and 13 % less
CPU time: no gain worth a second implementation of the checksum on the way to the disk.

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
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from traces.layout import CHUNK_BYTES
from traces.writer import TraceWriter

GIGABYTE = 10**9
N_SITES, WIDTH, DECISIONS = 16, 2560, 200  # sites, units of each, decisions of an episode
ROUNDS = 5
KINDS = {  # what is measured: type of the arrays given, type stored
    "float16 kept as float16": ("float16", "float16"),
    "float32 kept as float16": ("float32", "float16"),
    "float32 kept as float32": ("float32", "float32"),
}


def plain(path: Path, given: str, stored: str, sums: bool = False) -> tuple[float, ...]:
    """Seconds to write, seconds until it is on the disk, CPU seconds, bytes of activations."""
    block, episodes = episode(given, stored)
    rows = max(1, CHUNK_BYTES // (WIDTH * np.dtype(stored).itemsize))
    began, began_cpu = time.perf_counter(), time.process_time()
    with h5py.File(path, "x", libver=("v110", "v110")) as file:
        datasets = [
            file.create_dataset(
                f"site{i}",
                shape=(0, WIDTH),
                maxshape=(None, WIDTH),
                chunks=(rows, WIDTH),
                dtype=stored,
                fletcher32=sums,
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
    on_disk, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return written, on_disk, cpu, total_bytes(stored, episodes)


def ours(path: Path, given: str, stored: str) -> tuple[float, ...]:
    """Do the same with TraceWriter and everything else that it keeps."""
    names = runpy.run_path(str(Path(__file__).parents[1] / "traces" / "conftest.py"))
    block, episodes = episode(given, stored)
    site = replace(names["SITES"][0], shape=(WIDTH,), dtype=stored)
    sites = [replace(site, name=f"vlm.{i}.ffn_act", layer=i) for i in range(N_SITES)]
    record = names["make_record"](0, n_steps=DECISIONS, replan=1)
    record.activations = {s.name: values for s, values in zip(sites, block, strict=True)}
    record.objects = record.frames = record.sim_state = None
    began, began_cpu = time.perf_counter(), time.process_time()
    writer = TraceWriter(path, names["make_header"](), sites, keep_chain=False)
    for _ in range(episodes):
        writer.write_episode(record)
    written = time.perf_counter() - began
    writer.close()
    on_disk, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return written, on_disk, cpu, total_bytes(stored, episodes)


def episode(given: str, stored: str) -> tuple[list[np.ndarray], int]:
    """Activations of one episode by site, and how many episodes make a gigabyte."""
    block = np.random.default_rng(0).normal(size=(DECISIONS, WIDTH)).astype(given)
    sites = [np.roll(block, i, axis=1) for i in range(N_SITES)]
    return sites, round(GIGABYTE / total_bytes(stored, 1))


def total_bytes(stored: str, episodes: int) -> int:
    """Bytes of activations in a file."""
    return episodes * N_SITES * DECISIONS * WIDTH * np.dtype(stored).itemsize


WRITERS = {"plain": plain, "sums": partial(plain, sums=True), "ours": ours}


def measure(writer: str, given: str, stored: str, folder: Path) -> tuple[float, ...]:
    """MB/s written, MB/s on disk, CPU seconds, peak MB of memory, of a new process."""
    path = folder / "bandwidth.h5"
    os.sync()
    command = [sys.executable, "-P", __file__, "child", writer, given, stored, str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    path.unlink()
    written, on_disk, cpu_s, n_bytes, peak = json.loads(done.stdout)
    return n_bytes / 1e6 / written, n_bytes / 1e6 / on_disk, cpu_s, peak


def main(folder: Path) -> None:
    """Print the table."""
    print(f"writer_bandwidth: 1 GB, {N_SITES} sites of {WIDTH}, median of {ROUNDS} rounds, MB/s")
    print(f"{'':25}{'written':>7}{'ratio':>7}{'on disk':>9}{'ratio':>7}{'CPU s':>7}{'peak MB':>9}")
    for name, (given, stored) in KINDS.items():
        rounds = [
            {writer: measure(writer, given, stored, folder) for writer in WRITERS}
            for _ in range(ROUNDS)
        ]
        print(name)
        for writer in WRITERS:
            found = [statistics.median(r[writer][i] for r in rounds) for i in range(4)]
            ratios = [
                statistics.median(r[writer][i] / r["plain"][i] for r in rounds) for i in (0, 1)
            ]
            line = f"  {writer:23}{found[0]:7.0f}{ratios[0]:7.2f}{found[1]:9.0f}{ratios[1]:7.2f}"
            print(f"{line}{found[2]:7.2f}{found[3]:9.0f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        _, _, writer, given, stored, path = sys.argv
        times = WRITERS[writer](Path(path), given, stored)
        print(json.dumps([*times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3]))
    elif len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))

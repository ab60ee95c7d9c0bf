"""What a comparison of activations costs: CPU seconds and memory for each gigabyte of them.

Asked: moments and KS of 20 GB of activations within 4 CPU-minutes (12 s a GB, both sides together)
and under 1.5 GB of memory, CKA from at most 10,000 rows a layer. Two traces are generated (both
sides of a replay, 300 decisions an episode), in one process; they are compared in another, whose
CPU time and peak memory are reported. Moments and KS grow with the rows; CKA has a largest number
of rows, so it is timed apart and counted once a site:

    seconds of 20 GB = 20 * (seconds a GB without CKA) + sites * (seconds of CKA a site)

    python -P tests/benchmarks/shifts_speed.py [GB] [SITES] [UNITS]    default: 1 1 2560
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

GIGABYTE, TARGET_GB = 10**9, 20
DECISIONS = 300  # of an episode
TARGET_STEPS = 10**6


def generate(folder: Path, gigabytes: float, n_sites: int, units: int) -> None:
    """Write base.h5 and tuned.h5, together this large."""
    import runpy

    write = runpy.run_path(str(Path(__file__).parents[1] / "conftest.py"))["write_activations"]
    rng = np.random.default_rng(0)
    row = 2 * units * n_sites
    episodes = max(6, round(gigabytes * GIGABYTE / 2 / row / DECISIONS))
    names = [f"vlm.{i}.ffn_act" for i in range(n_sites)]
    block = {name: rng.normal(size=(DECISIONS, units)).astype(np.float16) for name in names}
    for file, shift, sha in (("base", 0.0, "ab" * 32), ("tuned", 0.1, "cd" * 32)):
        moved = {name: (v + np.float16(shift)) for name, v in block.items()}
        write(folder / f"{file}.h5", [moved] * episodes, sha256=sha)


def compare(folder: Path) -> dict[str, float]:
    """Seconds of CPU of a comparison and of its CKA, bytes read, and the peak of memory."""
    from analysis import site_shift
    from analysis.shifts import activation_shifts
    from traces.collection import open_traces

    spent = {"cka": 0.0}

    def timed(function):
        def inner(*arguments):
            began = time.process_time()
            result = function(*arguments)
            spent["cka"] += time.process_time() - began
            return result

        return inner

    site_shift.cka_beside_chance = timed(site_shift.cka_beside_chance)
    with open_traces(folder / "base.h5") as base, open_traces(folder / "tuned.h5") as tuned:
        began = time.process_time(), time.perf_counter()
        found = activation_shifts(base, tuned)
        cpu, wall = time.process_time() - began[0], time.perf_counter() - began[1]
        size = sum(
            2 * np.prod(one.activation(site.name).shape)
            for one in (base, tuned)
            for site in one.sites()
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rows = int(found.sites["cka_rows"].max())
    return {"cpu": cpu, "wall": wall, "bytes": int(size), "peak": peak, "rows": rows} | spent


def main() -> None:
    words = sys.argv[1:] + ["1", "1", "2560"][len(sys.argv) - 1 :]
    gigabytes, n_sites, units = float(words[0]), int(words[1]), int(words[2])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder, gigabytes, n_sites, units)
        child = [sys.executable, "-P", __file__, "--compare", str(folder)]
        found = json.loads(subprocess.run(child, check=True, capture_output=True).stdout)
    size = found["bytes"] / GIGABYTE
    each = (found["cpu"] - found["cka"]) / size
    cka = found["cka"] / n_sites
    sites = max(1, round(TARGET_GB * GIGABYTE / 2 / TARGET_STEPS / (2 * units)))
    print(
        f"{size:.2f} GB, {n_sites} sites of {units} units: {found['cpu']:.1f} s of CPU, "
        f"{found['wall']:.1f} s by the clock, peak memory {found['peak'] / GIGABYTE:.2f} GB"
    )
    print(f"moments and KS: {each:.2f} s a GB, so {TARGET_GB * each:.0f} s for {TARGET_GB} GB")
    print(
        f"CKA and its control: {cka:.1f} s a site from {found['rows']} rows; {TARGET_GB} GB of "
        f"{TARGET_STEPS:,} decisions a side are {sites} sites: {sites * cka:.0f} s"
    )
    episodes = TARGET_STEPS / DECISIONS
    sums = episodes * units * 24 / 1e6
    print(f"in that peak, sums of the episodes; those of {episodes:.0f} a side take {sums:.0f} MB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--compare"]:
        print(json.dumps(compare(Path(sys.argv[2]))))
    else:
        main()

"""Open a recording of 200 shards with a million control steps and list its episodes.

Asked: under 1 s and 300 MB. Each reader runs in a new process, with the files in the page cache;
the time to import it is told apart.

    python -P tests/benchmarks/open_shards.py [FOLDER]    FOLDER: keep the shards there
"""

import json
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from traces.shards import Rotation, ShardedWriter

BUILDERS = Path(__file__).parents[1] / "traces" / "conftest.py"
SHARDS, EPISODES, STEPS = 200, 25, 200  # episodes of a shard, control steps of an episode
SITES, WIDTH = 16, 64
RUNS = 5

READERS = {
    "open_traces": """
from traces import open_traces
began = clock()
with open_traces(folder) as traces:
    episodes = traces.episodes("uid", "success", "n_steps")
shown = len(episodes["uid"]), int(episodes["n_steps"].sum())
""",
    "open_traces, all columns": """
from traces import open_traces
began = clock()
with open_traces(folder) as traces:
    episodes = traces.episodes()
shown = len(episodes["uid"]), int(episodes["n_steps"].sum())
""",
    "vla-tui's library": """
from pathlib import Path
import numpy, h5py, analysis.motion, analysis.opening, analysis.stats
from tui.data.library import Library
began = clock()
library = Library(Path(folder))
(run,) = library.poll(time.time(), budget_s=1e9)
shown = run.done, sum(episode.n_steps for episode in run.episodes)
""",
    "vla-trace analyze": """
import sys
from analysis.outcome import analyse
began = clock()
(condition,) = analyse([folder]).conditions
shown = condition.episodes, 0
""",
}
"""What a child runs; `shown` is (episodes, steps)."""

CHILD = """
import json, resource, sys, time
clock, folder = time.perf_counter, sys.argv[1]
started = clock()
{reader}
ended = clock()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print(json.dumps([began - started, ended - began, peak, *shown]))
"""


def build(folder: Path) -> None:
    """Write the shards."""
    names = runpy.run_path(str(BUILDERS))
    sites = [
        replace(names["SITES"][0], name=f"vlm.{i}.ffn_act", layer=i, shape=(WIDTH,))
        for i in range(SITES)
    ]
    record = names["make_record"](0, n_steps=STEPS, replan=5)
    values = np.zeros((STEPS // 5, WIDTH), np.float32)
    record.activations = {site.name: values for site in sites}
    record.frames = record.sim_state = None
    with ShardedWriter(
        folder / "lift-baseline.h5",
        names["make_header"](intervention=None),
        sites,
        rotation=Rotation(episodes=EPISODES),
        keep_chain=False,
        object_names=names["OBJECT_NAMES"],
    ) as writer:
        writer.write_policy(0, 0, "ab" * 32, "smolvla-tabletop")
        for number in range(SHARDS * EPISODES):
            record.episode |= {
                "uid": f"run/u00000/g{number:04d}/a00/m000",
                "pair_key": f"tabletop/0/s{number}",
                "scene_seed": number,
            }
            writer.write_episode(record)


def measure(reader: str, folder: Path) -> list[float]:
    """Seconds to import, seconds to read, peak MB, episodes, steps; in a new process."""
    code = CHILD.format(reader=READERS[reader])
    command = [sys.executable, "-P", "-c", code, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main(folder: Path) -> None:
    """Build the shards where there are none, and print the table."""
    if not any(folder.glob("*.h5")):
        began = time.perf_counter()
        build(folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"wrote them in {time.perf_counter() - began:.0f} s, peak {peak:.0f} MB")
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"open_shards: {SHARDS} shards, {size:.0f} MB; median of {RUNS} new processes")
    print(
        f"{'reader':28}{'import s':>10}{'read s':>9}{'max':>7}{'MB':>6}{'episodes':>10}{'steps':>9}"
    )
    for reader in READERS:
        runs = [measure(reader, folder) for _ in range(RUNS + 1)][1:]
        columns = list(zip(*runs, strict=True))
        imported, read, peak, episodes, steps = map(statistics.median, columns)
        print(
            f"{reader:28}{imported:10.2f}{read:9.2f}{max(columns[1]):7.2f}{peak:6.0f}"
            f"{episodes:10.0f}{steps:9.0f}"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))

"""Tables of motion and outcome from a million control steps, beside a plain h5py read.

Asked: at least 60 % of the rate at which h5py reads the same columns, files opened and closed in
both. Each runs in a new process, with the files in the page cache; the time to import is told
apart. Two layouts: 200 shards, and the 20 that recordings with 20 GB of activations rotate into.

    python -P tests/benchmarks/analyze_motion.py [FOLDER]    FOLDER: keep the shards there
"""

import json
import runpy
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from traces.shards import Rotation, ShardedWriter

BUILDERS = Path(__file__).parents[1] / "traces" / "conftest.py"
EPISODES, STEPS, POLICIES = 5000, 200, 2
LAYOUTS = (200, 20)
"""Shards of all policies together."""
RUNS = 3

IDENTITY = (
    *("uid", "session", "policy_version", "suite", "task_id", "task_name", "instruction"),
    *("pair_key", "first_step", "n_steps", "success", "return", "final_ee_pos", "error"),
)
EPISODE_COLUMNS = [f"episodes/{name}" for name in IDENTITY]
STEP_COLUMNS = ["steps/ee_pos", "steps/action", "steps/contact"]

PLAIN = """
import h5py
from pathlib import Path
began, cpu = clock(), time.process_time()
for path in sorted(Path(folder).glob("*.h5")):
    with h5py.File(path, "r", locking=False) as file:
        for column in {columns}:
            file[column][:]
shown = 0
"""

READERS = {
    "motion: plain h5py": PLAIN.format(columns=EPISODE_COLUMNS + STEP_COLUMNS),
    "motion: motion_table": """
from analysis.motion_table import motion_table
began, cpu = clock(), time.process_time()
shown = len(motion_table([folder]))
""",
    "motion: with its summary": """
from analysis.report_tables import tables
began, cpu = clock(), time.process_time()
shown = len(tables("motion", [folder]).frames["motion"])
""",
    "outcome: plain h5py": PLAIN.format(columns=EPISODE_COLUMNS),
    "outcome: fine_tuning_table": """
from analysis.fine_tuning import fine_tuning_table
began, cpu = clock(), time.process_time()
shown = len(fine_tuning_table([folder]))
""",
    "open_traces alone": """
from traces import open_traces
began, cpu = clock(), time.process_time()
with open_traces(folder) as traces:
    shown = traces.n_episodes
""",
}
"""What a child runs; `shown` is how many rows it made."""

CHILD = """
import json, resource, sys, time
clock, folder = time.perf_counter, sys.argv[1]
started = clock()
{reader}
ended, used = clock(), time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print(json.dumps([began - started, ended - began, used, peak, shown]))
"""


def build(folder: Path, shards: int) -> None:
    """Write the shards: a base and a fine-tuned policy that played the same scenes."""
    names = runpy.run_path(str(BUILDERS))
    rng = np.random.default_rng(0)
    per_policy = EPISODES // POLICIES
    for policy in range(POLICIES):
        record = names["make_record"](0, n_steps=STEPS, replan=5)
        record.activations, record.frames, record.sim_state = {}, None, None
        header = names["make_header"](
            intervention=None,
            run_id=f"run{policy}",
            suite={"name": "tabletop", "control_hz": 20},
        )
        with ShardedWriter(
            folder / f"lift-policy{policy}.h5",
            header,
            [],
            rotation=Rotation(episodes=EPISODES // shards),
            keep_chain=False,
            object_names=names["OBJECT_NAMES"],
        ) as writer:
            writer.write_policy(0, 0, f"{policy}" * 64, f"policy{policy}")
            for number in range(per_policy):
                path_m = np.cumsum(rng.normal(0, 0.01, (STEPS + 1, 3)), axis=0)
                record.steps |= {"ee_pos": path_m[:-1], "contact": rng.random(STEPS) < 0.3}
                record.episode |= {
                    "uid": f"run{policy}/u00000/g{number:04d}/a00/m000",
                    "pair_key": f"tabletop/0/s{number}",
                    "scene_seed": number,
                    "final_ee_pos": path_m[-1],
                    "success": bool(rng.random() < 0.4 + 0.1 * policy),
                }
                writer.write_episode(record)


def measure(reader: str, folder: Path) -> list[float]:
    """Seconds to import, seconds, CPU seconds, peak MB, rows; in a new process."""
    command = [sys.executable, "-P", "-c", CHILD.format(reader=READERS[reader]), str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main(folder: Path) -> None:
    """Build the shards where there are none, and print a table for each layout."""
    for shards in LAYOUTS:
        place = folder / f"{shards}-shards"
        place.mkdir(exist_ok=True)
        if not any(place.glob("*.h5")):
            build(place, shards)
        size = sum(path.stat().st_size for path in place.iterdir()) / 1e6
        print(
            f"analyze_motion: {EPISODES * STEPS} steps in {shards} shards, {size:.0f} MB; "
            f"median of {RUNS} new processes"
        )
        print(
            f"{'reader':28}{'import s':>10}{'s':>8}{'CPU s':>8}{'MB':>6}{'rows':>8}{'of plain':>10}"
        )
        plain = {}
        # One of each in turn, so that a busy machine is busy for all of them.
        runs = [{reader: measure(reader, place) for reader in READERS} for _ in range(RUNS + 1)][1:]
        for reader in READERS:
            columns = list(zip(*(run[reader] for run in runs), strict=True))
            imported, seconds, cpu, peak, rows = map(statistics.median, columns)
            what = reader.partition(":")[0]
            plain.setdefault(what, cpu)
            share = f"{plain[what] / cpu:9.0%}" if what in ("motion", "outcome") else ""
            print(
                f"{reader:28}{imported:10.2f}{seconds:8.2f}{cpu:8.2f}{peak:6.0f}{rows:8.0f} {share}"
            )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))

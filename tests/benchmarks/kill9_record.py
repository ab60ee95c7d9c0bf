"""The real `vla-trace record`, killed with SIGKILL at random instants; what `repair` makes of it.

    python -P tests/benchmarks/kill9_record.py [RUNS] [SEED]

Every run is killed at an instant drawn over the time that a whole one takes.  Afterwards each
unfinished file is repaired and each file checked, by the commands themselves, and the episodes are
compared with those that the run's events log announced: none of these may be missing.
"""

import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from traces.events import read_events
from traces.reader import TraceReader

SCRIPT = Path(sys.executable).with_name("vla-trace")
RECORD = ("record", "--steer", "fast", "--episodes", "16", "--replan", "5", "--shard-episodes", "8")
COLUMNS = ("run", "killed s", "files", "partial", "announced", "saved", "lost", "check", "repair s")


def started(folder, name):
    """Start a recording and wait until its log begins."""
    log = folder / "runs" / name / "events.jsonl"
    process = subprocess.Popen(
        [SCRIPT, *RECORD, "--name", name],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (log.exists() and read_events(log)):
        if process.poll() is not None:
            raise SystemExit("vla-trace record ended before it began")
        time.sleep(0.02)
    return process, log


def command(*arguments):
    """Run one of our commands; return its exit code and what it printed."""
    done = subprocess.run([SCRIPT, *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, done.stdout


def uids(path):
    """Return the uids of a closed trace."""
    with TraceReader(path) as trace:
        return trace.episodes("uid")["uid"].tolist()


def killed(folder, name, after_s):
    """Record, kill, repair and check; return one row of the table."""
    process, log = started(folder, name)
    time.sleep(after_s)
    ended = process.poll() is not None
    if not ended:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # its workers notice that it is gone
    announced = [event["uid"] for event in read_events(log) if event["type"] == "episode"]
    left = sorted((folder / "traces").glob(f"*{name}*.h5*"))
    left = [path for path in left if path.suffix != ".new"]  # not yet begun: it holds nothing
    saved, bad, repair_s = [], 0, 0.0
    for path in left:
        if path.suffix == ".partial":
            began = time.monotonic()
            code, out = command("repair", path, "--json")
            repair_s += time.monotonic() - began
            if code:
                bad += 1
                continue
            path = Path(json.loads(out)["new"])
        bad += command("check", path)[0] != 0
        saved += uids(path)
    lost = len(set(announced) - set(saved)) + len(saved) - len(set(saved))
    when = "ended" if ended else f"{after_s:.2f}"
    partial = sum(path.suffix == ".partial" for path in left)
    numbers = (len(left), partial, len(announced), len(saved), lost, bad, f"{repair_s:.2f}")
    return (name, when, *numbers)


def main():
    """Kill, repair, print one table; exit code 1 when an episode or a file was lost."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process, _ = started(folder, "whole")
        began = time.monotonic()
        process.wait()
        whole_s = time.monotonic() - began
        print(
            f"kill9_record on {platform.machine()}, {os.cpu_count()} cores, seed {seed}: ", end=""
        )
        print(f"vla-trace {' '.join(RECORD)}, {whole_s:.0f} s when it is left alone")
        print("".join(f"{column:>11}" for column in COLUMNS))
        rows = []
        for number in range(runs):
            rows.append(killed(folder, f"k{number:02d}", rng.uniform(0, whole_s)))
            print("".join(f"{cell:>11}" for cell in rows[-1]), flush=True)
        lost, bad = (sum(row[place] for row in rows) for place in (6, 7))
        print(
            f"{sum(row[1] != 'ended' for row in rows)} runs killed, {sum(r[2] for r in rows)} files"
        )
        print(f"{bad} files unreadable after repair, {lost} announced episodes lost")
    return 1 if lost or bad else 0


if __name__ == "__main__":
    sys.exit(main())

"""Writers killed at random instants; `tests/benchmarks/kill9.py` kills two hundred."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_was_written_outlives_the_writer():
    command = [sys.executable, "-P", "tests/benchmarks/kill9.py", "15"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counted = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines()[-9:])
    assert counted["killed"] == "15"
    assert int(counted["episodes reported"]) >= 15
    assert int(counted["files read"]) >= 15
    assert counted["unreadable or wrong"] == "0", done.stdout
    assert counted["episodes lost"] == "0"

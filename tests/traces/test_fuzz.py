"""Some of the damaged traces of `tests/fuzz`; `make fuzz` makes five thousand."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CASES = 30


def test_no_damage_stops_a_reader():
    command = [sys.executable, "tests/fuzz", str(CASES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"fuzz: {CASES} damaged traces" in done.stdout

"""Milliseconds from the shell to the end of light commands. Asked: --help at most 150 ms."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent
RUNS = 15
RECORDED = Path(__file__).parents[1] / "tui" / "recorded" / "traces"
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "vla-trace --help": [BIN / "vla-trace", "--help"],
    "vla-trace --version": [BIN / "vla-trace", "--version"],
    "vla-trace record --help": [BIN / "vla-trace", "record", "--help"],
    "vla-tui --help": [BIN / "vla-tui", "--help"],
    "vla-trace analyze (8 episodes)": [BIN / "vla-trace", "analyze", RECORDED],
}


def milliseconds(command: list) -> list[float]:
    """Wall time of each run, sorted; one run before, to warm the file cache."""
    times = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(1000 * (time.perf_counter() - began))
    return sorted(times[1:])


if __name__ == "__main__":
    print(f"startup: ms, {RUNS} runs")
    print(f"{'command':32}{'min':>8}{'median':>8}{'max':>8}")
    for name, command in COMMANDS.items():
        times = milliseconds(command)
        print(f"{name:32}{times[0]:8.0f}{statistics.median(times):8.0f}{times[-1]:8.0f}")

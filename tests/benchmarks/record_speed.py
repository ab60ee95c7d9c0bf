"""Episodes a minute and control steps a second of `record`, by replanning and workers.

One process, policy and environments warm; 16 episodes of `lift_cube` a row, baseline condition.
Steps are those of all eight environments together.
"""

import os
import platform
import tempfile
import time
from pathlib import Path

from engine.config import RecordConfig
from engine.policies.smolvla import EMBEDDED, load_policy
from engine.record import record
from traces.reader import TraceReader

EPISODES = 16

if __name__ == "__main__":
    loaded = load_policy(EMBEDDED)
    print(
        f"record_speed on {platform.machine()}, {os.cpu_count()} cores, {EPISODES} episodes a row"
    )
    print(f"{'replan':>8}{'workers':>8}{'ep/min':>9}{'steps/s':>9}{'ms/call':>9}{'kB/ep':>8}")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for replan in (1, 5):
            for workers in (1, 2):
                config = RecordConfig(episodes=EPISODES, replan=replan, workers=workers)
                began = time.perf_counter()
                (path,) = record(config, loaded, [None], f"r{replan}w{workers}")
                seconds = time.perf_counter() - began
                with TraceReader(path) as trace:
                    steps = trace.n_steps
                    ms = float(trace.decisions("policy_ms")["policy_ms"].mean())
                size = Path(path).stat().st_size / EPISODES / 1000
                print(
                    f"{replan:8}{workers:8}{60 * EPISODES / seconds:9.1f}{steps / seconds:9.0f}"
                    f"{ms:9.1f}{size:8.0f}"
                )

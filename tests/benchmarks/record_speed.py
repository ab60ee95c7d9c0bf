"""Episodes a minute and control steps a second of `record`, by replanning and workers.

Baseline condition of `put_two_cubes_in_bowl`, the longest task. The first block of eight episodes
warms up and is not counted; steps are those of all eight environments together.
"""

import os
import platform
import tempfile
import time
from pathlib import Path

from engine.config import RecordConfig
from engine.policies.smolvla import EMBEDDED, load_policy
from engine.record import record
from traces.condition import BASELINE
from traces.reader import TraceReader

WARM, COUNTED = 8, 16

if __name__ == "__main__":
    loaded = load_policy(EMBEDDED)
    print(f"record_speed on {platform.machine()}, {os.cpu_count()} cores, {COUNTED} episodes")
    print(f"{'replan':>8}{'workers':>8}{'ep/min':>9}{'steps/s':>9}{'ms/call':>9}{'kB/ep':>8}")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for replan in (1, 5):
            for workers in (1, 2):
                config = RecordConfig(
                    task_id=3, episodes=WARM + COUNTED, replan=replan, workers=workers
                )
                ends: list[float] = []

                def listen(kind: str, fields: dict, ends: list[float] = ends) -> None:
                    if kind == "episode":
                        ends.append(time.perf_counter())

                (path,) = record(config, loaded, [BASELINE], f"r{replan}w{workers}", listen)
                seconds = ends[-1] - ends[WARM - 1]
                with TraceReader(path) as trace:
                    steps = int(trace.episodes("n_steps")["n_steps"][WARM:].sum())
                    ms = float(trace.decisions("policy_ms")["policy_ms"].mean())
                size = Path(path).stat().st_size / config.episodes / 1000
                print(
                    f"{replan:8}{workers:8}{60 * COUNTED / seconds:9.1f}{steps / seconds:9.0f}"
                    f"{ms:9.1f}{size:8.0f}"
                )

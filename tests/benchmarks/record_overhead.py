"""What recording costs: rollouts with `standard` capture and a trace against rollouts without.

Asked: at most 5 % more wall time. All arms run the same blocks of eight episodes of the embedded
policy in the same process, one after the other in changing order; the ratio is the median over
blocks. Then the sites of the full-size policy, 32 x 2560 + 32 x 1280 + 32 x 960 units, for 16
environments, without a policy: bytes and time of a decision, memory, and what was spilled.
"""

import json
import os
import platform
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from traces.shards import Rotation, ShardedWriter
from traces.spool import Spill

BLOCKS = 10
TASK = 3  # put_two_cubes_in_bowl, the longest
FULL_SITES = {2560: 32, 1280: 32, 960: 32}  # units of a site: number of such sites
ENVIRONMENTS, DECISIONS = 16, 120
ARMS = ("off", "capture", "capture + trace")


class NoCapture:
    """Stands in for `engine.capture.Capture` and records nothing."""

    sites = ()

    @contextmanager
    def recording(self, prefix_mask: object) -> Iterator[Callable[[], dict]]:
        """Yield what returns no activations."""
        yield dict


def overhead() -> None:
    """Print the cost of each arm."""
    from engine.actor import BATCH, Actor
    from engine.config import RecordConfig
    from engine.envs import load_suite
    from engine.envs.vector import VectorEnv
    from engine.likelihoods.flow_sde import FlowSDE
    from engine.policies.smolvla import EMBEDDED, load_policy
    from engine.record import SPILL_BYTES, episode_plans
    from engine.rollout import run_block
    from engine.trace_header import trace_header
    from traces.condition import BASELINE

    config = RecordConfig(task_id=TASK, episodes=BATCH * (BLOCKS + 1), shard_seconds=0)
    loaded = load_policy(EMBEDDED)
    actor = Actor(loaded, FlowSDE(loaded.policy.config.num_steps, config.noise_level))
    capture = {"off": NoCapture()} | dict.fromkeys(ARMS[1:], actor.capture)
    plans = episode_plans(config, "overhead", BASELINE)
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    calls = []
    with (
        tempfile.TemporaryDirectory() as folder,
        VectorEnv(config.suite, TASK, BATCH, config.workers) as env,
    ):
        path = Path(folder) / "a.h5"
        writer = ShardedWriter(
            path,
            trace_header(config, BASELINE, actor, "overhead", "record"),
            actor.capture.sites,
            rotation=Rotation(bytes=config.shard_bytes),
            object_names=load_suite(config.suite).OBJECT_NAMES,
        )
        for block in range(BLOCKS + 1):
            chosen = plans[block * BATCH : (block + 1) * BATCH]
            for arm in ARMS[block % 3 :] + ARMS[: block % 3]:
                actor.capture = capture[arm]
                began = time.perf_counter()
                records = run_block(env, actor, chosen, Spill(SPILL_BYTES, folder))
                if arm == ARMS[-1]:
                    for record, _ in records:
                        writer.write_episode(record)
                seconds[arm].append(time.perf_counter() - began)
            calls.append(max(len(record.decisions["t"]) for record, _ in records))
        began = time.perf_counter()
        writer.close()
        closing = time.perf_counter() - began
        size = path.stat().st_size
    print(f"record_overhead on {platform.machine()}, {os.cpu_count()} cores: {BLOCKS} blocks")
    print(f"{'arm':18}{'ms/call':>9}{'ratio':>8}{'low':>8}{'high':>8}")
    for arm in ARMS:  # the first block warms up
        ratios = [a / b for a, b in zip(seconds[arm][1:], seconds["off"][1:], strict=True)]
        ms = 1000 * statistics.median(
            s / n for s, n in zip(seconds[arm][1:], calls[1:], strict=True)
        )
        low, high = min(ratios), max(ratios)
        print(f"{arm:18}{ms:9.1f}{statistics.median(ratios):8.3f}{low:8.3f}{high:8.3f}")
    print(f"closing the trace of {size / 1e6:.0f} MB, fsync included: {closing:.2f} s")


def full_size(folder: Path) -> dict[str, float]:
    """Collect and write one block of 16 environments; measured in a process of its own."""
    names = runpy.run_path(str(Path(__file__).parents[1] / "traces" / "conftest.py"))
    site, rng = names["SITES"][0], np.random.default_rng(0)
    sites = [
        replace(site, name=f"site.{width}.{i}", shape=(width,))
        for width, count in FULL_SITES.items()
        for i in range(count)
    ]
    rows = {s.name: rng.normal(size=s.shape).astype(np.float32) for s in sites}
    baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    spill = Spill(256 * 2**20, folder)
    spools = [{s.name: spill.spool(s.shape, "float32") for s in sites} for _ in range(ENVIRONMENTS)]
    began = time.perf_counter()
    for _ in range(DECISIONS):
        for environment in spools:
            for name, row in rows.items():
                environment[name].append(row)
    collected = time.perf_counter() - began
    record = names["make_record"](0, n_steps=DECISIONS, replan=1)
    record.objects = record.frames = record.sim_state = None
    path = folder / "full.h5"
    began = time.perf_counter()
    with ShardedWriter(path, names["make_header"](), sites, keep_chain=False) as writer:
        for environment in spools:
            record.activations = environment
            writer.write_episode(record)
        written = time.perf_counter() - began
    decisions = ENVIRONMENTS * DECISIONS
    return {
        "bytes a decision in the file": path.stat().st_size / decisions,
        "bytes a decision while it waits": 4.0 * sum(w * n for w, n in FULL_SITES.items()),
        "ms a decision to collect": 1000 * collected / decisions,
        "ms a decision to write": 1000 * written / decisions,
        "MB spilled": spill.spilled_bytes / 1e6,
        "MB of memory before": baseline,
        "MB of memory at most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        print(json.dumps(full_size(Path(sys.argv[2]))))
    else:
        overhead()
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-P", __file__, "child", folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(f"full size: {ENVIRONMENTS} environments, {DECISIONS} decisions each")
        for name, value in json.loads(done.stdout).items():
            print(f"{name:34}{value:12,.2f}")

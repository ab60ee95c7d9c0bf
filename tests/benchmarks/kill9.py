"""Kill recordings with SIGKILL at random instants and read what is left.

Asked: of 200 kills, every file that is left opens and holds every episode whose write had returned
before the kill, with the values that were given; closed shards are intact.

    python -P tests/benchmarks/kill9.py [KILLS]
"""

import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from traces.errors import UserError
from traces.reader import TraceReader
from traces.shards import Rotation, ShardedWriter

BUILDERS = runpy.run_path(str(Path(__file__).parents[1] / "traces" / "conftest.py"))
KILLS = 200
EPISODES_PER_SHARD = 6
LONGEST_S = 0.6  # of a writer's life after its first episode
WIDE = 2000  # units of the largest site: an episode's rows begin and end within large chunks

SITES = (*BUILDERS["SITES"], replace(BUILDERS["SITES"][0], name="vlm.2.ffn_act", shape=(WIDE,)))


def records(count: int) -> list:
    """Episodes of different lengths, made once and written by every process."""
    found = []
    for number in range(count):
        record = BUILDERS["make_record"](number, n_steps=5 + 17 * number % 60)
        rows = np.random.default_rng(number).normal(size=(len(record.decisions["t"]), WIDE))
        record.activations[SITES[-1].name] = rows.astype(np.float16)
        found.append(record)
    return found


def write(path: Path, pool: list, report: int) -> None:
    """Write episodes until killed; report each when its write has returned."""
    with ShardedWriter(
        path,
        BUILDERS["make_header"](),
        SITES,
        rotation=Rotation(episodes=EPISODES_PER_SHARD),
        object_names=BUILDERS["OBJECT_NAMES"],
        cameras=("agentview",),
        keep_sim_state=True,
    ) as writer:
        writer.write_policy(0, 0)
        number = 0
        while True:
            record = pool[number % len(pool)]
            record.episode["uid"] = f"run/{number:06d}"
            writer.write_episode(record)
            os.write(report, b".")
            number += 1


def kill_one(folder: Path, pool: list, rng: random.Random) -> int:
    """Fork a writer, kill it at a random instant; return the number of episodes it reported."""
    reader, report = os.pipe()
    writer = os.fork()
    if writer == 0:
        try:
            os.close(reader)
            write(folder / "a.h5", pool, report)
        finally:
            os._exit(1)  # only reached when the writer failed by itself
    os.close(report)
    reported = os.read(reader, 1)
    time.sleep(rng.uniform(0, LONGEST_S))
    os.kill(writer, signal.SIGKILL)
    _, status = os.waitpid(writer, 0)
    if os.WTERMSIG(status) != signal.SIGKILL:
        raise RuntimeError(f"the writer ended by itself: status {status}")
    while more := os.read(reader, 65536):
        reported += more
    os.close(reader)
    return len(reported)


def read_back(folder: Path, pool: list) -> tuple[int, list[str]]:
    """Return how many episodes the files hold, and what is wrong with any of them."""
    number, wrong = 0, []
    for path in sorted(folder.glob("*.h5*"), key=lambda p: (p.suffix == ".partial", p.name)):
        if path.suffix == ".new":
            continue
        try:
            with TraceReader(path) as trace:
                for episode in range(trace.n_episodes):
                    _compare(trace, episode, pool[number % len(pool)], f"run/{number:06d}")
                    number += 1
        except (UserError, OSError, AssertionError) as error:
            wrong.append(f"{path.name}: {' '.join(str(error).split())}")
    return number, wrong


def _compare(trace: TraceReader, episode: int, record: object, uid: str) -> None:
    """Check every column of an episode that was given."""
    assert trace.episodes("uid")["uid"][episode] == uid
    for table in ("steps", "decisions"):
        columns = getattr(trace, table)(episode=episode)
        for name, given in getattr(record, table).items():
            if name != "decision":
                np.testing.assert_array_equal(columns[name], given, f"{table}/{name}")
    for site, given in record.activations.items():
        found = trace.activation(site, episode=episode)
        np.testing.assert_array_equal(found, given.astype(found.dtype), site)
    assert trace.frames("agentview", episode=episode)[1] == record.frames["agentview"][1]
    found = trace.sim_states(episode=episode)[1]
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(record.sim_state[1]))
    np.testing.assert_array_equal(trace.objects(episode=episode)["pos"], record.objects["pos"])


def run(kills: int, seed: int = 0) -> Counter:
    """Kill so many writers; count what became of them, and print what went wrong."""
    rng, pool, totals = random.Random(seed), records(8), Counter()
    for number in range(kills):
        folder = Path(tempfile.mkdtemp())
        reported = kill_one(folder, pool, rng)
        found, wrong = read_back(folder, pool)
        names = [path.name for path in folder.iterdir()]
        totals["killed"] += 1
        totals["files read"] += sum(not name.endswith(".new") for name in names)
        totals["closed shards"] += sum(name.endswith(".h5") for name in names)
        totals["partial files"] += sum(name.endswith(".partial") for name in names)
        totals["unreadable or wrong"] += len(wrong)
        totals["episodes reported"] += reported
        totals["episodes found"] += found
        totals["episodes lost"] += max(0, reported - found)
        totals["whole but unreported"] += max(0, found - reported)
        for message in wrong:
            print(f"kill {number}: {message}")
        shutil.rmtree(folder)
    return totals


if __name__ == "__main__":
    began = time.perf_counter()
    totals = run(int(sys.argv[1]) if len(sys.argv) > 1 else KILLS)
    print(f"kill9: {time.perf_counter() - began:.0f} s")
    for name, count in totals.items():
        print(f"{name:24}{count:8}")

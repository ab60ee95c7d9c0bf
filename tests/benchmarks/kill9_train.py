"""`vla-trace train`, killed with SIGKILL at random instants and resumed: the same bits at the end?

    python -P tests/benchmarks/kill9_train.py [RUNS] [FORKS] [SEED]

RUNS kills hit the real command, FORKS a forked child of this process, which has everything imported
and so spends its time in training. Each run is killed at an instant drawn over the time that a
whole one takes, resumed, and its weights compared with those of a run that nothing disturbed. The
updates that its events log announced must all be there.
"""

import hashlib
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from engine.config import TrainConfig
from engine.policies.smolvla import EMBEDDED, load_policy
from engine.train import train
from traces.events import read_events

SCRIPT = Path(sys.executable).with_name("vla-trace")
UPDATES = 3
TINY = {
    "updates": UPDATES,
    "groups": 1,
    "group_size": 4,
    "attempts": 2,
    "slots": 8,
    "workers": 1,
    "eval_every": 0,
    "eval_episodes": 1,
    "forgetting": False,
    "traces": 1,
}
OPTIONS = ["--no-forgetting"] + [
    text
    for name, value in TINY.items()
    if name != "forgetting"
    for text in (f"--{name.replace('_', '-')}", str(value))
]


def command(name, resume=False):
    """Start the real command."""
    arguments = ["--resume", name] if resume else ["--name", name, *OPTIONS]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([SCRIPT, "train", *arguments], **quiet)


def forked(name, resume):
    """Train in a child of this process; returns its id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(TrainConfig(**TINY), load_policy(EMBEDDED), name, resume)
            code = 0
        finally:
            os._exit(code)
    return child


def weights(name):
    """SHA-256 of the last policy."""
    path = Path(f"runs/{name}/checkpoints/{UPDATES:06d}/pretrained_model/model.safetensors")
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "none"


def announced(name):
    """Updates that the log says are done."""
    log = Path(f"runs/{name}/events.jsonl")
    return {e["update"] for e in read_events(log) if e["type"] == "step"} if log.exists() else set()


def killed(name, after_s, fork):
    """Start, kill, resume; returns whether the run was hit and what its weights are."""
    began = time.monotonic()
    pid = forked(name, resume=False) if fork else command(name).pid
    hit = True
    while time.monotonic() - began < after_s:
        if os.waitpid(pid, os.WNOHANG)[0]:
            hit = False
            break
        time.sleep(0.01)
    if hit:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    before = announced(name)
    has_begun = Path(f"runs/{name}/config.yaml").exists()
    if hit and not has_begun:
        return "before it began", "", True
    if fork:
        os.waitpid(forked(name, resume=True), 0)
    else:
        command(name, resume=True).wait()
    return ("hit" if hit else "ended"), weights(name), before <= announced(name)


def main():
    """Kill, resume, compare, print one table; exit code 1 when a run differs."""
    runs, forks, seed = (int(a) for a in (sys.argv[1:] + ["15", "100", "0"][len(sys.argv) - 1 :]))
    rng = random.Random(seed)
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        print(
            f"kill9_train on {platform.machine()}, {os.cpu_count()} cores, seed {seed}: "
            f"vla-trace train {' '.join(OPTIONS)}"
        )
        for fork, n in ((False, runs), (True, forks)):
            if not n:
                continue
            kind = "forked" if fork else "command"
            began = time.monotonic()
            name = f"whole-{kind}"
            if fork:
                os.waitpid(forked(name, resume=False), 0)
            else:
                command(name).wait()
            whole_s, expected = time.monotonic() - began, weights(name)
            print(f"{kind}: {whole_s:.0f} s when it is left alone, weights {expected[:12]}")
            for i in range(n):
                after = rng.uniform(0, whole_s)
                what, found, kept = killed(f"{kind}-{i:03d}", after, fork)
                same = not found or found == expected
                bad += not (same and kept)
                verdict = "same" if same and kept else "DIFFERENT"
                print(
                    f"{kind:>9}{i:5}{after:9.2f} s  {what:16}{found[:12]:14}{verdict}", flush=True
                )
    print(f"{bad} of {runs + forks} runs lost something")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

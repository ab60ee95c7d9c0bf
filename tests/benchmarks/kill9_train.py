"""`vla-trace train`, killed with SIGKILL at random instants and resumed: the same bits at the end?

    python -P tests/benchmarks/kill9_train.py [RUNS] [FORKS] [SEED]

RUNS kills hit the real command, FORKS forked children of this process, which has all imported.
Each run is killed at an instant drawn over the time from its `config.yaml` (before that there is
nothing to resume) to the end of a whole one, resumed, and its weights compared with those of a run
that nothing disturbed. The updates that its events log announced must all be there. A run that
ended before its instant came is not counted: another one is started.
"""

import hashlib
import importlib
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from traces.events import read_events

SCRIPT = Path(sys.executable).with_name("vla-trace")
UPDATES = 3
TINY = {
    "updates": UPDATES,
    "groups": 1,
    "group_size": 2,
    "attempts": 1,
    "slots": 2,
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
    """Start the real command; returns its process id."""
    arguments = ["--resume", name] if resume else ["--name", name, *OPTIONS]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([SCRIPT, "train", *arguments], **quiet).pid


def forked(name, resume=False):
    """Train in a child of this process; returns its id."""
    from engine.config import TrainConfig
    from engine.policies.smolvla import EMBEDDED, load_policy
    from engine.train import train

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


def has_ended(pid):
    """Whether a child is over."""
    return os.waitpid(pid, os.WNOHANG)[0] != 0


def wait_for_begin(pid, name):
    """Wait for the first file of a run; returns when that was, None if the child ended before."""
    while not Path(f"runs/{name}/config.yaml").exists():
        if has_ended(pid):
            return None
        time.sleep(0.005)
    return time.monotonic()


def kill_and_resume(start, name, after_s):
    """Kill a run so long after its begin, resume it; returns whether it was hit and kept all."""
    pid = start(name)
    began = wait_for_begin(pid, name)
    while began and time.monotonic() - began < after_s:
        if has_ended(pid):
            began = None
        time.sleep(0.005)
    if not began:
        return False, True
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    before = announced(name)
    os.waitpid(start(name, resume=True), 0)
    return True, before <= announced(name)


def main():
    """Kill, resume, compare, print one table; exit code 1 when a run differs."""
    importlib.import_module("engine.train")  # not above, which every environment worker imports
    runs, forks, seed = (int(a) for a in (sys.argv[1:] + ["15", "100", "0"][len(sys.argv) - 1 :]))
    rng = random.Random(seed)
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        print(
            f"kill9_train on {platform.machine()}, {os.cpu_count()} cores, seed {seed}: "
            f"vla-trace train {' '.join(OPTIONS)}"
        )
        for kind, start, n in (("command", command, runs), ("forked", forked, forks)):
            if not n:
                continue
            whole = start(f"whole-{kind}")
            began = wait_for_begin(whole, f"whole-{kind}")
            os.waitpid(whole, 0)
            whole_s, expected = time.monotonic() - began, weights(f"whole-{kind}")
            print(f"{kind}: {whole_s:.0f} s when it is left alone, weights {expected[:12]}")
            hits = drawn = 0
            while hits < n:
                name, after_s = f"{kind}-{drawn:03d}", rng.uniform(0, whole_s)
                drawn += 1
                hit, kept = kill_and_resume(start, name, after_s)
                found = weights(name)
                same = kept and found == expected
                bad += not same
                hits += hit
                what = f"{'killed' if hit else 'ended'} {found[:12]:14}"
                verdict = "same" if same else "DIFFERENT"
                print(f"{kind:>9}{hits:5}{after_s:9.2f} s  {what}{verdict}", flush=True)
                if same:
                    shutil.rmtree(f"runs/{name}")
    print(f"{bad} of {runs + forks} runs that were killed lost something")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

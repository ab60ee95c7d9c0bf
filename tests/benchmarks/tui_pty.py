"""What `vla-tui` costs on a real pseudo-terminal of 140 x 40, beside tools like it.

Asked: first paint at most 0.5 s and at most 0.8 of wandb leet's; the data of a run of 10,000 steps
in 1 s; key to frame at most 50 ms at the 95th percentile; idle at most 0.5 % of a core and no
byte; live at 1 Hz at most 2 % and 5 KiB/s; at most 150 MB.

Peers are run where PEERS is a virtual environment that has them (pip install wandb terminalboard
'plotext<6' harlequin); all take turns, so that a busy machine is busy for all.

    python -P tests/benchmarks/tui_pty.py [PEERS]
"""

import contextlib
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from traces.events import EventWriter

ROOT = Path(__file__).parents[2]
PtyTerminal = runpy.run_path(str(ROOT / "tests/tui/pty_terminal.py"))["PtyTerminal"]
SIZE = (140, 40)
STEPS, RUNS, KEYS = 10_000, 5, 100
IDLE_S, LIVE_S = 20, 30
KEYS_OF = {"vla-tui": "[]", "wandb leet": "ws", "terminalboard": "+-"}
"""Two keys that change the screen; of others j and k do."""
PAINTED = 60
"""Characters on the screen that make a first paint."""
TICKS = os.sysconf("SC_CLK_TCK")


def metrics(step: int) -> dict[str, float]:
    """Return what a training logs at a step."""
    share = step / STEPS
    return {
        "env/success_once": 0.4 + 0.4 * share,
        "env/episode_len": 80 - 20 * share,
        "rollout/episodes": 64,
        "rollout/episodes_total": 64 * step,
        "rollout/groups_accepted": 7,
        "rollout/frac_reward_zero_std": 0.2,
        "train/actor/approx_kl": 0.01 + 0.001 * (step % 7),
        "train/actor/clip_fraction": 0.04 + 0.001 * (step % 5),
        "train/actor/ratio": 1.0,
        "train/actor/ess": 0.97,
        "train/actor/grad_norm": 6 + step % 3,
        "train/actor/lr": 1e-4,
        "time/step": 20.0,
        "time/rollout": 12.0,
        "time/actor": 8.0,
    }


def ours(folder: Path) -> Path:
    """Write the log of a training that is running; its writer is this process."""
    log = folder / "runs" / "long" / "events.jsonl"
    clock = iter(range(10**9))
    begun = time.time() - STEPS - 10
    with EventWriter(log, clock=lambda: begun + next(clock)) as events:
        config = {"updates": 2 * STEPS, "groups": 8, "group_size": 8, "eval_every": 10}
        about = {"suite": "tabletop", "task_name": "push_cube_to_zone", "policy": "smolvla"}
        about |= {"kind": "grpo", "pid": os.getpid(), "host": os.uname().nodename}
        events.emit("run_start", run_id="long", config=config, **about)
        for step in range(1, STEPS + 1):
            events.emit("step", update=step, metrics=metrics(step))
    return folder


def wandb_run(folder: Path, peers: Path) -> Path:
    """Let wandb write the same numbers into an offline run of its own."""
    code = (
        "import json, sys, wandb\n"
        "run = wandb.init(mode='offline', dir=sys.argv[1], project='p',"
        " settings=wandb.Settings(console='off', silent=True))\n"
        "for line in sys.stdin: run.log(json.loads(line))\n"
        "run.finish()\n"
    )
    lines = "".join(json.dumps(metrics(step)) + "\n" for step in range(1, STEPS + 1))
    subprocess.run(
        [str(peers / "bin/python"), "-c", code, str(folder)],
        input=lines,
        text=True,
        check=True,
        capture_output=True,
    )
    return next((folder / "wandb").glob("offline-run-*"))


def tensorboard_run(folder: Path) -> Path:
    """Write the same numbers as TensorBoard keeps them."""
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for step in range(1, STEPS + 1):
            for name, value in metrics(step).items():
                writer.add_scalar(name, value, step)
    return folder


def commands(folder: Path, peers: Path | None) -> dict[str, tuple[list[str], str]]:
    """Return by name: what is started, and a text that only data can have drawn."""
    tui = str(Path(sys.executable).parent / "vla-tui")
    found = {"vla-tui": ([tui, str(ours(folder / "ours"))], f"{STEPS:d}")}
    if peers:
        (folder / "leet").mkdir()
        run = wandb_run(folder / "leet", peers)
        found["wandb leet"] = ([str(peers / "bin/wandb"), "leet", "run", str(run)], str(STEPS - 1))
        command = [str(peers / "bin/terminalboard"), "--reset-view"]
        log = tensorboard_run(folder / "tensorboard")
        found["terminalboard"] = ([*command, str(log)], f"{STEPS:.1f}")
        found["harlequin"] = ([str(peers / "bin/harlequin"), "--no-download-tzdata"], "")
    return found


@contextlib.contextmanager
def started(command: list[str]) -> Iterator[PtyTerminal]:
    """A program on the terminal, without the network."""
    env = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}
    env["XDG_STATE_HOME"] = tempfile.gettempdir()  # terminalboard writes there
    with PtyTerminal(command, *SIZE, env=env) as terminal:
        yield terminal


def painted(text: str) -> bool:
    """Whether there is something on the screen."""
    return len("".join(text.split())) > PAINTED


def paint_s(command: list[str], data: str) -> tuple[float, float]:
    """Seconds to the first paint, and to the data."""
    with started(command) as terminal:
        first = terminal.wait_for(
            lambda text: len(text.split()) and len("".join(text.split())) > PAINTED
        )
        return first, terminal.wait_for(data, 60) if data else float("nan")


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *(one for child in children for one in family(int(child)))]
    return [pid]


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and what it started."""
    total = 0.0
    for one in family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def memory_mb(pid: int) -> float:
    """Resident memory of a process and what it started [MB]."""
    total = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{one}/status").read_text()
            total += int(status.partition("VmRSS:")[2].split()[0])
    return total * 1024 / 1e6


def watched(terminal: PtyTerminal, seconds: float) -> tuple[float, float]:
    """CPU [%] and output [KiB/s] while nothing is typed."""
    cpu, written, until = cpu_s(terminal.pid), terminal.n_bytes, time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        terminal.read(left)
    spent = 100 * (cpu_s(terminal.pid) - cpu) / seconds
    return spent, (terminal.n_bytes - written) / 1024 / seconds


def key_ms(terminal: PtyTerminal, keys: str) -> list[float]:
    """Milliseconds from each key to the end of the frame that it made."""
    found = []
    for number in range(KEYS):
        began = time.perf_counter()
        terminal.send(keys[number % len(keys)])
        if not terminal.read(1.0):
            continue
        ended = time.perf_counter()
        while terminal.read(0.02):
            ended = time.perf_counter()
        found.append(1000 * (ended - began))
        time.sleep(0.05)
    return found


def live(command: list[str], log: Path, data: str) -> tuple[float, float, float]:
    """CPU [%], output [KiB/s] and memory [MB] while a run writes once a second."""
    writer = (
        "import sys, time, runpy\n"
        "sys.argv = sys.argv[1:]\n"
        f"metrics = runpy.run_path({__file__!r})['metrics']\n"
        "from traces.events import EventWriter\n"
        "with EventWriter(sys.argv[0]) as events:\n"
        "    for step in range(10**6):\n"
        f"        events.emit('step', update={STEPS} + step + 1, metrics=metrics(step))\n"
        "        time.sleep(1)\n"
    )
    with started(command) as terminal:
        terminal.wait_for(data)
        terminal.settle(1.5)
        process = subprocess.Popen([sys.executable, "-c", writer, str(log)])
        try:
            time.sleep(1)
            spent, written = watched(terminal, LIVE_S)
        finally:
            process.kill()
            process.wait()
        return spent, written, memory_mb(terminal.pid)


def main(peers: Path | None) -> None:
    """Measure all in turn and print one table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ours").mkdir()
        programs = commands(folder, peers)
        print(f"tui_pty: {SIZE[0]} x {SIZE[1]}, a run of {STEPS} steps, median of {RUNS} starts")
        head = ("program", "paint s", "data s", "key ms p50", "p95", "idle %", "idle B/s", "MB")
        print(f"{head[0]:14}" + "".join(f"{one:>12}" for one in head[1:]))
        paints: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
        for _ in range(RUNS + 1):
            for program, (command, data) in programs.items():
                paints[program].append(paint_s(command, data))
        for program, (command, data) in programs.items():
            paint, loaded = (statistics.median(c) for c in zip(*paints[program][1:], strict=True))
            with started(command) as terminal:
                terminal.wait_for(data or painted, 60)
                terminal.settle(1.5)
                idle, written = watched(terminal, IDLE_S)
                keys = key_ms(terminal, KEYS_OF.get(program, "jk"))
                memory = memory_mb(terminal.pid)
            middle = statistics.median(keys) if keys else float("nan")
            late = statistics.quantiles(keys, n=20)[-1] if len(keys) > 1 else float("nan")
            cells = (f"{paint:.2f}", f"{loaded:.2f}", f"{middle:.0f}", f"{late:.0f}")
            cells += (f"{idle:.2f}", f"{1024 * written:.0f}", f"{memory:.0f}")
            print(f"{program:14}" + "".join(f"{cell:>12}" for cell in cells), flush=True)
        command, data = programs["vla-tui"]
        log = folder / "ours/runs/long/events.jsonl"
        spent, written, memory = live(command, log, data)
        cells = f"{spent:.1f} % of a core, {written:.2f} KiB/s, {memory:.0f} MB"
        print(f"live at 1 Hz, {LIVE_S} s: {cells}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)

"""Run one thing after the other in a child that may do whatever it wants: crash, hang, grow."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 5.0
"""CPU time of each thing."""
BLOCKED_S = 300.0
"""Of waiting for something that never comes."""
LIMIT_BYTES = 10**9
GUARD_BYTES = 6 * 10**9
"""Address space of a child, so that what is wrong with it does not take the machine along."""


@dataclass(frozen=True)
class Fault:
    """What one of the things did that it must not."""

    name: str
    what: str
    """traceback, crash, hang, memory, or outside."""
    detail: str


def guarded(
    things: Mapping[str, Callable[[], None]], folder: Path, outside: Path, limit_s: float = LIMIT_S
) -> list[Fault]:
    """Run things in a forked child; return what they did wrong.

    Args:
        things: by name; each may raise only what is a bug. A crash or hang ends the whole run.
        folder: the only one, beside the interpreter's own, in which they may open files.
        outside: a pipe that nobody may open: whoever does hangs, and is found out.
        limit_s: for each thing.
    """
    log = outside.with_suffix(".log")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run(things, folder, log, writer, limit_s)
    os.close(writer)
    faults, last, waits = _watched(reader, child)
    os.close(reader)
    waits_outside = waits and _is_open(outside)
    if waits:
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    if waits or os.WIFSIGNALED(status):
        ended = signal.Signals(os.WTERMSIG(status))
        what = "hang" if waits or ended == signal.SIGPROF else "crash"
        what = "outside" if waits_outside else what
        faults.append(Fault(last, what, f"{ended.name} {_tail(log)}"))
    if used.ru_maxrss * 1024 > LIMIT_BYTES and not any(f.what == "memory" for f in faults):
        faults.append(Fault(last, "memory", f"{used.ru_maxrss / 1e6:.1f} GB"))
    return faults


def _run(
    things: Mapping[str, Callable[[], None]], folder: Path, log: Path, report: int, limit_s: float
) -> None:
    """What the child does."""
    try:
        resource.setrlimit(resource.RLIMIT_AS, (GUARD_BYTES, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for stream in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        faulthandler.register(signal.SIGPROF, sys.__stderr__, chain=True)
        strangers: list[str] = []
        _listen(folder, strangers)
        warnings.simplefilter("error")
        for name, thing in things.items():
            os.write(report, json.dumps([name]).encode() + b"\n")
            signal.setitimer(signal.ITIMER_PROF, limit_s)  # no handler: it ends the child
            try:
                thing()
            except BaseException:
                told = [name, "traceback", traceback.format_exc()]
                os.write(report, json.dumps(told).encode() + b"\n")
            if strangers:
                told = [name, "outside", ", ".join(strangers)]
                os.write(report, json.dumps(told).encode() + b"\n")
                strangers.clear()
    finally:
        os._exit(0)


def _listen(folder: Path, strangers: list[str]) -> None:
    """Note what Python opens or starts that lies neither in the folder nor in its own ones."""
    own = (str(folder), sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]))
    own += (
        f"/proc/{os.getpid()}/",
        "/proc/meminfo",
        "/sys/",
        "/dev/null",
        "/usr/share/zoneinfo",
        "/etc/mime",
    )

    def hook(event: str, args: tuple) -> None:
        if event == "open" and isinstance(args[0], (str, bytes)):
            path = Path(os.fsdecode(args[0])).resolve()
            if not str(path).startswith(own) and not path.is_dir():
                strangers.append(str(path))
        elif event in ("subprocess.Popen", "os.system", "os.exec", "socket.connect"):
            strangers.append(event)

    sys.addaudithook(hook)


def _watched(reader: int, child: int) -> tuple[list[Fault], str, bool]:
    """Listen to a child; return what it reports, what it did last, and whether it only waits."""
    faults: list[Fault] = []
    last, rest = "start", b""
    while True:
        if not select.select([reader], [], [], BLOCKED_S)[0]:
            return faults, last, True
        found = os.read(reader, 2**20)
        if not found:
            return faults, last, False
        *lines, rest = (rest + found).split(b"\n")
        for line in lines:
            name, *told = json.loads(line)
            faults += [Fault(name, *told)] if told else []
            last = name


def _is_open(outside: Path) -> bool:
    """Whether somebody waits at a pipe."""
    try:
        os.close(os.open(outside, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else ""

"""Tables are worked on in a process of their own, which goes when nothing was asked for a while.

polars takes 100 MB, and a viewer runs for days: it is sent the name of a function with its
arguments and sends back plain data and numpy arrays, by pickle.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from traces.errors import UserError
from tui.terminal import one_line

IDLE_S = 10.0
"""Without a question for this long, the process ends."""
SERVE = "from tui.data.apart import serve; serve()"

_turn = threading.Lock()
_process: subprocess.Popen | None = None


def apart(name: str, *args: object, told: Callable[..., None] | None = None) -> object:
    """Call a function in the other process, which is started if there is none.

    Args:
        name: "module:function".
        *args: what it takes.
        told: called here with what the function says there to one argument more.

    Raises:
        UserError: what the function refused, or the process was killed.
        RuntimeError: what went wrong in it, in one sentence.
    """
    with _turn:
        while True:
            process = _running()
            try:
                return _answer(process, (Path.cwd(), name, args, told is not None), told)
            except (EOFError, BrokenPipeError):
                if process.wait():  # else it had just gone for want of questions
                    raise UserError("the process that reads tables was ended") from None


def close() -> None:
    """Break off what is at work; a process without any goes by itself."""
    if _process is not None and _turn.locked():
        _process.kill()


def _running() -> subprocess.Popen:
    global _process
    if _process is not None and _process.poll() is not None:
        with contextlib.suppress(BrokenPipeError), _process:
            _process = None
    if _process is None:
        _process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # ctrl-c is the viewer's
        )
    return _process


def _answer(process: subprocess.Popen, question: tuple, told: Callable | None) -> object:
    pickle.dump(question, process.stdin, pickle.HIGHEST_PROTOCOL)
    process.stdin.flush()
    while True:
        kind, value = pickle.load(process.stdout)
        if kind == "done":
            return value
        if kind == "refused":
            raise UserError(value)
        if kind == "failed":
            raise RuntimeError(value)
        told(*value)


def serve() -> None:
    """Answer questions until none comes, or until the viewer has gone."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints is no answer

    def say(kind: str, value: object) -> None:
        pickle.dump((kind, value), sink, pickle.HIGHEST_PROTOCOL)
        sink.flush()

    while select.select([source], [], [], IDLE_S)[0]:
        try:
            folder, name, args, tells = pickle.load(source)
        except EOFError:
            return
        told = (lambda *what: say("told", what),) if tells else ()
        try:
            os.chdir(folder)
            module, _, function = name.partition(":")
            found = getattr(importlib.import_module(module), function)(*args, *told)
        except UserError as error:
            say("refused", one_line(error))
        except Exception as error:  # any file may be broken in any way
            say("failed", one_line(error) or type(error).__name__)
        else:
            say("done", found)

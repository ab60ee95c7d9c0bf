"""A `vla-trace record` that was started from the screens: its output, its end, and how to stop it.

It is a process of its own that writes to a file without a name, never to a pipe: it goes on when
nobody reads, also when the viewer ends, and what it said is gone with the last of the two.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from traces.errors import MissingExtra, UserError
from tui.terminal import one_line

TAIL_BYTES = 64_000


class Recorder:
    """A recording in another process.

    Raises:
        UserError: the command is no `vla-trace record`, or the engine is not installed here.
    """

    def __init__(self, command: str, home: Path) -> None:
        words = _words(command)
        self.command = one_line(command)
        self.began = time.monotonic()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
        self._process = subprocess.Popen(
            words,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._took: float | None = None

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        code = self._process.poll()
        if code is not None and self._took is None:
            self._took = time.monotonic() - self.began
        return code

    @property
    def seconds(self) -> float:
        """How long it runs, or ran."""
        return self._took if self.code is not None else time.monotonic() - self.began

    def tail(self, n: int) -> list[str]:
        """Return the last lines it wrote, without anything that a terminal would obey."""
        size = os.fstat(self._output.fileno()).st_size
        said = os.pread(self._output.fileno(), TAIL_BYTES, max(0, size - TAIL_BYTES))
        lines = said.decode("utf-8", "replace").splitlines()
        return [one_line(line) for line in lines[-n:]] if n > 0 else []

    def stop(self) -> None:
        """Ask it to stop, as ctrl-c in its own terminal would."""
        if self.code is None:
            os.killpg(self._process.pid, signal.SIGINT)

    def close(self) -> None:
        """Stop listening; the process goes on."""
        self._output.close()


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"cannot read the command: {error}") from None
    if words[:2] != ["vla-trace", "record"]:
        raise UserError("only vla-trace record is started from here")
    beside = Path(sys.executable).with_name("vla-trace")
    program = str(beside) if beside.exists() else shutil.which("vla-trace")
    if program is None:
        raise UserError("the command vla-trace is not on the PATH; see: vla-trace doctor")
    for package in ("torch", "lerobot"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "engine")
    return [program, *words[1:]]

"""A program on a real pseudo-terminal, its screen read back through a terminal emulator.

Loaded by path, as test modules cannot import each other.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Sequence

import pyte

PRIVATE = re.compile(
    rb"\x1b\[[<=>][0-9;]*[A-Za-z]|\x1b\[\??[0-9;]*\$[a-z]|\x1b[P_^].*?\x1b\\", re.DOTALL
)
"""Questions and settings that the emulator does not know; it would print them."""


class PtyTerminal:
    """Starts a command in a terminal of some size; use it in a `with`."""

    def __init__(
        self,
        command: Sequence[str],
        columns: int = 80,
        rows: int = 24,
        *,
        env: dict[str, str] | None = None,
        cwd: str | os.PathLike | None = None,
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = bytearray()
        """Written by the program so far."""
        self.began = time.perf_counter()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                if cwd is not None:
                    os.chdir(cwd)
                given = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}
                for name in ("COLUMNS", "LINES"):  # pytest-xdist sets them; the size is asked for
                    os.environ.pop(name, None)
                os.execvpe(command[0], list(command), os.environ | given | (env or {}))
            finally:
                os._exit(127)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def __enter__(self) -> PtyTerminal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def n_bytes(self) -> int:
        """How much the program has written so far."""
        return len(self.raw)

    @property
    def lines(self) -> list[str]:
        """What is on the screen."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        """What is on the screen, in one piece."""
        return "\n".join(self.lines)

    def read(self, timeout_s: float) -> int:
        """Wait for output at most this long; return the bytes that came, 0 for none."""
        if not select.select([self._fd], [], [], timeout_s)[0]:
            return 0
        try:
            found = os.read(self._fd, 1 << 16)
        except OSError:  # the program has gone
            found = b""
        self.raw += found
        self._stream.feed(PRIVATE.sub(b"", found))
        return len(found)

    def wait_for(self, seen: str | Callable[[str], bool], timeout_s: float = 30) -> float:
        """Read until a text is on the screen; return the seconds since the start.

        Raises:
            TimeoutError: it did not come; the message shows the screen.
        """
        there = seen if callable(seen) else lambda text: seen in text
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.read(0.05) and there(self.text):
                return time.perf_counter() - self.began
            if there(self.text):
                return time.perf_counter() - self.began
        raise TimeoutError(f"{seen} was not drawn:\n{self.text}")

    def settle(self, quiet_s: float = 0.3, timeout_s: float = 20) -> None:
        """Read until nothing was written for a while."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.read(quiet_s):
            pass

    def send(self, keys: str) -> None:
        """Type."""
        os.write(self._fd, keys.encode())

    def press(self, keys: str) -> None:
        """Type, and wait until the screen rests."""
        self.send(keys)
        self.read(1.0)
        self.settle()

    def close(self) -> int:
        """End the program, if it has not; return its status."""
        if self._fd < 0:
            return 0
        for ended_by in (signal.SIGHUP, signal.SIGKILL):
            try:
                os.kill(self.pid, ended_by)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline:
                done, status = os.waitpid(self.pid, os.WNOHANG)
                if done:
                    os.close(self._fd)
                    self._fd = -1
                    return status
                self.read(0.05)
        os.close(self._fd)
        self._fd = -1
        return -1

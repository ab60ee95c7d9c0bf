"""The events log of a run: `runs/<id>/events.jsonl`, one JSON object per line.

One process writes, one `os.write` per line; anyone follows by polling.  Every event carries
`v` (version of this log), `seq` (0, 1, 2, ... through restarts), `t` (seconds since 1970) and
`type`.  Numbers that are not finite are written as Python's json does: NaN, Infinity.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from traces.errors import UnwritableFolder

EVENTS_VERSION = 1
FSYNC_EVERY_S = 2.0
RUNNING_S = 60.0
"""A run that was heard of more recently than this is running."""
CRASHED_S = 600.0
"""A run that was silent for longer than this has probably crashed."""

EVENT_TYPES = {
    "run_start": "run_id, kind, host, pid, config: a process began or resumed the run",
    "phase": "name (rollout, update, eval, ...), update: what the run is doing now; done, total,"
    " and attempt of a rollout, where they are known; said again while it goes on",
    "episode": "uid, task_id, success, return, n_steps, group, member: an episode ended",
    "condition": "name, files: an arm of a recording is complete",
    "group": "update, group, n_members, n_success, advantages, accepted, reason: it is complete",
    "step": "update, metrics (name to number): one training update ended",
    "eval": "update, task_id, task_name, metrics, n, forgetting (untrained): one task's is over",
    "alert": "level (warn, error), rule, value, threshold, message",
    "shard": "path, bytes, episodes, number: a trace file was closed and may be opened",
    "checkpoint": "path, update: a policy folder is complete",
    "heartbeat": "nothing more: the process is alive",
    "run_end": "status (finished, failed), reason: the process is leaving",
}
"""Event types and the fields they carry beside v, seq, t and type."""


class EventWriter:
    """Append events to a log; the only writer of it.

    Opening an existing log continues it: `seq` goes on, and a line which a crash tore is closed.
    """

    def __init__(self, path: Path | str, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(path)
        self._clock = clock
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            why = error.strerror or str(error)
            raise UnwritableFolder(self.path.parent, why.lower()) from error
        content = self.path.read_bytes()
        events, _, _ = parse_lines(content)
        self._seq = 1 + max((event.get("seq", -1) for event in events), default=-1)
        self._torn = bool(content) and not content.endswith(b"\n")
        self._synced_s = time.monotonic()

    def emit(self, type: str, /, **fields: object) -> None:
        """Write one event as one line."""
        if type not in EVENT_TYPES:
            raise ValueError(f"unknown event type {type!r}, expected one of {list(EVENT_TYPES)}")
        event = {"v": EVENTS_VERSION, "seq": self._seq, "t": self._clock(), "type": type}
        if taken := event.keys() & fields.keys():
            raise ValueError(f"the fields {sorted(taken)} of an event are set by the writer")
        line = json.dumps(event | fields, ensure_ascii=False, default=_plain).encode() + b"\n"
        if self._torn:
            line = b"\n" + line
        written = os.write(self._fd, line)
        self._torn = written < len(line)
        if self._torn:
            raise OSError(errno.ENOSPC, "an event was written in part only", str(self.path))
        self._seq += 1
        if time.monotonic() - self._synced_s >= FSYNC_EVERY_S:
            self.sync()

    def sync(self) -> None:
        """Force what was written to the disk."""
        os.fsync(self._fd)
        self._synced_s = time.monotonic()

    def close(self) -> None:
        """Sync and close; closing twice is harmless."""
        if self._fd >= 0:
            try:
                os.fsync(self._fd)
            finally:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class EventTail:
    """Follow a log by polling; the file may not exist yet, be torn, or be replaced."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.restarted = False
        """The last poll found another file and began again: forget earlier events."""
        self.skipped = 0
        """Lines in the middle of this file that were not JSON objects."""
        self.behind = False
        """The last poll left something to read."""
        self._inode = -1
        self._offset = 0

    def poll(self, most: int = -1) -> list[dict]:
        """Return the events since the last poll, oldest first.

        Args:
            most: bytes to read at once, more where a line is longer; -1: all there are.
        """
        self.restarted = self.behind = False
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return []
        with file:
            status = os.fstat(file.fileno())
            if self._inode >= 0 and (status.st_ino != self._inode or status.st_size < self._offset):
                self.restarted = True
                self._offset = self.skipped = 0
            self._inode = status.st_ino
            file.seek(self._offset)
            content = file.read(most)
            events, consumed, skipped = parse_lines(content)
            while not consumed and (more := file.read(len(content))):
                content += more
                events, consumed, skipped = parse_lines(content)
        self.behind = self._offset + len(content) < status.st_size
        self._offset += consumed
        self.skipped += skipped
        return events


def parse_lines(content: bytes) -> tuple[list[dict], int, int]:
    """Return (events, bytes consumed, bad lines skipped).

    Nothing is consumed beyond the last good line: a torn line, NUL bytes or bad JSON at the end
    may still become whole.  Once a good line follows, a bad one is skipped for good.
    """
    events: list[dict] = []
    consumed = skipped = bad = position = 0
    while (newline := content.find(b"\n", position)) >= 0:
        line = content[position:newline]
        position = newline + 1
        event = _parsed(line)
        if event is None:
            bad += bool(line.strip())
            continue
        events.append(event)
        skipped += bad
        bad = 0
        consumed = position
    return events, consumed, skipped


def read_events(path: Path | str) -> list[dict]:
    """Return every event of a log."""
    return EventTail(path).poll()


def run_state(events: Iterable[dict], now: float) -> str:
    """Say how a run is: "running", "silent", "crashed?", "finished" or "failed".

    Args:
        events: all events of the log, in order; what precedes the last run_start is history.
        now: seconds since 1970.
    """
    current: list[dict] = []
    for event in events:
        if event["type"] == "run_start":
            current = []
        current.append(event)
    if not current:
        return "silent"
    last = current[-1]
    if last["type"] == "run_end":
        return "finished" if last.get("status", "finished") == "finished" else "failed"
    if _process_gone(current[0]):
        return "crashed?"
    silence_s = now - last["t"]
    if silence_s < RUNNING_S:
        return "running"
    return "silent" if silence_s < CRASHED_S else "crashed?"


def _process_gone(run_start: dict) -> bool:
    """Return True when the writer ran on this host and no process has its number any more."""
    pid = run_start.get("pid")
    if run_start.get("host") != socket.gethostname() or not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False  # somebody else's process, or no process number at all
    return False


def _parsed(line: bytes) -> dict | None:
    """Return the event on a line, or None when it is no complete event."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        return None
    return event if isinstance(event.get("t"), int | float) else None


def _plain(value: object) -> object:
    """Turn numpy scalars and arrays into numbers and lists, paths into text."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"an event cannot hold {type(value).__name__}: {value!r}")

"""Everything below a folder, as runs: logs are followed, traces are read once per change.

Nothing here holds a lock or an open file between two polls.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from stat import S_ISREG

from analysis.proportions import wilson
from traces.errors import MissingFile, UserError
from tui.data.fields import whole
from tui.data.model import Episode, Run, TraceFile, in_pairs
from tui.data.run_log import RunLog
from tui.data.trace_file import joined, read_trace, stamp
from tui.terminal import one_line

EVENTS = "events.jsonl"
DEPTH = 4
"""Folders below a root that are searched."""
STALE_S = 600.0
"""A `.partial` untouched for this long was left by a crash and is read."""
LOG_STALE = ("finished", "failed", "crashed?")


def checked_folder(folder: str | None) -> tuple[Path, bool]:
    """Return the folder to watch and whether it was chosen; raises `UserError`."""
    if folder is None:
        return Path(), False
    path = Path(folder).expanduser()
    if not path.exists():
        raise MissingFile(path)
    if not path.is_dir():
        raise UserError(f"{path} is a file, vla-tui watches folders; try: vla-trace show {path}")
    if not os.access(path, os.R_OK | os.X_OK):
        raise UserError(f"cannot read the folder {path}: permission denied")
    return path, True


class Library:
    """The runs and traces of a folder, or of runs/ and traces/ in it where these exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pending = 0
        """Traces found and not read yet, and logs read in part."""
        self._logs: dict[Path, RunLog] = {}
        self._files: dict[Path, TraceFile] = {}
        self._runs: dict[str, tuple[object, Run]] = {}

    def poll(self, now: float, budget_s: float = 0.25) -> tuple[Run, ...]:
        """Return all runs, newest first; an unchanged run is the same object as before.

        Unread traces are read newest first until the budget is spent; `pending` counts the rest.
        """
        logs, found = self._search()
        self._logs = {path: self._logs.get(path) or RunLog(path) for path in logs}
        deadline = time.monotonic() + budget_s
        unread = self._read_logs(deadline)
        known = set(found.values())
        for log in self._logs.values():
            for path, seen in self._announced(log):
                if seen not in known:  # else the same file under another name
                    known.add(seen)
                    found[path] = seen
        alive = [log for log in self._logs.values() if log.state(now) not in LOG_STALE]
        wanted = {
            path: seen
            for path, seen in found.items()
            if path.suffix != ".partial" or not alive or now - seen[0] / 1e9 > STALE_S
        }
        self._files = {path: file for path, file in self._files.items() if path in wanted}
        stale = [p for p, seen in wanted.items() if p not in self._files or self._changed(p, seen)]
        stale.sort(key=wanted.__getitem__, reverse=True)
        self.pending = len(stale) + unread
        for path in stale:
            self._files[path] = read_trace(path, wanted[path])
            self.pending -= 1
            if time.monotonic() > deadline:
                break
        return self._assembled(now)

    def _read_logs(self, deadline: float) -> int:
        """Go on with the logs that are known, then the newest first; returns how many are not."""
        late = [log for log in self._logs.values() if log.behind]
        changed = dict(_stamped(log.path for log in late))
        late.sort(key=lambda log: changed.get(log.path, (0,)), reverse=True)
        for log in [*(log for log in self._logs.values() if not log.behind), *late]:
            left = deadline - time.monotonic()
            if left > 0 or not log.behind:
                log.poll(left)
        return sum(log.behind for log in self._logs.values())

    def forget(self) -> None:
        """Read every file again at the next poll."""
        self._logs, self._files, self._runs = {}, {}, {}

    def _changed(self, path: Path, seen: tuple[int, ...]) -> bool:
        return self._files[path].stamp != seen

    def _search(self) -> tuple[list[Path], dict[Path, tuple[int, ...]]]:
        """Return the logs and the traces (with their stamps) below the roots."""
        logs: list[Path] = []
        found: dict[Path, tuple[int, ...]] = {}
        for path in (path for root in _roots(self.folder) for path in _walk(root, DEPTH)):
            if path.name == EVENTS:
                logs.append(path)
            else:
                found.update(_stamped([path]))
        return logs, found

    def _announced(self, log: RunLog) -> Iterator[tuple[Path, tuple[int, ...]]]:
        """Yield the traces that a log says are closed; relative to where the run was started."""
        home = log.path.parent.parent
        for text in log.shards:
            if not text.endswith(".h5"):
                continue
            bases = (self.folder, home.parent, home, log.path.parent)
            yield from islice(_stamped(base / text for base in bases), 1)

    def _assembled(self, now: float) -> tuple[Run, ...]:
        by_id: dict[str, list[TraceFile]] = {}
        broken: list[TraceFile] = []
        for file in self._files.values():
            if file.header is None:
                broken.append(file)
            else:
                by_id.setdefault(file.header.run_id, []).append(file)
        runs: dict[str, tuple[object, Run]] = {}
        for path, log in self._logs.items():
            if log.last is None and log.behind:  # nothing is known of it yet
                continue
            files = sorted(by_id.pop(log.run_id, []), key=lambda file: file.path)
            key, state = str(path.parent), log.state(now)
            signature = (log.version, log.error, state, tuple(f.stamp for f in files))
            kept = self._kept(key, signature)
            runs[key] = kept or (signature, _logged(key, log, state, joined(files)))
        for run_id, files in by_id.items():
            files.sort(key=lambda file: file.path)
            key, signature = f"traces of {run_id}", tuple((f.path, f.stamp) for f in files)
            runs[key] = self._kept(key, signature) or (signature, _unlogged(key, joined(files)))
        for file in broken:
            key = str(file.path)
            runs[key] = self._kept(key, file.stamp) or (file.stamp, _broken(key, file))
        self._runs = runs
        return tuple(
            sorted((run for _, run in runs.values()), key=lambda r: (r.started, r.key))[::-1]
        )

    def _kept(self, key: str, signature: object) -> tuple[object, Run] | None:
        entry = self._runs.get(key)
        return entry if entry and entry[0] == signature else None


def logs_below(folder: Path) -> list[Path]:
    """Return the logs of the runs of a folder."""
    found = (path for root in _roots(folder) for path in _walk(root, DEPTH))
    return [path for path in found if path.name == EVENTS]


def _roots(folder: Path) -> list[Path]:
    roots = [folder / name for name in ("runs", "traces")]
    return [root for root in roots if root.is_dir()] or [folder]


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """Yield logs and traces, breadth limited, links to folders not followed."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name == EVENTS or entry.name.endswith((".h5", ".h5.partial")):
            yield Path(entry.path)
        elif depth and not _skipped(entry.name) and entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), depth - 1)


def _skipped(name: str) -> bool:
    """Whether no log and no trace is in a folder of that name, which may hold many others."""
    return name.startswith(".") or name == "checkpoints"


def _stamped(paths: Iterable[Path]) -> Iterator[tuple[Path, tuple[int, ...]]]:
    """Yield those that are files now, with their stamps; files come and go while we look."""
    for path in paths:
        try:
            status = path.stat()
        except (OSError, ValueError):  # gone, or no possible name
            continue
        if S_ISREG(status.st_mode):
            yield path, stamp(status)


def _logged(key: str, log: RunLog, state: str, files: tuple[TraceFile, ...]) -> Run:
    start = log.start
    config = start.get("config") if isinstance(start.get("config"), dict) else {}
    merged = _newest([*log.episodes.values(), *(e for file in files for e in file.episodes)])
    total = whole(start.get("episodes_total"))
    tasks = tuple(dict.fromkeys(e.task for e in merged))
    if start.get("task_name") and (log.training or not tasks):
        tasks = (one_line(start["task_name"]),)
    header = next((file.header for file in files if file.header), None)
    suite = start.get("suite") or (header.suite.get("name") if header else "") or ""
    sha, name = str(start.get("policy_sha256") or ""), str(start.get("policy") or "")
    heard = log.last["t"] if log.last else _newest_change(files)
    return Run(
        key=key,
        run_id=log.run_id,
        state=state,
        kind=one_line(start.get("kind") or (header.kind if header else "")),
        suite=one_line(suite.get("name", "") if isinstance(suite, dict) else suite),
        tasks=tasks,
        policy=_policy(name, sha) or _policy_of(files),
        conditions=_conditions([*log.planned, *(e.condition for e in merged)]),
        total=total if total >= 0 else None,
        episodes=merged,
        **_success(merged, log),
        files=files,
        started=start.get("t", log.first_t if log.last else _created(files)),
        heard=heard,
        last=log.latest,
        trouble=log.error or log.trouble,
        training=log.training.frozen() if log.training else None,
        folder=log.path.parent,
        config=config,
    )


def _unlogged(key: str, files: tuple[TraceFile, ...]) -> Run:
    header = files[0].header
    merged = _newest([e for file in files for e in file.episodes])
    partial = any(file.partial for file in files)
    return Run(
        key=key,
        run_id=header.run_id or files[0].path.name,
        state="unfinished" if partial else "closed",
        kind=one_line(header.kind),
        suite=one_line(header.suite.get("name", "")),
        tasks=tuple(dict.fromkeys(e.task for e in merged)),
        policy=_policy_of(files),
        conditions=_conditions([e.condition for e in merged]),
        episodes=merged,
        **_success(merged),
        files=files,
        started=_created(files),
        heard=_newest_change(files),
        last="not closed" if partial else "",
        config=header.config,
    )


def _broken(key: str, file: TraceFile) -> Run:
    changed = file.changed
    return Run(
        key=key,
        run_id=file.path.name,
        state="broken",
        files=(file,),
        started=changed,
        heard=changed,
        last=file.error,
        trouble=file.error,
    )


def _newest(episodes: list[Episode]) -> tuple[Episode, ...]:
    """Keep one of equal episodes: a trace beats the log, then the larger session."""
    kept: dict[tuple[str, str], Episode] = {}
    for episode in episodes:
        other = kept.get(episode.key)
        if other is None or (not episode.live, episode.session) >= (not other.live, other.session):
            kept[episode.key] = episode
    return in_pairs(list(kept.values()))


def _success(episodes: tuple[Episode, ...], log: RunLog | None = None) -> dict:
    """Return success over all episodes that no error cut short, with its interval.

    A training has that of its last update, a run of evaluations that of its last one.
    """
    said = log.success if log is not None else None
    if said is not None and (log.training is not None or not episodes):
        return {"success_rate": said.rate, "success_ci": said.interval}
    counted = [episode.success for episode in episodes if not episode.error]
    rate = sum(counted) / len(counted) if counted else None
    return {"success_rate": rate, "success_ci": wilson(sum(counted), len(counted))}


def _conditions(labels: list[str]) -> tuple[str, ...]:
    """Return each label once, the baseline first."""
    return tuple(sorted(dict.fromkeys(labels), key=lambda label: label != "baseline"))


def _policy(path: str, sha256: str) -> str:
    name = path.rstrip("/").rsplit("/", 1)[-1]
    return one_line(f"{name}@{sha256[:12]}" if sha256 else name)


def _policy_of(files: tuple[TraceFile, ...]) -> str:
    names = dict.fromkeys(_policy(path, sha) for file in files for sha, path in file.policies)
    return ", ".join(names)


def _created(files: tuple[TraceFile, ...]) -> float:
    """Return when the first of some traces was begun, seconds since 1970."""
    times = []
    for file in files:
        try:
            times.append(datetime.fromisoformat(file.header.created_utc).timestamp())
        except (ValueError, TypeError, AttributeError, OverflowError):
            times.append(file.changed)
    return min(times, default=0.0)


def _newest_change(files: tuple[TraceFile, ...]) -> float:
    return max((file.changed for file in files), default=0.0)

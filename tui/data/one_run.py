"""One run's log, found by name, folder or file; nothing but the log is read."""

from __future__ import annotations

from pathlib import Path

from traces.errors import UnknownName, UserError
from tui.data.library import EVENTS, logs_below
from tui.data.run_log import RunLog
from tui.data.training_log import GROUPS


def log_of(name: str | None, folder: Path = Path(), groups_kept: int = GROUPS) -> RunLog:
    """Return the log of a run, read to its end.

    Args:
        name: of the run, its folder or its events.jsonl; None: the run that was heard last.
        folder: where runs/ is.
        groups_kept: latest updates of a training whose groups are remembered.

    Raises:
        UserError: there is no such run.
    """
    log = RunLog(_path(name, folder), groups_kept)
    log.poll()
    if log.error:
        raise UserError(log.error)
    return log


def _path(name: str | None, folder: Path) -> Path:
    if name is not None:
        for path in (Path(name).expanduser(), folder / "runs" / name, folder / name):
            if path.name == EVENTS and path.is_file():
                return path
            if (path / EVENTS).is_file():
                return path / EVENTS
    found = sorted(logs_below(folder), key=lambda path: path.stat().st_mtime)
    if name is not None:
        raise UnknownName("run", name, [path.parent.name for path in reversed(found)])
    if not found:
        raise UserError("no runs here; vla-trace train and vla-trace record make some in runs/")
    return found[-1]

"""Where an export goes: it gets its name when it is whole, and replaces earlier exports only."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from traces.errors import UnwritableFolder, UserError

MARK = "vla-trace.json"
"""In every exported folder: where the episodes come from. A folder without it is never replaced."""


@contextmanager
def fresh(out: Path, sources: Collection[Path] = (), *, force: bool = False) -> Iterator[Path]:
    """Yield a path to write a file or a folder to; it becomes `out` if the block succeeds.

    Until then everything lies in a folder `OUT.exporting-...` beside it, which goes away with any
    failure. Only a process that is killed leaves that folder behind.

    Args:
        out: the final name.
        sources: files that are exported, which nothing may replace.
        force: replace an earlier export of that name.

    Raises:
        UserError: there is something of that name that is not to be replaced.
        UnwritableFolder: nothing can be created beside `out`.
    """
    _check(out, sources, force)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f"{out.name}.exporting-", dir=out.parent))
    except OSError as error:
        raise UnwritableFolder(out.parent, os.strerror(error.errno or 0).lower()) from error
    try:
        yield work / out.name
        _check(out, sources, force)  # it may have come up meanwhile
        if out.exists():
            out.rename(work / "replaced")
        (work / out.name).rename(out)
    finally:
        if not out.exists() and (work / "replaced").exists():
            (work / "replaced").rename(out)
        shutil.rmtree(work, ignore_errors=True)


def _check(out: Path, sources: Collection[Path], force: bool) -> None:
    if not os.path.lexists(out):
        return
    if not force:
        raise UserError(f"{out} already exists; choose another name, or replace it with --force")
    within = {path.resolve() for path in sources}
    if within & {out.resolve(), *(path for path in within if out.resolve() in path.parents)}:
        raise UserError(f"{out} holds what is to be exported; choose another name")
    if out.is_dir() and (out.is_symlink() or not (out / MARK).exists()):
        raise UserError(f"{out} is a folder that no export made; choose another name")

"""What every command shares towards the terminal: exit codes, safe text, one JSON object."""

import enum
import json
import os
from pathlib import Path

from traces.errors import UnwritableFolder, UserError, shown


class Exit(enum.IntEnum):
    """Exit codes of `vla-trace`."""

    OK = 0
    FAILURE = 1
    """It ran and did not succeed (a failed check, an error of the system, a closed pipe)."""
    USAGE = 2
    """What was asked cannot be done; the one line on stderr says what would work."""
    INTERRUPTED = 130
    """Ctrl-C."""


def one_line(text: object) -> str:
    """Text on one line: white space and line breaks collapsed, control characters escaped."""
    return shown(" ".join(str(text).split()))


def to_json(value: object) -> str:
    """Strict JSON (no NaN), ASCII, indented; the whole of a `--json` command's stdout."""
    return json.dumps(value, indent=2, allow_nan=False)


def free_path(name: str, force: bool) -> Path:
    """A path that a person wants written, which may exist only with --force.

    Raises:
        UserError: the file exists, or its folder does not.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file")
    if path.exists() and not force:
        raise UserError(f"{path} already exists; choose another name or add --force")
    if not path.parent.is_dir():
        raise UnwritableFolder(path.parent, "no such folder")
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file of text whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(content)
        scratch.replace(path)
    except OSError as error:
        raise UnwritableFolder(path.parent, error.strerror or str(error)) from None

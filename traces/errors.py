"""The errors a person can do something about, and the one a programmer must fix.

    UserError                   shown as one line by the command line, which then exits with 2
    ├── MissingFile             no such file or folder
    ├── NoFilesMatch            a pattern or folder holds no trace
    ├── FileExists              refusing to overwrite
    ├── UnwritableFolder        cannot create files there
    ├── DiskFull                refusing to begin a write that would not fit
    ├── WriteFailed             a write that failed half way
    ├── NotATrace               exists, but is not a readable vla-trace file
    ├── NewerFormat             written by a later vla-trace
    ├── DifferentTraces         traces that do not go into one file
    ├── UnknownName             a name that is not in the list of names that exist
    ├── MissingExtra            an optional part of the installation is not there
    ├── BadIntervention         an intervention that contradicts itself
    └── TextTooLong             a text longer than its column
    BadRecord(ValueError)       the caller gave the writer something the format does not hold

Constructors take facts and build the sentence: what is wrong, what was expected, what exists, and
the command that mends it.  A message is always a single line; control characters are escaped.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

MANY_NAMES = 12
"""Lists of names up to this length are shown whole."""

LONGEST = 2000
"""Characters of a text that are shown: a damaged file may hold megabytes."""


def shown(text: object) -> str:
    """Return `text` on one line, control characters escaped as in `repr`, the end of it cut off."""
    text = str(text)
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}…"
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def near_matches(given: str, available: Iterable[str], limit: int = 3) -> list[str]:
    """Return the names closest to `given`, best first (none when nothing is close)."""
    by_lower = {name.lower(): name for name in available}
    close = difflib.get_close_matches(given.lower(), by_lower, n=limit, cutoff=0.6)
    return [by_lower[name] for name in close]


class UserError(Exception):
    """Base of every error that is the user's to fix; `str(error)` is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(shown(message))

    def __reduce__(self):
        """Pickle the finished message, so that errors cross process borders."""
        return _rebuilt, (type(self), str(self), self.__dict__)


def _rebuilt(kind: type[UserError], message: str, facts: dict) -> UserError:
    error = kind.__new__(kind)
    UserError.__init__(error, message)
    error.__dict__.update(facts)
    return error


class MissingFile(UserError):
    """A file or folder that was named does not exist."""

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        message = f"no such file: {path}"
        if path.parent.is_dir():
            close = near_matches(path.name, (p.name for p in path.parent.iterdir()))
            if close:
                message += f" (did you mean {', '.join(close)}?)"
        else:
            message += f" (the folder {path.parent} does not exist either)"
        super().__init__(message)
        self.path = path


class NoFilesMatch(UserError):
    """A pattern, folder or list of them holds no trace."""

    def __init__(self, pattern: Path | str) -> None:
        super().__init__(
            f"no trace files match '{pattern}'; expected closed *.h5 files, "
            "made by: vla-trace record"
        )
        self.pattern = str(pattern)


class FileExists(UserError):
    """Refusing to overwrite a file."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(f"{path} already exists and is never overwritten; choose another name")
        self.path = Path(path)


class UnwritableFolder(UserError):
    """A folder in which nothing can be created."""

    def __init__(self, path: Path | str, why: str = "permission denied") -> None:
        super().__init__(f"cannot write in {path}: {why}; choose another folder")
        self.path = Path(path)
        self.why = why


class DiskFull(UserError):
    """Refusing to begin a write that would not fit; what was written before is whole."""

    def __init__(self, path: Path | str, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(
            f"the disk is too full to write {path}: {needed_bytes / 1e6:.0f} MB needed, "
            f"{free_bytes / 1e6:.0f} MB free; free some space or choose another folder"
        )
        self.path = Path(path)
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class WriteFailed(UserError):
    """A write failed half way; the file takes no more, what was complete in it stays readable."""

    def __init__(self, path: Path | str, why: str) -> None:
        full = "No space left" in why or "errno = 28" in why
        super().__init__(
            f"could not write {path}: {'the disk is full' if full else why}; the episodes that "
            f"were complete are in it: vla-trace show {path}"
        )
        self.path = Path(path)
        self.why = why


class NotATrace(UserError):
    """A file that exists and is not a readable trace."""

    def __init__(self, path: Path | str, why: str) -> None:
        super().__init__(f"{path} is not a readable trace: {why}")
        self.path = Path(path)
        self.why = why


class NewerFormat(UserError):
    """A trace of a later major version than this reader knows."""

    def __init__(self, path: Path | str, found: int, supported: int) -> None:
        super().__init__(
            f"{path} has trace format version {found}, this vla-trace reads up to version "
            f"{supported}; upgrade it: pip install --upgrade vla-trace"
        )
        self.path = Path(path)
        self.found = found
        self.supported = supported


class DifferentTraces(UserError):
    """Traces of different conditions or settings, which do not go into one file."""

    def __init__(
        self, first: Path | str, mine: object, other: Path | str, theirs: object, what: str
    ) -> None:
        super().__init__(
            f"{other} cannot be merged with {first}: {what} differs, {_short(theirs)} there and "
            f"{_short(mine)} here; merge traces of one condition and setting only"
        )
        self.what = what


class UnknownName(UserError):
    """A name that is not among those that exist: near matches first, then all names if few."""

    def __init__(self, kind: str, given: str, available: Iterable[str]) -> None:
        names = sorted(set(available))
        message = f"unknown {kind} '{given}'"
        close = near_matches(given, names)
        if close:
            message += f"; did you mean {' or '.join(close)}?"
        if not names:
            message += "; there are none here"
        elif len(names) <= MANY_NAMES:
            message += f"{'' if close else ';'} available: {', '.join(names)}"
        elif not close:
            message += f"; available: {', '.join(names[:MANY_NAMES])} and {len(names) - MANY_NAMES}"
            message += " more"
        super().__init__(message)
        self.kind = kind
        self.given = given
        self.available = tuple(names)


class MissingExtra(UserError):
    """A package which only an optional extra installs is not importable."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"the package '{package}' is not installed; it comes with: "
            f"pip install 'vla-trace[{extra}]'"
        )
        self.package = package
        self.extra = extra


class BadIntervention(UserError):
    """An intervention that contradicts itself or cannot be read."""

    def __init__(self, field: str, found: object, expected: str) -> None:
        super().__init__(f"intervention {field}: expected {expected}, found {found!r}")
        self.field = field
        self.expected = expected


class TextTooLong(UserError):
    """A text that does not fit its fixed-length column."""

    def __init__(self, column: str, text: str, limit: int) -> None:
        size = len(text.encode("utf-8", "backslashreplace"))
        start = text if len(text) <= 40 else text[:40] + "…"
        super().__init__(
            f"{column} holds at most {limit} bytes of UTF-8, this text has {size}: '{start}'"
        )
        self.column = column
        self.limit = limit


class BadRecord(ValueError):
    """The caller gave the writer something the format does not hold (a fault in the program)."""

    def __init__(self, place: str, expected: str, found: object) -> None:
        super().__init__(shown(f"{place}: expected {expected}, found {found}"))
        self.place = place


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:79] + "…"

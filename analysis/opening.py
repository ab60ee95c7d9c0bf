"""Opening a trace for analysis: whatever is wrong with the file is one sentence that names it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from traces.errors import NotATrace, UnknownName
from traces.reader import TraceReader


@contextmanager
def opened(path: Path | str) -> Iterator[TraceReader]:
    """Open a trace; damage found while reading it is a `NotATrace` like any other."""
    try:
        with TraceReader(path) as trace:
            yield trace
    except (UnknownName, OSError, KeyError, ValueError, RuntimeError) as error:
        raise NotATrace(path, f"it is damaged ({error})") from error

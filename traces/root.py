"""The root of a trace: is it one of ours, and what do its attributes say?"""

from __future__ import annotations

from pathlib import Path

from traces.errors import NewerFormat, NotATrace, UserError
from traces.header import TraceHeader
from traces.memory import limited_growth
from traces.safety import SafeGroup
from traces.schema import FORMAT, FORMAT_VERSION

OF_A_SHARD = ("shard", "created_utc")
"""Attributes in which the shards of a recording differ."""


def read_header(
    path: Path, file: SafeGroup, known: dict[str, TraceHeader] | None = None
) -> TraceHeader:
    """Return the root attributes of an open file, or say why it is no trace of ours.

    Args:
        path: for what is said.
        file: open.
        known: headers by recording; of a shard of one of them only what is its own is read.
    """
    try:
        if str(file.attrs.get("format")) != FORMAT:
            raise NotATrace(path, f"it is HDF5, but its attribute `format` is not '{FORMAT}'")
        found = int(file.attrs.get("format_version", 0))
        if found > FORMAT_VERSION:
            raise NewerFormat(path, found, FORMAT_VERSION)
        for table in ("episodes", "steps", "decisions"):
            if table not in file:
                raise NotATrace(path, f"it has no table '{table}'")
        with limited_growth():
            known = {} if known is None else known
            if first := known.get(str(file.attrs.get("recording"))):
                own = {name: file.attrs[name] for name in OF_A_SHARD if name in file.attrs}
                return first.of_shard(**own)
            header = TraceHeader.from_attributes(file.attrs)
        if header.recording:
            known[header.recording] = header
        return header
    except (NotATrace, NewerFormat):
        raise
    except (UserError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise NotATrace(path, f"its attributes cannot be read ({error})") from error

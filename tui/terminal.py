"""What every command shares towards the terminal: exit codes, safe text, one JSON object."""

import enum
import json

from traces.errors import shown


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

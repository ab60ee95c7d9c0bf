"""`vla-trace ls [PATHS]`: one line for each recording."""

import time
from typing import TYPE_CHECKING

import click

from tui.terminal import Exit, one_line, to_json

if TYPE_CHECKING:
    from analysis.listing import Listed

HEADERS = ("recording", "condition", "task", "episodes", "success", "MEED cm", "size", "age", "")
RIGHT = {"episodes", "success", "MEED cm", "size", "age"}


@click.command(name="ls")
@click.argument("paths", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(paths: tuple[str, ...], as_json: bool) -> Exit:
    """List the recordings in PATHS: folders, traces or patterns; default: traces/.

    One line a recording, its shards together, the newest first: condition, task, episodes,
    successes of those that no error cut short, MEED, size, and how long ago it changed.
    """
    from analysis.listing import listing
    from traces.catalog import find_traces

    listed = listing(find_traces(paths or ("traces",), partial=True))
    if as_json:
        click.echo(to_json({"schema": 1, "recordings": [_json(entry) for entry in listed]}))
        return Exit.OK
    rows = [HEADERS, *(_row(entry, time.time()) for entry in listed)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(HEADERS, row, widths, strict=True)
        line = "  ".join(c.rjust(w) if h in RIGHT else c.ljust(w) for h, c, w in cells)
        click.echo(line.rstrip())
    return Exit.OK


def _row(entry: "Listed", now: float) -> tuple[str, ...]:
    from tui.wording import number

    name = one_line(entry.paths[0])
    if len(entry.paths) > 1:
        name += f" and {len(entry.paths) - 1} more"
    size, age = _size(entry.bytes), _age(now - entry.changed_s)
    if entry.trouble:
        return (name, "", "", "", "", "", size, age, f"unreadable: {one_line(entry.trouble)}")
    return (
        name,
        one_line(entry.condition),
        one_line(", ".join(entry.tasks)),
        str(entry.episodes),
        f"{entry.successes}/{entry.counted}",
        number(entry.meed_cm),
        size,
        age,
        "; ".join(_remarks(entry)),
    )


def _remarks(entry: "Listed") -> list[str]:
    remarks = ["unfinished"] if entry.partial else []
    if entry.missing:
        remarks.append(f"no shard {', '.join(map(str, entry.missing))}")
    if broken := entry.episodes - entry.counted:
        remarks.append(f"{broken} cut short by an error")
    return remarks


def _json(entry: "Listed") -> dict:
    return {
        "files": [str(path) for path in entry.paths],
        "run_id": entry.run_id,
        "kind": entry.kind,
        "created_utc": entry.created_utc,
        "suite": entry.suite,
        "tasks": list(entry.tasks),
        "condition": entry.condition,
        "intervention": entry.intervention or None,
        "alpha": entry.alpha,
        "episodes": entry.episodes,
        "counted": entry.counted,
        "successes": entry.successes,
        "meed_cm": entry.meed_cm,
        "bytes": entry.bytes,
        "changed": entry.changed_s,
        "finished": not entry.partial,
        "missing_shards": list(entry.missing),
        "error": one_line(entry.trouble) or None,
    }


def _age(seconds: float) -> str:
    """Return "12 s", "5 min", "3 h" or "8 d"."""
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / unit:.0f} {name}"
    return f"{seconds / 86400:.0f} d"


def _size(number: int) -> str:
    """Bytes for people, in powers of 1000."""
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if number >= 1000**power:
            return f"{number / 1000**power:.1f} {unit}"
    return f"{number} B"

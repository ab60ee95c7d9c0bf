"""`vla-trace prune FILE --drop ... --out NEW`: a smaller copy of a trace."""

import re
from pathlib import Path

import click

from traces.errors import UserError
from tui.terminal import Exit, one_line, to_json


@click.command(name="prune")
@click.argument("file")
@click.option(
    "--drop",
    "dropped",
    multiple=True,
    metavar="PART",
    help='activations, a site or "vlm.*", chain, frames, objects, sim_state; repeat for more.',
)
@click.option("--keep-episodes", metavar="ROWS", help="Episodes to keep, such as 0-9,15.")
@click.option("--out", metavar="NEW", required=True, help="Name of the new file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    file: str, dropped: tuple[str, ...], keep_episodes: str | None, out: str, as_json: bool
) -> Exit:
    """Write a copy of the trace FILE without some of what was recorded; FILE stays as it is."""
    from traces.prune import prune

    if not dropped and keep_episodes is None:
        raise UserError("nothing to leave out; add --drop PART or --keep-episodes ROWS")
    episodes = None if keep_episodes is None else _rows(keep_episodes)
    done = prune(Path(file).expanduser(), Path(out).expanduser(), dropped, episodes)
    if as_json:
        found = {
            "schema": 1,
            "file": file,
            "new": str(done.path),
            "episodes": done.episodes,
            "dropped": list(done.dropped),
            "bytes_before": done.bytes_before,
            "bytes_after": done.bytes_after,
        }
        click.echo(to_json(found))
        return Exit.OK
    click.echo(str(done.path))
    without = f" without {one_line(', '.join(done.dropped))}" if done.dropped else ""
    smaller = f"{done.bytes_before} bytes before, {done.bytes_after} after"
    click.echo(f"{done.episodes} episodes{without}: {smaller}", err=True)
    return Exit.OK


def _rows(text: str) -> list[int]:
    """Return the numbers that "0-9,15" names, ascending."""
    rows: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            shown = one_line(text)
            raise UserError(f"--keep-episodes {shown!r}: expected rows such as 0-9,15")
        rows.update(range(first, last + 1))
    return sorted(rows)

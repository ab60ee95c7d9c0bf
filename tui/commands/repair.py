"""`vla-trace repair FILE`: what is whole of a damaged or unfinished trace, as a new file."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tui.terminal import Exit, one_line, to_json

if TYPE_CHECKING:
    from traces.repair import Repaired


@click.command(name="repair")
@click.argument("file")
@click.option("--out", metavar="NEW", help="Name of the new file; default: beside FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(file: str, out: str | None, as_json: bool) -> Exit:
    """Save every complete episode of FILE in a new trace that passes `vla-trace check`.

    FILE is a .partial that a crash left, or a trace that is cut off or damaged; it is only read.
    Says what is lost: episodes that cannot be read are left out, and so are rows of activations,
    objects and frames; what the format allows to be unknown becomes unknown.
    """
    from traces.repair import repair

    done = repair(Path(file).expanduser(), None if out is None else Path(out).expanduser())
    for line in done.lost:
        click.echo(f"lost: {one_line(line)}", err=True)
    if as_json:
        click.echo(to_json(_json(file, done)))
    else:
        click.echo(str(done.path))
        click.echo(f"{done.episodes} of {done.complete} complete episodes saved", err=True)
    return Exit.OK


def _json(file: str, done: "Repaired") -> dict:
    return {
        "schema": 1,
        "file": file,
        "new": str(done.path),
        "episodes": done.episodes,
        "complete_episodes": done.complete,
        "lost": [one_line(line) for line in done.lost],
    }

"""`vla-trace merge FILES --out NEW`: one file out of several of one condition."""

from pathlib import Path

import click

from traces.errors import UserError
from tui.terminal import Exit, to_json


@click.command(name="merge")
@click.argument("files", nargs=-1, required=True)
@click.option("--out", metavar="NEW", required=True, help="Name of the new file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(files: tuple[str, ...], out: str, as_json: bool) -> Exit:
    """Write one trace with the episodes of FILES: traces, folders or "quoted/*.h5" patterns.

    FILES are the shards of one recording, or recordings of the same condition and setting. Of an
    episode that is there twice the newest session stays. The files themselves stay as they are.
    """
    from traces.catalog import find_traces
    from traces.merge import merge

    paths = find_traces(files)
    if len(paths) < 2:
        raise UserError(f"{paths[0]} is the only file that matches; name at least two")
    done = merge(paths, Path(out).expanduser())
    if as_json:
        found = {"new": str(done.path), "files": done.files, "episodes": done.episodes}
        click.echo(to_json({"schema": 1, **found, "repeated": done.repeated}))
        return Exit.OK
    click.echo(str(done.path))
    repeated = f", {done.repeated} repeated ones left out" if done.repeated else ""
    click.echo(f"{done.episodes} episodes of {done.files} files{repeated}", err=True)
    return Exit.OK

"""`vla-trace figures FILES`: what analyze reports, as pictures."""

import importlib.util
from pathlib import Path

import click

from traces.errors import MissingExtra, UnwritableFolder
from tui.terminal import Exit


@click.command(name="figures")
@click.argument("files", nargs=-1, required=True)
@click.option("-o", "--out", default="figures", show_default=True, help="Folder of the pictures.")
@click.option("--png", is_flag=True, help="PNG; default: SVG.")
def command(files: tuple[str, ...], out: str, png: bool) -> Exit:
    """Draw what the conditions recorded in FILES did: traces, folders or patterns.

    Dose-response beside random clusters and the prompt (two doses or more), change over cluster
    size (two sizes or more), and conditions without a dose: ablations, prompts, patches. Pictures
    of the same name are replaced.
    """
    from analysis.outcome import analyse

    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("matplotlib", "figures")
    from analysis.figures import draw

    report = analyse(files)
    try:
        written = draw(report, Path(out), "png" if png else "svg")
    except OSError as error:
        raise UnwritableFolder(Path(out), (error.strerror or str(error)).lower()) from error
    for path in written:
        click.echo(str(path))
    if not written:
        click.echo("nothing to draw: record two doses, two sizes or two prompts", err=True)
    return Exit.OK

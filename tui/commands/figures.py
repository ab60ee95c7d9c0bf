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
@click.option("--study", is_flag=True, help="The founding study's Figures 2, 3, 4 and Table 1.")
@click.option("--base", default="", metavar="NAME|FILE", help="Policy that others were tuned from.")
def command(files: tuple[str, ...], out: str, png: bool, study: bool, base: str) -> Exit:
    """Draw what the conditions recorded in FILES did: traces, folders or patterns.

    Dose-response beside random clusters and the prompt (two doses or more), change over cluster
    size (two sizes or more), and conditions without a dose: ablations, prompts, patches. Pictures
    of the same name are replaced.

    With --study the layouts of the study that this project grew from: a concept's neurons, the
    cumulative value of training, MEED over alpha, success task by task before and after.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("matplotlib", "figures")
    from analysis.figures import drawn, write_files
    from analysis.outcome import analyse
    from analysis.study import study as of_the_study

    kind, folder = "png" if png else "svg", Path(out)
    if study:
        found = of_the_study(files, kind, base)
        made, notes = found.files, found.notes
    else:
        made = {f"{name}.{kind}": file for name, file in drawn(analyse(files), kind)}
        notes = () if made else ("nothing to draw: record two doses, two sizes or two prompts",)
    try:
        written = write_files(folder, made)
    except OSError as error:
        raise UnwritableFolder(folder, (error.strerror or str(error)).lower()) from error
    for path in written:
        click.echo(str(path))
    for note in notes:
        click.echo(note, err=True)
    return Exit.OK

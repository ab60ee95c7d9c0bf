"""`vla-trace report FILES`: everything about some traces on one page."""

import importlib.util
import shlex
from pathlib import Path

import click

from traces.errors import MissingExtra, UserError
from tui.terminal import Exit, one_line, write_text


@click.command(name="report")
@click.argument("files", nargs=-1, required=True)
@click.option("-o", "--out", default="report.html", show_default=True, metavar="FILE")
@click.option("--base", default="", metavar="NAME|FILE", help="Policy that others were tuned from.")
@click.option("--force", is_flag=True, help="Replace an earlier FILE.")
def command(files: tuple[str, ...], out: str, base: str, force: bool) -> Exit:
    """Write one page about FILES: traces, folders or "quoted/*.h5" patterns.

    Outcome, base against fine-tuned, motion, safety, groups and advantages, figures, films of
    paired episodes (recorded with --keep frames), what the numbers do not rest on, and how to make
    the page again. It needs no network and nothing beside it, and can be read on a phone.
    """
    for package in ("matplotlib", "PIL"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "figures")
    from analysis.report import report_page
    from analysis.report_tables import Options

    path = Path(out)
    if path.exists() and not force:
        raise UserError(f"{one_line(out)} exists; replace it with --force, or take another --out")
    typed = ["vla-trace", "report", *files, "-o", out] + (["--base", base] if base else [])
    write_text(path, report_page(files, shlex.join(typed), Options(base)))
    click.echo(one_line(out))
    return Exit.OK

"""One figure in one file: the `--figure` of a command."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from traces.errors import MissingExtra, UserError
from tui.terminal import free_path, one_line, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = (".svg", ".png")


def picture_path(file: str | None, force: bool) -> Path | None:
    """Return where a picture goes, checked before anything is computed; None: no picture.

    Raises:
        UserError: another ending than `KINDS`, or it exists and there is no --force.
        MissingExtra: nothing that could draw it.
    """
    if file is None:
        return None
    if Path(file).suffix not in KINDS:
        raise UserError(f"--figure {one_line(file)}: expected a name that ends in .svg or .png")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("matplotlib", "figures")
    return free_path(file, force)


def write_picture(path: Path | None, make: "Callable[[], Figure]") -> None:
    """Draw a picture and say so on stderr; nothing without a path."""
    if path is not None:
        from analysis.drawing import rendered

        write_bytes(path, rendered(make, path.suffix[1:]))
        click.echo(f"drew {one_line(path)}", err=True)

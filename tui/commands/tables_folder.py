"""A folder of tables, as Parquet and CSV, with what made it: the `--out` of a command."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tui.terminal import one_line, to_json, write_text

if TYPE_CHECKING:
    import polars as pl


def write_folder(
    out: str,
    made_by: str,
    frames: "Mapping[str, pl.DataFrame]",
    notes: Sequence[str],
    sources: Sequence[str],
    force: bool,
) -> None:
    """Write tables into a folder that gets its name when it is whole, and say so on stderr."""
    from analysis.report_tables import Tables, write_tables
    from traces.export.target import MARK, fresh

    files = [Path(name) for name in sources if Path(name).exists()]
    with fresh(Path(out).expanduser(), files, force=force) as folder:
        names = write_tables(folder, {made_by: Tables(dict(frames), tuple(notes))})
        facts = {"made_by": f"vla-trace {made_by}", "files": sorted(sources), "tables": names}
        write_text(folder / MARK, to_json(facts))
    click.echo(f"wrote {len(names)} tables to {one_line(out)}", err=True)

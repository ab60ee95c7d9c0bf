"""`vla-trace export FILES --to FORMAT -o OUT`: traces as the dataset of another tool."""

import importlib
from pathlib import Path

import click

from traces.errors import MissingExtra, UnknownName, UserError
from tui.terminal import Exit, one_line, to_json

FORMATS = {
    "robomimic": (".hdf5", "LIBERO and robomimic: one HDF5 file"),
    "lerobot": ("", "LeRobotDataset v3: a folder"),
    "parquet": ("", "tables for polars, DuckDB, pandas: a folder"),
    "rerun": (".rrd", "Rerun: one file, to be looked at"),
}
"""Name -> (how the output must end, what it is)."""

DATASET_EXTRA = frozenset({"datasets", "pandas", "pyarrow", "av", "jsonlines"})
"""Modules that lerobot needs for datasets only."""


@click.command(
    name="export",
    help="""Write the episodes of FILES (traces, folders, "quoted/*.h5" patterns) for another tool.

    \b
      vla-trace export traces/*.h5 --to robomimic -o lift.hdf5
      vla-trace export traces/*.h5 --to lerobot -o lift_dataset
      vla-trace export traces/*.h5 --to parquet -o lift_tables
      vla-trace export traces/*.h5 --to rerun -o lift.rrd

    robomimic and lerobot want the policy's pictures at every step, which `vla-trace record --keep
    frames` keeps.
    """,
)
@click.argument("files", nargs=-1, required=True)
@click.option("--to", "name", metavar="|".join(FORMATS), required=True, help="Format.")
@click.option("-o", "--out", metavar="OUT", required=True, help="Name of the new file or folder.")
@click.option("--no-frames", is_flag=True, help="Leave pictures out.")
@click.option("--no-activations", is_flag=True, help="Leave activations out.")
@click.option("--force", is_flag=True, help="Replace an earlier export of that name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    files: tuple[str, ...],
    name: str,
    out: str,
    no_frames: bool,
    no_activations: bool,
    force: bool,
    as_json: bool,
) -> Exit:
    """Open the traces, write beside OUT, rename."""
    from traces.collection import open_traces
    from traces.export.target import fresh

    if name not in FORMATS:
        raise UnknownName("format", name, FORMATS)
    target = Path(out).expanduser()
    ending = FORMATS[name][0]
    if ending and target.suffix != ending:
        raise UserError(f"--out {one_line(out)!r}: a file of --to {name} must end in {ending}")
    exporter = importlib.import_module(f"traces.export.{name}")
    with open_traces(*files) as traces, fresh(target, traces.paths, force=force) as path:
        if not traces.n_episodes:
            raise UserError(f"no complete episode in {one_line(', '.join(files))}")
        try:
            told = exporter.export(
                traces, path, frames=not no_frames, activations=not no_activations
            )
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in DATASET_EXTRA:
                raise MissingExtra(error.name or "", "dataset") from error
            raise
        notes = [*traces.notes, *told]
        counts = {"episodes": traces.n_episodes, "steps": traces.n_steps}
    if as_json:
        found = {"schema": 1, "format": name, "out": str(target), **counts, "notes": notes}
        click.echo(to_json(found))
        return Exit.OK
    for note in notes:
        click.echo(f"note: {one_line(note)}", err=True)
    click.echo(str(target))
    click.echo(f"{counts['episodes']} episodes, {counts['steps']} steps", err=True)
    return Exit.OK

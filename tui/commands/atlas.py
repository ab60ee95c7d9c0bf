"""`vla-trace atlas FILES`: which expert neurons act at which denoising step, for which action."""

from itertools import batched
from typing import TYPE_CHECKING

import click

from tui.commands.picture import picture_path, write_picture
from tui.commands.tables_folder import write_folder
from tui.terminal import Exit, one_line, to_json

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console

    from analysis.atlas import Atlas, AtlasChange


@click.command(
    name="atlas",
    help="""Show where in denoising the expert of a policy acts: steps down, action rows across.

    FILES are traces whose expert was recorded step by step and row by row. With --against, how the
    picture of TUNED differs, best on equal inputs:

    \b
      vla-trace record --keep frames --capture 'expert.*.ffn_act:tokens=chunk,keep=each' --out base
      vla-trace record --replay base/FILE.h5 --policy CHECKPOINT --out tuned \\
          --capture 'expert.*.ffn_act:tokens=chunk,keep=each'
      vla-trace atlas base
      vla-trace atlas base --against tuned

    Another intervention may stand in the place of another policy: record --replay --steer.
    """,
)
@click.argument("files", nargs=-1, required=True)
@click.option("--against", multiple=True, metavar="TUNED", help="Compare with these; repeatable.")
@click.option("--top", type=click.IntRange(min=1), default=8, show_default=True, help="Neurons.")
@click.option("--out", metavar="FOLDER", help="Write the tables there, as Parquet and CSV.")
@click.option("--figure", metavar="FILE", help="Draw it (.svg, .png).")
@click.option("--force", is_flag=True, help="Replace an earlier FOLDER or FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, every row in it.")
def command(
    files: tuple[str, ...],
    against: tuple[str, ...],
    top: int,
    out: str | None,
    figure: str | None,
    force: bool,
    as_json: bool,
) -> Exit:
    """Print the atlas, or its change."""
    from analysis.atlas import atlas, atlas_change
    from analysis.figures_inside import atlas_figure
    from traces.collection import open_traces

    picture = picture_path(figure, force)
    with open_traces(*files) as one:
        if against:
            with open_traces(*against) as other:
                found = atlas_change(one, other)
            frames = {"atlas_change": found.cells}
            facts = {"design": found.design, "base": found.base, "tuned": found.tuned}
        else:
            found = atlas(one)
            frames = {"atlas_cells": found.cells, "atlas_neurons": found.neurons}
            facts = {"policy": found.policy}
    if out is not None:
        write_folder(out, "atlas", frames, found.notes, (*files, *against), force)
    write_picture(picture, lambda: atlas_figure(found))
    if as_json:
        tables = {name: frame.to_dicts() for name, frame in frames.items()}
        click.echo(to_json({"schema": 1} | facts | tables | {"notes": list(found.notes)}))
    elif against:
        _print_change(found)
    else:
        _print_atlas(found, top)
    return Exit.OK


def _print_atlas(found: "Atlas", top: int) -> None:
    from tui.commands.strips import console, number, print_rows

    screen = console()
    n, episodes = found.cells["n"][0], found.cells["episodes"][0]
    screen.print(one_line(f"{found.policy}: {n} decisions of {episodes} episodes"), style="bold")
    screen.print("strength (rms) of each layer; down: denoising steps, across: action rows\n")
    _print_heat(screen, found.cells, "strength")
    strong = found.neurons.filter(found.neurons["strength"] > found.neurons["strength"].median())
    even = 1 / found.cells["step"].n_unique()
    ranked = strong.sort("step_share", "site", "neuron", descending=[True, False, False])
    screen.print(
        f"neurons most of one step, of the stronger half; a share of {even:.2f} would be even"
    )
    headers = ("neuron", "strength", "step", "share", "step centre", "row centre")
    lines = [
        (
            f"expert {row['layer']} {row['kind']} {row['neuron']}",
            number(row["strength"]),
            str(row["step_peak"]),
            f"{row['step_share']:.2f}",
            f"{row['step_centre']:.2f}",
            f"{row['row_centre']:.2f}",
        )
        for row in ranked.head(top).to_dicts()
    ]
    print_rows(screen, headers, lines)
    for note in found.notes:
        screen.print(f"note: {one_line(note)}")


def _print_change(found: "AtlasChange") -> None:
    from tui.commands.strips import console

    screen = console()
    n, episodes = found.cells["n"][0], found.cells["episodes"][0]
    screen.print(one_line(f"{found.base} -> {found.tuned}"), style="bold")
    screen.print(f"{found.design}: {n} decisions of {episodes} episodes")
    column, what = "moved", "how far activations moved, |tuned - base| / |base|"
    if found.design != "replay":
        column, what = "change", "change of strength, tuned / base - 1"
    screen.print(f"{what}; down: denoising steps, across: action rows\n")
    _print_heat(screen, found.cells, column)
    tested = found.cells["p"].count()
    sure = (found.cells["p_holm"] <= 0.05).sum()
    if tested:
        screen.print(f"strength changed in {sure} of {tested} cells (p <= 0.05, Holm over all)")
    else:
        screen.print("fewer than 6 episodes test nothing")
    for note in found.notes:
        screen.print(f"note: {one_line(note)}")


def _print_heat(screen: "Console", cells: "pl.DataFrame", column: str) -> None:
    """Layers side by side, as many as fit: a line a step, a shade a row, each on its own scale."""
    from tui.commands.strips import number, shade

    pictures = []
    for _, part in cells.group_by("site", maintain_order=True):
        low, high = part[column].min(), part[column].max()
        lines = [shade(line[column].to_list(), low, high) for line in _steps(part)]
        title = f"expert {part['layer'][0]} {part['kind'][0]}"
        span = f"{number(low, 2)} to {number(high, 2)}"
        width = max(len(title), len(span), len(lines[0]), 18)
        pictures.append([text.ljust(width) for text in (title, span, *lines)])
    fitting = max(1, screen.width // (len(pictures[0][0]) + 2))
    for group in batched(pictures, fitting):
        for line in zip(*group, strict=True):
            screen.print("  ".join(line).rstrip())
        screen.print()


def _steps(part: "pl.DataFrame") -> "list[pl.DataFrame]":
    return part.partition_by("step", maintain_order=True)

"""`vla-trace meaning FILES`: what recorded neurons follow, and whether they come back."""

from typing import TYPE_CHECKING

import click

from traces.errors import UnknownName
from tui.commands.tables_folder import write_folder
from tui.terminal import Exit, one_line, to_json
from tui.wording import UNKNOWN, number, p_value

if TYPE_CHECKING:
    import polars as pl

    from analysis.meaning import Meaning

SHOWN = 5
"""Neurons a signal on a terminal unless --top says otherwise; machines get all."""


@click.command(
    name="meaning",
    help="""Show what the recorded neurons in FILES follow: speed, gripper, contact, phase.

    FILES are unsteered traces of one policy: files, folders or "quoted/*.h5" patterns. For each
    signal, the neurons that most surely follow it: the mean over n episodes of the correlation r
    within each, with its 95 % interval; beside it ("other") what the signals of other episodes
    give, as a shared course of time does. p is that r is not 0 and goes beyond other; the last
    column corrects it over all neurons (Benjamini and Hochberg). Then, per site, how many neurons
    are general, memorised or silent.

    \b
      vla-trace meaning traces/*.h5
      vla-trace meaning traces/*.h5 --site vlm.3 --signal speed --top 15

    docs/meaning.md defines every number.
    """,
)
@click.argument("files", nargs=-1, required=True)
@click.option("--site", "sites", multiple=True, metavar="vlm.3", help="These only; repeatable.")
@click.option("--signal", "signals", multiple=True, metavar="NAME", help="These only; repeatable.")
@click.option("--top", type=click.IntRange(1), help=f"Neurons; {SHOWN} on a terminal, else all.")
@click.option("--out", metavar="FOLDER", help="Write the tables there, as Parquet and CSV.")
@click.option("--force", is_flag=True, help="Replace an earlier FOLDER.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    files: tuple[str, ...],
    sites: tuple[str, ...],
    signals: tuple[str, ...],
    top: int | None,
    out: str | None,
    force: bool,
    as_json: bool,
) -> Exit:
    """Print the tables, after writing them where that is asked for."""
    from analysis.meaning import meaning
    from analysis.signals import SIGNALS

    for name in signals:
        if name not in SIGNALS:
            raise UnknownName("signal", name, SIGNALS)
    found = meaning(files, sites)
    frames = {"signals": found.signals, "coverage": found.coverage, "sites": found.sites}
    if out is not None:
        named = {f"meaning_{name}": frame for name, frame in frames.items()}
        write_folder(out, "meaning", named, found.notes, files, force)
    wanted = [name for name in SIGNALS if not signals or name in signals]
    if as_json:
        import polars as pl

        frames["signals"] = pl.concat(_surest(found, name)[:top] for name in wanted)
        facts = {"policy": found.policy, "episodes": found.episodes, "decisions": found.decisions}
        tables = {name: frame.to_dicts() for name, frame in frames.items()}
        click.echo(to_json({"schema": 1} | facts | tables | {"notes": list(found.notes)}))
    else:
        _print(found, wanted, top or SHOWN)
    return Exit.OK


def _surest(found: "Meaning", signal: str) -> "pl.DataFrame":
    """Return a signal's neurons by the p that they follow it, then by the size of r."""
    import polars as pl

    rows = found.signals.filter(pl.col("signal") == signal)
    return rows.sort("p_follows", -pl.col("r").abs(), "site", "neuron", nulls_last=True)


def _print(found: "Meaning", signals: list[str], top: int) -> None:
    from rich.console import Console

    from analysis.conditions import count_of

    neurons = found.sites["neurons"].sum()
    click.echo(
        one_line(
            f"{found.policy}: {count_of(found.episodes)}, {count_of(found.decisions, 'decision')}, "
            f"{count_of(len(found.sites), 'site')}, {count_of(neurons, 'neuron')}"
        )
    )
    for name in signals:
        _print_signal(name, _surest(found, name), top)
    _print_sites(found.sites)
    console = Console(highlight=False, markup=False, emoji=False)
    console.print()
    for note in found.notes:
        console.print(f"note: {one_line(note)}")


def _print_signal(name: str, rows: "pl.DataFrame", top: int) -> None:
    from analysis.meaning import LEVEL
    from analysis.signals import CLOCK, SIGNALS

    click.echo(f"\n{name}, {SIGNALS[name]}")
    known = rows.drop_nulls("r")
    if known.is_empty():
        click.echo("  no correlation: see the notes")
        return
    shown = [("p_bh", "r is not 0 in"), ("p_follows_bh", "followed by")]
    for column, what in shown[:1] if name == CLOCK else shown:
        if tested := known[column].count():
            share = f"{(known[column] <= LEVEL).sum()} of {tested} neurons"
            click.echo(f"  {what} {share} (corrected, {100 * LEVEL:.0f} %)")
    header = ("neuron", "n", "r", "95 %", "other", "p", "corrected")
    _print_rows(header, [_cells(row) for row in known.head(top).iter_rows(named=True)])


def _cells(row: dict) -> tuple[str, ...]:
    low, high = row["low"], row["high"]
    return (
        f"{one_line(row['site'])} {row['neuron']}",
        str(row["n"]),
        number(row["r"], sign="+"),
        UNKNOWN if low is None else f"[{number(low, sign='+')}, {number(high, sign='+')}]",
        number(row["r_other"], sign="+"),
        p_value(row["p_follows"]).removeprefix("p ") or UNKNOWN,
        p_value(row["p_follows_bh"]).removeprefix("p ") or UNKNOWN,
    )


def _print_sites(sites: "pl.DataFrame") -> None:
    click.echo("\ngeneral or memorised, neurons a site")
    header = ("site", "episodes", "neurons", "general", "share", "memorised", "silent")
    shares = [UNKNOWN if one is None else f"{100 * one:.0f}%" for one in sites["general_share"]]
    columns = ("site", "episodes", "neurons", "general", "memorised", "silent")
    cells = [[one_line(cell) for cell in row] for row in sites.select(columns).iter_rows()]
    rows = [(*row[:4], share, *row[4:]) for row, share in zip(cells, shares, strict=True)]
    _print_rows(header, rows)


def _print_rows(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print columns of text, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        first, *others = row
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        click.echo("  ".join(["  " + first.ljust(widths[0]), *cells]).rstrip())

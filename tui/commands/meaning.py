"""`vla-trace meaning FILES`: what recorded neurons follow, and whether they come back."""

from typing import TYPE_CHECKING

import click

from traces.errors import UnknownName
from tui.commands.tables_folder import write_folder
from tui.terminal import Exit, one_line, to_json

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console

    from analysis.meaning import Meaning

SHOWN = 5
"""Neurons a signal on a terminal unless --top says otherwise; machines get all."""


@click.command(
    name="meaning",
    help="""Show what the recorded neurons in FILES follow: speed, gripper, contact, phase.

    FILES are unsteered traces of one policy: files, folders or "quoted/*.h5" patterns. For each
    signal, the neurons that most surely follow it: the mean over n episodes of the correlation r
    within each, with its 95 % interval; beside it ("other") what the signals of other episodes
    give, as a shared course of time does. p tests that r is not 0 and goes beyond other; the last
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
    from analysis.conditions import count_of
    from tui.commands.strips import console

    screen = console()
    counts = [
        count_of(found.episodes),
        count_of(found.decisions, "decision"),
        count_of(len(found.sites), "site"),
        count_of(found.sites["neurons"].sum(), "neuron"),
    ]
    screen.print(one_line(f"{found.policy}: {', '.join(counts)}"), style="bold")
    for name in signals:
        _print_signal(screen, name, _surest(found, name), top)
    _print_sites(screen, found.sites)
    for note in found.notes:
        screen.print(f"note: {one_line(note)}")


def _print_signal(screen: "Console", name: str, rows: "pl.DataFrame", top: int) -> None:
    from analysis.meaning import LEVEL
    from analysis.signals import CLOCK, SIGNALS
    from tui.commands.strips import print_rows

    screen.print(f"\n{name}, {SIGNALS[name]}", style="bold")
    known = rows.drop_nulls("r")
    if known.is_empty():
        screen.print("no correlation: see the notes")
        return
    counted = [("p_bh", "r is not 0 in"), ("p_follows_bh", "followed by")]
    for column, what in counted[:1] if name == CLOCK else counted:
        if tested := known[column].count():
            share = f"{(known[column] <= LEVEL).sum()} of {tested} neurons"
            screen.print(f"{what} {share} (corrected, {100 * LEVEL:.0f} %)")
    headers = ("neuron", "n", "r", "95 %", "other", "p", "corrected")
    print_rows(screen, headers, [_cells(row) for row in known.head(top).iter_rows(named=True)])


def _cells(row: dict) -> tuple[str, ...]:
    from tui.commands.strips import p_value

    low, high = row["low"], row["high"]
    return (
        f"{one_line(row['site'])} {row['neuron']}",
        str(row["n"]),
        _signed(row["r"]),
        "-" if low is None else f"[{_signed(low)}, {_signed(high)}]",
        _signed(row["r_other"]),
        p_value(row["p_follows"]),
        p_value(row["p_follows_bh"]),
    )


def _signed(r: float | None) -> str:
    return "-" if r is None else f"{r:+.2f}"


def _print_sites(screen: "Console", sites: "pl.DataFrame") -> None:
    from tui.commands.strips import print_rows

    screen.print("\ngeneral or memorised, neurons a site", style="bold")
    headers = ("site", "episodes", "neurons", "general", "share", "memorised", "silent")
    rows = [
        (
            one_line(row["site"]),
            *(str(row[name]) for name in headers[1:4]),
            "-" if row["general_share"] is None else f"{100 * row['general_share']:.0f}%",
            *(str(row[name]) for name in headers[5:]),
        )
        for row in sites.iter_rows(named=True)
    ]
    print_rows(screen, headers, rows)
    screen.print()

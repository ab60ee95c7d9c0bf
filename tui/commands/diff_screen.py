"""What `vla-trace diff` prints: sites or matrices, a strip of the layers, the neurons on top."""

from typing import TYPE_CHECKING

import polars as pl

from tui.commands.strips import console, number, p_value, print_rows, strip
from tui.terminal import one_line
from tui.wording import DESIGNS

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.shifts import Shifts
    from engine.weight_diff import WeightDiff

TOWERS = {"vlm": 0, "expert": 1}
WORDS = 18
"""Characters of the top tokens shown of a value vector."""


def print_shifts(found: "Shifts", top: int) -> None:
    """Print activation shifts."""
    screen = console()
    screen.print(one_line(f"{found.base} -> {found.tuned}"), style="bold")
    episodes = " and ".join(map(str, sorted(set(found.episodes))))
    screen.print(f"{found.design}: {DESIGNS[found.design]}; {episodes} episodes")
    screen.print()
    sites = _vlm_first(found.sites)
    headers = ("site", "rows", "median |d|", "max |d|", "cosine", "CKA", "shuffled", "found")
    print_rows(screen, headers, map(_site_line, sites.to_dicts()))
    screen.print(
        f"found: neurons with p <= 0.05 of those tested ({found.correction} over all); cosine: of "
        "mean vectors",
        style="dim",
    )
    _print_strips(screen, sites, "median_d", "median |d|")
    moved = found.neurons.filter(pl.col("d").abs() > 0)
    ranked = moved.sort(pl.col("d").abs(), "site", "neuron", descending=[True, False, False])
    if len(ranked):
        screen.print(f"\nneurons by |d|, {min(top, len(ranked))} of {len(ranked)}")
        headers = ("neuron", "base", "tuned", "sd", "d", "KS", "p", found.correction)
        print_rows(screen, headers, map(_neuron_line, ranked.head(top).to_dicts()))
    _print_notes(screen, found.notes)


def print_weights(found: "WeightDiff", top: int) -> None:
    """Print weight differences."""
    screen = console()
    screen.print(one_line(f"{found.base} -> {found.tuned}"), style="bold")
    screen.print("weights: relative is |change| / |base|, Frobenius norms")
    screen.print()
    headers = ("tower", "changed", "of", "weights", "|change|", "relative", "")
    print_rows(screen, headers, map(_tower_line, found.towers.to_dicts()))
    moved = found.matrices.filter(~pl.col("frozen")).sort(
        "relative", "parameter", descending=[True, False], nulls_last=True
    )
    if len(moved):
        screen.print(f"\nmatrices by relative change, {min(top, len(moved))} of {len(moved)}")
        headers = ("matrix", "shape", "|base|", "|change|", "relative")
        print_rows(screen, headers, map(_matrix_line, moved.head(top).to_dicts()), left=2)
    layers = found.values.group_by("tower", "layer", maintain_order=True).agg(
        pl.col("angle").median(), pl.col("frozen").all(), kind=pl.lit("value vectors")
    )
    _print_strips(screen, layers, "angle", "median angle, degrees")
    turned = found.values.filter(~pl.col("frozen")).sort(
        "angle", "tower", "layer", "neuron", descending=[True, False, False, False], nulls_last=True
    )
    if len(turned):
        screen.print(f"\nvalue vectors by angle, {min(top, len(turned))} of {len(turned)}")
        headers = ("neuron", "angle", "norm", "change", "kept", "top tokens, before -> after")
        lines = [_value_line(row) for row in turned.head(top).to_dicts()]
        print_rows(screen, headers, lines, words=1)
    _print_notes(screen, found.notes)


def _site_line(row: dict) -> tuple[str, ...]:
    n = str(row["n_base"])
    if row["n_base"] != row["n_tuned"]:
        n += f", {row['n_tuned']}"
    if row["frozen"]:
        return (row["site"], n, "frozen", "0", "1", "1", "-", "0/0")
    return (
        row["site"],
        n,
        number(row["median_d"]),
        number(row["max_d"]),
        _near_one(row["mean_cosine"]),
        _near_one(row["cka"]),
        number(row["cka_shuffled"], 2),
        f"{row['found']}/{row['tested']}",
    )


def _near_one(value: float | None) -> str:
    """A similarity; what is not quite 1 is not written so."""
    return ">.999" if value is not None and 0.9995 <= value < 1 else number(value)


def _neuron_line(row: dict) -> tuple[str, ...]:
    return (
        f"{row['site']} {row['neuron']}",
        number(row["mean_base"]),
        number(row["mean_tuned"]),
        number(row["sd_base"], 2),
        number(row["d"], sign="+"),
        number(row["ks"]),
        p_value(row["p"]),
        p_value(row["p_corrected"]),
    )


def _tower_line(row: dict) -> tuple[str, ...]:
    return (
        row["tower"],
        str(row["changed"]),
        str(row["parameters"]),
        f"{row['size']:,}",
        number(row["delta_norm"]),
        number(row["relative"]),
        "frozen" if row["frozen"] else "",
    )


def _matrix_line(row: dict) -> tuple[str, ...]:
    name = one_line(row["parameter"])
    place = row["tower"] if row["layer"] is None else f"{row['tower']}.{row['layer']}"
    leaf = ".".join(name.removesuffix(".weight").split(".")[-2:])
    values = (number(row[key]) for key in ("norm", "delta_norm", "relative"))
    return (f"{place} {leaf}", row["shape"], *values)


def _value_line(row: dict) -> tuple[str, ...]:
    words = "-"
    if row["top_base"] is not None:
        before, after = (one_line(row[key]) for key in ("top_base", "top_tuned"))
        words = f"{_first_words(before)} -> {_first_words(after)}"
    return (
        f"{row['tower']}.{row['layer']}:{row['neuron']}",
        number(row["angle"]),
        number(row["norm_base"], 2),
        "-" if row["norm_change"] is None else f"{round(100 * row['norm_change']):+d}%",
        "-" if row["top_kept"] is None else f"{100 * row['top_kept']:.0f}%",
        words,
    )


def _first_words(text: str) -> str:
    """As many whole words as fit."""
    shown = text[: WORDS + 1]
    return text if len(text) <= WORDS else shown[: max(shown.rfind(" "), 0)] or shown[:WORDS]


def _print_strips(screen: "Console", rows: pl.DataFrame, column: str, what: str) -> None:
    """One strip a tower and kind: a block a layer, all on one scale."""
    largest = rows[column].max() or 0.0
    screen.print(f"\n{what} by layer, a full block being {number(largest)}")
    for (tower, kind), part in rows.group_by("tower", "kind", maintain_order=True):
        values = part[column].to_list()
        known = [value for value in values if value is not None]
        span = f"{number(min(known))} to {number(max(known))}" if known else "unknown"
        span = "frozen" if part["frozen"].all() else span
        layers = f"{part['layer'].min()}-{part['layer'].max()}"
        screen.print(f"  {tower:<7}{kind:<14}{layers:>6}  |{strip(values, largest)}|  {span}")


def _vlm_first(rows: pl.DataFrame) -> pl.DataFrame:
    place = pl.col("tower").replace_strict(TOWERS, default=2, return_dtype=pl.Int8)
    return rows.sort(place, "kind", "layer", maintain_order=True)


def _print_notes(screen: "Console", notes: tuple[str, ...]) -> None:
    for note in notes:
        screen.print(f"note: {one_line(note)}")

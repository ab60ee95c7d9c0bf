"""`vla-trace sae features FOLDER --traces FILES`: what features do, general or memorised."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from traces.errors import UnknownName, UserError
from tui.terminal import Exit, one_line, to_json

if TYPE_CHECKING:
    from analysis.sae.features import Features

SHOWN = 5
TABLES = ("coverage", "signals", "top")


@click.command(
    name="features",
    help="""Describe the features of the autoencoder in FOLDER on unsteered --traces.

    Per feature: onsets, run length, coverage of episodes, diversity of episodes and tasks, a label
    (general or memorised, by the rule that gives all of DrVLA's published labels), correlation
    with speed, direction, gripper and phase, and the episodes where it peaks. Tables go into
    FOLDER as features_*.parquet, where the Neurons screen and `sae steer` find them.

    \b
      vla-trace sae features sae/vlm.2.resid_post/seed0 --traces "traces/*.h5"
      vla-trace sae features FOLDER --traces FILES --viewer viewer/     JSON as DrVLA's viewer reads

    docs/sae.md defines every number.
    """,
)
@click.argument("folder")
@click.option("--traces", "files", multiple=True, required=True, metavar="FILES")
@click.option("--signal", "signals", multiple=True, metavar="NAME", help="These only; repeatable.")
@click.option("--top", type=click.IntRange(1), default=SHOWN, show_default=True, help="A signal.")
@click.option("--viewer", metavar="FOLDER", help="Write JSON for DrVLA's viewer there.")
@click.option("--other-policy", is_flag=True, help="Take traces of a policy it was not trained on.")
@click.option("--force", is_flag=True, help="Replace an earlier viewer.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    folder: str,
    files: tuple[str, ...],
    signals: tuple[str, ...],
    top: int,
    viewer: str | None,
    other_policy: bool,
    force: bool,
    as_json: bool,
) -> Exit:
    """Count, write the tables, print what stands out."""
    from analysis.sae.features import features
    from analysis.signals import SIGNALS

    for name in signals:
        if name not in SIGNALS:
            raise UnknownName("signal", name, SIGNALS)
    if viewer and Path(viewer).exists() and any(Path(viewer).iterdir()) and not force:
        raise UserError(f"{viewer} is not empty; --force writes over it, or name another folder")
    found = features(folder, files, other_policy)
    _write(Path(folder), found, files)
    if viewer:
        from analysis.sae.viewer import write_viewer

        count = write_viewer(Path(viewer), found, files)
        click.echo(f"{count} files for the viewer: {one_line(viewer)}", err=True)
    if as_json:
        tables = {name: getattr(found, name).to_dicts() for name in TABLES}
        click.echo(to_json({"schema": 1} | _facts(found) | tables | {"notes": list(found.notes)}))
    else:
        _print(found, [name for name in SIGNALS if not signals or name in signals], top)
    return Exit.OK


def _facts(found: "Features") -> dict:
    return {
        "policy": found.policy,
        "site": found.sae.site,
        "sae_sha256": found.sae.sha256,
        "episodes": found.episodes,
        "decisions": found.decisions,
        "row_length": found.row_length,
    }


def _write(folder: Path, found: "Features", files: tuple[str, ...]) -> None:
    """Write the tables beside the weights: they can be made again, and so replace earlier ones."""
    for name in TABLES:
        part = folder / f"features_{name}.parquet.new"
        getattr(found, name).write_parquet(part)
        part.replace(folder / f"features_{name}.parquet")
    facts = _facts(found) | {"files": list(files), "notes": list(found.notes)}
    (folder / "features.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _print(found: "Features", signals: list[str], top: int) -> None:
    import polars as pl

    from analysis.signals import SIGNALS
    from tui.commands.strips import console, print_rows

    screen = console()
    counts = found.coverage["label"].value_counts()
    labels = dict(counts.iter_rows())
    screen.print(
        one_line(
            f"{found.sae.site} of {found.policy}: {found.sae.features} features, "
            f"{labels.get('general', 0)} general, {labels.get('memorised', 0)} memorised, "
            f"{labels.get('silent', 0)} silent; {found.episodes} episodes, "
            f"{found.decisions} decisions"
        ),
        style="bold",
    )
    about = found.coverage.select("feature", "label", "coverage", "onset_count")
    headers = ("feature", "n", "r", "95 %", "other", "p (BH)", "label", "coverage", "onsets")
    for name in signals:
        rows = found.signals.filter(pl.col("signal") == name).drop_nulls("r")
        if rows.is_empty():
            continue
        rows = rows.sort("p_follows", -pl.col("r").abs(), nulls_last=True).head(top)
        screen.print(f"\n{name}, {SIGNALS[name]}", style="bold")
        joined = rows.join(about, on="feature", maintain_order="left").iter_rows(named=True)
        print_rows(screen, headers, [_cells(row) for row in joined])
    screen.print()
    for note in found.notes:
        screen.print(f"note: {one_line(note)}")


def _cells(row: dict) -> tuple[str, ...]:
    from tui.commands.strips import p_value

    low, high = row["low"], row["high"]
    other, onsets = row["r_other"], row["onset_count"]
    return (
        str(row["feature"]),
        str(row["n"]),
        f"{row['r']:+.2f}",
        "-" if low is None else f"[{low:+.2f}, {high:+.2f}]",
        "-" if other is None else f"{other:+.2f}",
        p_value(row["p_follows_bh"]),
        row["label"],
        f"{100 * row['coverage']:.0f}%",
        "-" if onsets is None else f"{onsets:.2f}",
    )

"""`vla-trace diff BASE TUNED`: what fine-tuning changed, in activations or in weights."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from traces.errors import UserError
from tui.terminal import Exit, one_line, to_json

if TYPE_CHECKING:
    import polars as pl

    from analysis.shifts import Shifts
    from engine.weight_diff import WeightDiff


@click.command(
    name="diff",
    help="""Compare two policies inside: BASE and TUNED are traces, or policies.

    Of traces (a file, a folder, a "quoted/*.h5" pattern) the activations are compared, neuron by
    neuron; of policies (a name, a checkpoint folder) the weights. Activations mean most on equal
    inputs, which --replay gives:

    \b
      vla-trace record --keep frames --out base
      vla-trace record --replay base/FILE.h5 --policy CHECKPOINT --out tuned
      vla-trace diff base tuned
      vla-trace diff base tuned --site vlm.3 --correction bh
      vla-trace diff smolvla-tabletop CHECKPOINT --out tables

    --out writes every table whole, as Parquet and as CSV.
    """,
)
@click.argument("base")
@click.argument("tuned")
@click.option("--site", "sites", multiple=True, metavar="SITE", help="vlm, vlm.3, ...; repeatable.")
@click.option(
    "--correction", default="holm", show_default=True, help="Over neurons: holm, bh or none."
)
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Neurons.")
@click.option("--out", metavar="FOLDER", help="Write the tables there.")
@click.option("--force", is_flag=True, help="Replace tables of the same name in FOLDER.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, every row in it.")
def command(
    base: str,
    tuned: str,
    sites: tuple[str, ...],
    correction: str,
    top: int,
    out: str | None,
    force: bool,
    as_json: bool,
) -> Exit:
    """Compare weights or activations, print, write."""
    from tui.tables_out import free_tables, write_tables

    kinds = {_is_policy(base), _is_policy(tuned)}
    if len(kinds) > 1:
        policy, other = (base, tuned) if _is_policy(base) else (tuned, base)
        raise UserError(
            f"{policy} is a policy and {other} is not; give traces of both or both policies "
            "(a folder with config.json and model.safetensors, or a name)"
        )
    weights = kinds == {True}
    if weights and (sites or correction != "holm"):
        raise UserError("--site and --correction are about activations; these are policies")
    names = ("towers", "matrices", "values") if weights else ("sites", "neurons")
    paths = free_tables(out, names, force) if out else {}
    found = _weights(base, tuned) if weights else _activations(base, tuned, sites, correction)
    tables = {name: getattr(found, name) for name in names}
    if as_json:
        facts = {"schema": 1, "compared": "weights" if weights else "activations"}
        facts |= {"base": found.base, "tuned": found.tuned, "notes": list(found.notes)}
        if not weights:
            facts |= {"design": found.design, "episodes": list(found.episodes)}
            facts |= {"correction": found.correction}
        click.echo(to_json(facts | {name: frame.to_dicts() for name, frame in tables.items()}))
    else:
        from tui.commands import diff_screen

        (diff_screen.print_weights if weights else diff_screen.print_shifts)(found, top)
    for path in write_tables(tables, paths):
        click.echo(f"saved {one_line(path)}", err=True)
    return Exit.OK


def _is_policy(name: str) -> bool:
    from engine.policies.folder import EMBEDDED, WEIGHTS, policy_folder

    inner = Path(name).expanduser() / "pretrained_model" / WEIGHTS
    if inner.is_file():
        raise UserError(f"{name} holds a policy in a folder of its own; name {inner.parent}")
    return name in (EMBEDDED, "organism") or (policy_folder(name) / WEIGHTS).is_file()


def _weights(base: str, tuned: str) -> "WeightDiff":
    from engine.weight_diff import weight_diff
    from tui.commands.recording import load

    return weight_diff(load(base), load(tuned))


def _activations(base: str, tuned: str, sites: tuple[str, ...], correction: str) -> "Shifts":
    from analysis.shifts import activation_shifts
    from traces.collection import open_traces
    from tui.progress import counted

    with open_traces(base) as one, open_traces(tuned) as other:
        return activation_shifts(
            one, other, correction=correction, sites=sites, progress=counted("sites")
        )

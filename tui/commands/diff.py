"""`vla-trace diff BASE TUNED`: what fine-tuning changed, in activations or in weights."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from traces.errors import UnknownName, UserError
from tui.commands.picture import picture_path, write_picture
from tui.commands.tables_folder import write_folder
from tui.terminal import Exit, to_json

if TYPE_CHECKING:
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
@click.option("--figure", metavar="FILE", help="Draw shifts by layer (.svg, .png); of traces.")
@click.option("--force", is_flag=True, help="Replace an earlier FOLDER of tables, or FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, every row in it.")
def command(
    base: str,
    tuned: str,
    sites: tuple[str, ...],
    correction: str,
    top: int,
    out: str | None,
    figure: str | None,
    force: bool,
    as_json: bool,
) -> Exit:
    """Compare weights or activations, print, write."""
    kinds = {_is_policy(base), _is_policy(tuned)}
    if len(kinds) > 1:
        policy, other = (base, tuned) if _is_policy(base) else (tuned, base)
        raise UserError(
            f"{policy} is a policy and {other} is not; give traces of both or both policies "
            "(a name, or a folder with config.json and model.safetensors)"
        )
    weights = kinds == {True}
    if weights and (sites or figure or correction != "holm"):
        raise UserError(
            "--site, --correction and --figure are about activations; these are policies"
        )
    picture = picture_path(figure, force)
    found = _weights(base, tuned) if weights else _activations(base, tuned, sites, correction)
    names = ("towers", "matrices", "values") if weights else ("sites", "neurons")
    frames = {name: getattr(found, name) for name in names}
    if out is not None:
        write_folder(out, "diff", frames, found.notes, (base, tuned), force)
    if not weights:
        from analysis.figures_inside import shift_figure

        write_picture(picture, lambda: shift_figure(found))
    if as_json:
        click.echo(to_json(_facts(found) | {name: f.to_dicts() for name, f in frames.items()}))
    elif weights:
        from tui.commands.diff_screen import print_weights

        print_weights(found, top)
    else:
        from tui.commands.diff_screen import print_shifts

        print_shifts(found, top)
    return Exit.OK


def _facts(found: "Shifts | WeightDiff") -> dict:
    """What the JSON object says beside the tables."""
    facts = {"schema": 1, "base": found.base, "tuned": found.tuned, "notes": list(found.notes)}
    names = ("design", "episodes", "correction")
    more = {name: getattr(found, name) for name in names if hasattr(found, name)}
    return facts | {"compared": "activations" if more else "weights"} | more


def _is_policy(name: str) -> bool:
    from engine.policies.folder import EMBEDDED, WEIGHTS, policy_folder

    known, path = (EMBEDDED, "organism"), Path(name).expanduser()
    if (path / "pretrained_model" / WEIGHTS).is_file():
        raise UserError(f"{name} holds a policy in a folder: name {path / 'pretrained_model'}")
    if name in known or (policy_folder(name) / WEIGHTS).is_file():
        return True
    if not path.exists() and path.suffix not in (".h5", ".partial") and not set(name) & set("*?["):
        raise UnknownName("policy or folder of traces", name, known)
    return False


def _weights(base: str, tuned: str) -> "WeightDiff":
    from engine.weight_diff import weight_diff
    from tui.commands.recording import load

    return weight_diff(load(base), load(tuned))


def _activations(base: str, tuned: str, sites: tuple[str, ...], correction: str) -> "Shifts":
    from analysis.shifts import activation_shifts
    from traces.collection import open_traces

    def progress(site: str, done: int, total: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{done + 1}/{total} {site:<40}", nl=done + 1 == total, err=True)

    with open_traces(base) as one, open_traces(tuned) as other:
        return activation_shifts(one, other, correction=correction, sites=sites, progress=progress)

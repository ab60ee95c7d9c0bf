"""`vla-trace record`: steered rollouts beside their paired baseline, as traces."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from traces.condition import BASELINE, Condition
from traces.errors import UserError
from tui.commands.recording import (
    config_of,
    doses_of,
    load,
    printed,
    record_conditions,
    recording_options,
    run_id_of,
)
from tui.terminal import Exit, one_line

if TYPE_CHECKING:
    import polars as pl

    from engine.config import RecordConfig
    from engine.policies.smolvla import LoadedPolicy
    from traces.intervention import Intervention

DEFAULT_ALPHA = "8"


@click.command(
    name="record",
    help="""Record rollouts to HDF5 traces.

    With --steer, the concept's neurons are overwritten with each ALPHA. Recorded beside them, with
    the same scenes and the same denoising noise: a baseline and the controls, which are the same
    words in the instruction (prompt), the same neurons where nothing reads them (null: must change
    nothing, bit for bit), and random clusters matched in layer, size and norm, 2 (light) or 20
    (full) a dose.

    \b
      vla-trace record                                  the policy as it is
      vla-trace record --steer fast --alpha 8           one dose, its baseline, its controls
      vla-trace record --steer slow --alpha 2 4 8       three doses, likewise
      vla-trace record --intervention my.json           any intervention, and its baseline
    """,
    context_settings={"ignore_unknown_options": True},  # so that `--alpha 2 -4` is two numbers
)
@click.option("--steer", metavar="CONCEPT", help="Concept to steer: fast, slow, up, ...")
@click.option(
    "--intervention", "file", metavar="FILE", help="Intervention to apply, as JSON; --alpha scales."
)
@click.option("--alpha", "alphas", multiple=True, metavar="A [A ...]", help="Dose(s); default 8.")
@click.option("--layer", type=int, help="Layer of the cluster; default: where the concept is best.")
@click.option("--size", type=int, default=10, show_default=True, help="Neurons in the cluster.")
@click.option(
    "--controls",
    type=click.Choice(["none", "light", "full"]),
    default="light",
    show_default=True,
    help="Control conditions of what is steered.",
)
@click.option("--no-baseline", is_flag=True, help="Leave the unsteered condition out.")
@click.option("--replay", metavar="FILE", help="Ask the policy again on the inputs of FILE.")
@recording_options
@click.argument("more", nargs=-1, metavar="")
def command(
    steer: str | None,
    file: str | None,
    alphas: tuple[str, ...],
    layer: int | None,
    size: int,
    controls: str,
    no_baseline: bool,
    replay: str | None,
    name: str,
    as_json: bool,
    more: tuple[str, ...],
    **options: object,
) -> Exit:
    """Compose the rooms: analysis chooses the neurons, engine records."""
    if steer and file:
        raise UserError("--steer chooses neurons, --intervention brings them; give one of the two")
    doses = _doses(steer or file, alphas, more)
    if no_baseline and not (steer or file):
        raise UserError("--no-baseline without --steer leaves nothing to record")
    if layer is not None and steer is None:
        raise UserError("--layer chooses where to steer; add --steer CONCEPT")
    run_id = run_id_of(name, "record")
    config = config_of(**options)
    chosen = _from_file(file) if file else None
    loaded = load(config.policy, config.steps)
    level = "none" if replay else controls
    if chosen is not None:
        steered = _given(loaded, chosen, doses if alphas else [chosen.coefficient], level)
    else:
        steered = _steered(loaded, steer, doses, layer, size, level)
    conditions = [*([] if no_baseline else [BASELINE]), *steered]
    if replay:
        paths = _asked_again(replay, config, loaded, conditions, run_id)
    else:
        paths = record_conditions(config, loaded, conditions, run_id)
    return printed(paths, run_id, config.out, as_json)


def _asked_again(
    file: str,
    config: "RecordConfig",
    loaded: "LoadedPolicy",
    conditions: list[Condition],
    run_id: str,
) -> "list[Path]":
    """Traces of what the policy would have done on the inputs of a recording, one a condition."""
    from engine.rescore import asked_like, rescore

    def progress(done: int, total: int) -> None:
        click.echo(f"{done}/{total} episodes", err=True)

    paths = []
    for condition in conditions:
        actor = asked_like(file, loaded, condition.intervention, config.capture, config.keeps_base)
        paths += rescore(file, actor, config.out, run_id, progress)
    return paths


def _doses(steer: str | None, alphas: tuple[str, ...], more: tuple[str, ...]) -> list[float]:
    """The numbers after --alpha, in order, each once."""
    for word in more:
        if word.startswith("-") and not re.match(r"-[\d.]", word):
            raise click.NoSuchOption(word.split("=")[0])
    if more and not alphas:
        raise UserError(f"unexpected argument {one_line(more[0])!r}; doses follow --alpha")
    if alphas and steer is None:
        raise UserError("--alpha is a dose; add --steer CONCEPT or --intervention FILE")
    return doses_of([*alphas, *more] or [DEFAULT_ALPHA])


def _steered(
    loaded: "LoadedPolicy",
    concept: str | None,
    doses: list[float],
    layer: int | None,
    size: int,
    controls: str,
) -> list[Condition]:
    """The concept's cluster at every dose, and its controls."""
    if concept is None:
        return []
    from analysis.clusters import choose_cluster
    from analysis.controls import with_controls
    from engine.neurons import neuron_table

    table = neuron_table(loaded)
    cluster = choose_cluster(
        table, concept, alpha=doses[0], checkpoint_sha256=loaded.sha256, layer=layer, size=size
    )
    site = cluster.sites[0]
    click.echo(
        f"steering {concept}: layer {site.layer}, {len(site.neurons)} neurons around "
        f"{cluster.provenance['seed_neuron']} "
        f"({', '.join(t.strip() for t in cluster.provenance['hit_tokens'])})",
        err=True,
    )
    return with_controls(table, cluster, doses, controls)


def _from_file(file: str) -> "Intervention":
    """The intervention of a JSON file, such as `vla-trace cluster -o` writes."""
    from traces.intervention import Intervention

    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--intervention {one_line(file)}: cannot be read ({error})") from None
    return Intervention.from_json(text)


def _given(
    loaded: "LoadedPolicy", chosen: "Intervention", doses: list[float], controls: str
) -> list[Condition]:
    """An intervention at every dose, with its controls where they are defined."""
    from analysis import direction_controls
    from analysis.controls import can_be_matched, with_controls
    from engine import sites
    from engine.neurons import neuron_table

    if controls != "none" and can_be_matched(chosen):
        return with_controls(neuron_table(loaded), chosen, doses, controls)
    if controls != "none" and direction_controls.has_controls(chosen):
        dead = sites.dead_layers(loaded.policy, chosen.sites[0].tower)
        features = _features(chosen) if chosen.sae else None
        return direction_controls.with_controls(
            chosen, doses, controls, max(dead, default=None), features
        )
    if controls != "none":
        click.echo(
            "no controls: they are defined for VLM neurons without own doses, directions and "
            "features",
            err=True,
        )
    return [Condition(chosen.with_coefficient(dose)) for dose in doses]


def _features(chosen: "Intervention") -> "pl.DataFrame | None":
    """All features of the intervention's autoencoder; None where they were not described."""
    from analysis.sae.steering import DESCRIBED, described

    if not (Path(chosen.sae) / DESCRIBED).exists():
        return None
    return described(chosen.sae).table

"""`vla-trace sweep`: many arms on the same scenes and noise, in one run that can go on."""

from typing import TYPE_CHECKING

import click

from traces.condition import BASELINE, Condition
from traces.errors import UnknownName, UserError
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
    from engine.config import RecordConfig
    from engine.policies.smolvla import LoadedPolicy

TOWERS = ("vlm", "expert")


@click.command(
    name="sweep",
    help="""Record a grid of conditions beside one baseline; lists are comma-separated.

    Every arm plays the same scenes with the same noise. Steered clusters bring their controls, as
    in `vla-trace record`. A stopped sweep goes on with --resume: conditions that are complete are
    not recorded again.

    \b
      vla-trace sweep --steer fast,slow --alpha 0,2,4,6,8,10 --controls full
      vla-trace sweep --steer fast --layer all --size 5,10,20 --alpha 8
      vla-trace sweep --ablate vlm,expert              each feed-forward block silenced
      vla-trace sweep --prompts all                    empty, negated, other object, fast, slow
      vla-trace sweep --patch push_cube_to_zone        activations of another task put in
      vla-trace sweep --resume RUN
    """,
)
@click.option("--steer", default="", metavar="CONCEPTS", help="Concepts to steer.")
@click.option("--alpha", default="8", show_default=True, metavar="DOSES")
@click.option("--layer", default="", metavar="LAYERS|all", help="Default: where a concept is best.")
@click.option("--size", default="10", show_default=True, metavar="SIZES", help="Neurons a cluster.")
@click.option(
    "--controls", type=click.Choice(["none", "light", "full"]), default="light", show_default=True
)
@click.option("--ablate", default="", metavar="TOWERS", help="Silence each layer: vlm, expert.")
@click.option("--prompts", default="", metavar="NAMES|all", help="Tell the policy something else.")
@click.option("--patch", default="", metavar="TASK", help="Put in activations of another task.")
@click.option("--resume", default="", metavar="RUN", help="Go on with a run that was stopped.")
@recording_options
def command(
    steer: str,
    alpha: str,
    layer: str,
    size: str,
    controls: str,
    ablate: str,
    prompts: str,
    patch: str,
    resume: str,
    name: str,
    as_json: bool,
    **options: object,
) -> Exit:
    """Compose the rooms: analysis lays out the grid, engine records it."""
    if resume:
        return _resumed(resume, as_json)
    doses, sizes = doses_of(_list(alpha)), _numbers("--size", size)
    if not (steer or ablate or prompts or patch):
        raise UserError(
            "nothing to sweep: give --steer CONCEPTS, --ablate TOWERS, --prompts all, --patch TASK"
        )
    run_id = run_id_of(name, "sweep")
    config = config_of(**options)
    loaded = load(config.policy, config.steps)
    arms: list[Condition] = []
    if steer:
        arms += _steered(loaded, _list(steer), doses, layer, sizes, controls)
    if ablate:
        arms += _ablations(loaded, _list(ablate))
    if prompts:
        arms += _prompts(_list(prompts))
    if patch:
        arms += _patches(loaded, config, patch, run_id)
    from analysis.grid import once

    conditions = once(arms)
    click.echo(f"{len(conditions)} conditions of {config.episodes} episodes", err=True)
    paths = record_conditions(config, loaded, conditions, run_id)
    return printed(paths, run_id, config.out, as_json)


def _resumed(run_id: str, as_json: bool) -> Exit:
    from engine.runs import stopped_run

    stopped = stopped_run(run_id)
    loaded = load(stopped.config.policy, stopped.config.steps)
    if stopped.policy_sha256 not in ("", loaded.sha256):
        raise UserError(
            f"run {run_id} was begun with the weights {stopped.policy_sha256[:8]}, but "
            f"{stopped.config.policy!r} is now {loaded.sha256[:8]}; begin a new run"
        )
    done, total = len(stopped.finished), len(stopped.conditions)
    click.echo(f"{done} of {total} conditions are complete", err=True)
    paths = record_conditions(stopped.config, loaded, stopped.conditions, run_id, stopped.finished)
    return printed(paths, run_id, stopped.config.out, as_json)


def _steered(
    loaded: "LoadedPolicy",
    concepts: list[str],
    doses: list[float],
    layer: str,
    sizes: list[int],
    controls: str,
) -> list[Condition]:
    from analysis.grid import steered_arms
    from engine.neurons import neuron_table

    table = neuron_table(loaded)
    layers = None
    if layer == "all":
        layers = table.filter("reach").get_column("layer").unique().sort().to_list()
    elif layer:
        layers = _numbers("--layer", layer)
    arms, missing = steered_arms(
        table,
        concepts,
        doses,
        checkpoint_sha256=loaded.sha256,
        layers=layers,
        sizes=sizes,
        controls=controls,
    )
    for sentence in missing:
        click.echo(f"left out: {one_line(sentence)}", err=True)
    return arms


def _ablations(loaded: "LoadedPolicy", towers: list[str]) -> list[Condition]:
    from analysis.grid import ablation_arms

    for tower in towers:
        if tower not in TOWERS:
            raise UnknownName("tower", tower, TOWERS)
    return ablation_arms(block for tower in towers for block in _blocks(loaded, tower))


def _patches(
    loaded: "LoadedPolicy", config: "RecordConfig", task: str, run_id: str
) -> list[Condition]:
    """Record the other task on the same scenes, then lay out what of it is put in."""
    from dataclasses import replace

    from analysis.grid import patch_arms
    from engine.envs import load_suite

    suite = load_suite(config.suite)
    other = suite.task_id_of(task)
    if other == config.task_id:
        raise UserError(f"--patch {task}: that is the task itself; give another one")
    sites = "vlm.*.ffn_act:keep=each,dtype=float32"
    donor = replace(config, task_id=other, capture=(sites,))
    donor_path = record_conditions(donor, loaded, [BASELINE], f"{run_id}-donor")[0]
    return patch_arms(str(donor_path), _blocks(loaded, "vlm"), suite.TASKS[other].name)


def _blocks(loaded: "LoadedPolicy", tower: str) -> list[tuple[str, int, bool]]:
    """Tower, layer, and whether its feed-forward block reaches the action."""
    from engine import sites

    return [
        (tower, layer, sites.reaches_action(loaded.policy, tower, layer))
        for layer in range(len(sites.layers(loaded.policy, tower)))
    ]


def _prompts(names: list[str]) -> list[Condition]:
    from analysis.grid import COUNTERFACTUALS, prompt_arms

    if names == ["all"]:
        return prompt_arms()
    for name in names:
        if name not in COUNTERFACTUALS:
            raise UnknownName("prompt", name, (*COUNTERFACTUALS, "all"))
    return prompt_arms(names)


def _list(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _numbers(option: str, text: str) -> list[int]:
    words = _list(text)
    if not words or not all(word.isdecimal() and len(word) < 10 for word in words):
        raise UserError(f"{option} {one_line(text)!r}: expected whole numbers such as 5,10,20")
    return [int(word) for word in words]

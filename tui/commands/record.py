"""`vla-trace record`: steered rollouts beside their paired baseline, as traces."""

import math
import re
from typing import TYPE_CHECKING

import click

from traces.errors import UserError
from tui.terminal import Exit, one_line, to_json

if TYPE_CHECKING:
    from pathlib import Path

    from engine.config import RecordConfig
    from engine.policies.smolvla import LoadedPolicy
    from traces.intervention import Intervention

DEFAULT_ALPHA = "8"


@click.command(
    name="record",
    help="""Record rollouts to HDF5 traces.

    With --steer, the concept's neurons are overwritten with each ALPHA, and a baseline with the
    same scenes and the same denoising noise is recorded beside them.

    \b
      vla-trace record                                  the policy as it is
      vla-trace record --steer fast --alpha 8           one dose and its baseline
      vla-trace record --steer slow --alpha 2 4 8       three doses and their baseline
      vla-trace record --intervention my.json           any intervention and its baseline
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
@click.option("--no-baseline", is_flag=True, help="Leave the unsteered condition out.")
@click.option("--task", default="0", show_default=True, help="Task, by number or name.")
@click.option("--suite", default="tabletop", show_default=True)
@click.option("--policy", default="smolvla-tabletop", show_default=True, help="Name or folder.")
@click.option("--episodes", type=int, default=20, show_default=True, help="Episodes a condition.")
@click.option("--seed", type=int, default=0, show_default=True, help="First scene seed.")
@click.option("--replan", type=int, default=1, show_default=True, help="Steps a policy call.")
@click.option("--deterministic", is_flag=True, help="ODE sampler; has no log-probabilities.")
@click.option("--workers", type=int, default=2, show_default=True, help="Environment processes.")
@click.option("--video", metavar="mp4|gif", default="", help="Film the first episodes.")
@click.option(
    "--capture",
    multiple=True,
    default=("standard",),
    show_default=True,
    metavar="PRESET|SITE",
    help="light, standard, full or a site such as vlm.3.ffn_act:tokens=language; repeatable.",
)
@click.option(
    "--keep",
    multiple=True,
    metavar="frames|base-log-prob",
    help="Keep the policy's own pictures; score steered actions under the unsteered policy, too.",
)
@click.option("--out", default="traces", show_default=True, help="Folder of the traces.")
@click.option("--replay", metavar="FILE", help="Ask the policy again on the inputs of FILE.")
@click.option("--shard-episodes", type=int, default=0, help="Episodes a file; 0: no limit.")
@click.option("--shard-bytes", type=int, default=2**30, help="Bytes a file; default: 1 GiB.")
@click.option("--shard-seconds", type=float, default=600, help="Seconds a file; default: 600.")
@click.option("--name", default="", help="Name of the run; default: made from the time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.argument("more", nargs=-1, metavar="")
def command(
    steer: str | None,
    file: str | None,
    alphas: tuple[str, ...],
    layer: int | None,
    size: int,
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
    run_id = _run_id(name)
    config = _config(**options)
    steered = _from_file(file, doses if alphas else None) if file else []

    from engine.policies.smolvla import load_policy

    click.echo(f"loading {one_line(config.policy)} ...", err=True)
    loaded = load_policy(config.policy)
    steered += _interventions(loaded, steer, doses, layer, size)
    conditions = [*([] if no_baseline else [None]), *steered]
    if replay:
        paths = _asked_again(replay, config, loaded, conditions, run_id)
    else:
        from engine.record import record
        from tui.progress import Progress

        with Progress(config.episodes * len(conditions)) as progress:
            paths = record(config, loaded, conditions, run_id, progress.on_event)
    if as_json:
        click.echo(to_json({"run_id": run_id, "files": [str(path) for path in paths]}))
    else:
        for path in paths:
            click.echo(str(path))
        click.echo(f"next: vla-trace analyze {one_line(config.out)}/*.h5, vla-tui", err=True)
    return Exit.OK


def _asked_again(
    file: str,
    config: "RecordConfig",
    loaded: "LoadedPolicy",
    conditions: "list[Intervention | None]",
    run_id: str,
) -> "list[Path]":
    """Traces of what the policy would have done on the inputs of a recording, one a condition."""
    from engine.rescore import asked_like, rescore

    def progress(done: int, total: int) -> None:
        click.echo(f"{done}/{total} episodes", err=True)

    paths = []
    for condition in conditions:
        actor = asked_like(file, loaded, condition, config.capture, config.keeps_base)
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
    doses = []
    for word in [*alphas, *more] or [DEFAULT_ALPHA]:
        try:
            dose = float(word)
        except ValueError:
            dose = math.nan
        if not math.isfinite(dose):
            raise UserError(f"--alpha {one_line(word)!r} is not a number; for example --alpha 8")
        doses.append(dose)
    return list(dict.fromkeys(doses))


def _from_file(file: str, doses: list[float] | None) -> "list[Intervention]":
    """The intervention of a JSON file, at its own dose or at those given."""
    from pathlib import Path

    from traces.intervention import Intervention

    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--intervention {one_line(file)}: cannot be read ({error})") from None
    chosen = Intervention.from_json(text)
    return [chosen.with_coefficient(dose) for dose in doses or [chosen.coefficient]]


def _run_id(name: str) -> str:
    if not name:
        from traces.catalog import new_run_id

        return new_run_id("record")
    if not re.fullmatch(r"[\w.-]{1,48}", name, re.ASCII) or name.startswith("."):
        raise UserError(f"--name {one_line(name)!r}: use up to 48 letters, digits, '-', '_', '.'")
    return name


def _config(task: str, deterministic: bool, **options: object) -> "RecordConfig":
    from engine.config import RecordConfig
    from engine.envs import load_suite

    suite = load_suite(str(options["suite"]))
    sampling = {"noise_level": 0.0} if deterministic else {}
    return RecordConfig(task_id=suite.task_id_of(task), **sampling, **options)


def _interventions(
    loaded: "LoadedPolicy", steer: str | None, doses: list[float], layer: int | None, size: int
) -> "list[Intervention]":
    """One intervention a dose, on the same cluster."""
    if steer is None:
        return []
    from analysis.neurons import choose_cluster
    from engine.neurons import neuron_table

    cluster = choose_cluster(
        neuron_table(loaded),
        steer,
        alpha=doses[0],
        checkpoint_sha256=loaded.sha256,
        layer=layer,
        size=size,
    )
    site = cluster.sites[0]
    click.echo(
        f"steering {steer}: layer {site.layer}, {len(site.neurons)} neurons around "
        f"{cluster.provenance['seed_neuron']} "
        f"({', '.join(t.strip() for t in cluster.provenance['hit_tokens'])})",
        err=True,
    )
    return [cluster.with_coefficient(dose) for dose in doses]

"""What `record` and `sweep` share: the options of a recording, its run, and what is printed."""

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from traces.condition import Condition
from traces.errors import UserError
from tui.terminal import Exit, one_line, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from engine.config import RecordConfig
    from engine.policies.smolvla import LoadedPolicy

OPTIONS = (
    click.option("--task", default="0", show_default=True, help="Task, by number or name."),
    click.option("--suite", default="tabletop", show_default=True),
    click.option("--policy", default="smolvla-tabletop", show_default=True, help="Name or folder."),
    click.option(
        "--episodes", type=int, default=20, show_default=True, help="Episodes a condition."
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="First scene seed."),
    click.option("--replan", type=int, default=1, show_default=True, help="Steps a policy call."),
    click.option("--steps", type=int, default=0, help="Denoising steps; 0: the policy's own."),
    click.option("--deterministic", is_flag=True, help="ODE sampler; has no log-probabilities."),
    click.option(
        "--workers", type=int, default=2, show_default=True, help="Environment processes."
    ),
    click.option("--video", metavar="mp4|gif", default="", help="Film the first episodes."),
    click.option(
        "--capture",
        multiple=True,
        default=("standard",),
        show_default=True,
        metavar="PRESET|SITE",
        help="light, standard, full or a site such as vlm.3.ffn_act:tokens=language; repeatable.",
    ),
    click.option(
        "--keep",
        multiple=True,
        metavar="frames|sim|base-log-prob",
        help="Also keep: the policy's own pictures; the simulator's states; the log-probability "
        "of steered actions without steering. Repeatable.",
    ),
    click.option("--out", default="traces", show_default=True, help="Folder of the traces."),
    click.option("--shard-episodes", type=int, default=0, help="Episodes a file; 0: no limit."),
    click.option("--shard-bytes", type=int, default=2**30, help="Bytes a file; default: 1 GiB."),
    click.option("--shard-seconds", type=float, default=600, help="Seconds a file; default: 600."),
    click.option("--name", default="", help="Name of the run; default: made from the time."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout."),
)


def recording_options(command: Callable) -> Callable:
    """Add `OPTIONS` to a command, in order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def config_of(task: str, deterministic: bool, **options: object) -> "RecordConfig":
    """The configuration that the options ask for."""
    from engine.config import RecordConfig
    from engine.envs import load_suite

    suite = load_suite(str(options["suite"]))
    sampling = {"noise_level": 0.0} if deterministic else {}
    return RecordConfig(task_id=suite.task_id_of(task), **sampling, **options)


def run_id_of(name: str, kind: str) -> str:
    """The name asked for, or a new one."""
    if not name:
        from traces.catalog import new_run_id

        return new_run_id(kind)
    if not re.fullmatch(r"[\w.-]{1,48}", name, re.ASCII) or name.startswith("."):
        raise UserError(f"--name {one_line(name)!r}: use up to 48 letters, digits, '-', '_', '.'")
    return name


def doses_of(words: Sequence[str]) -> list[float]:
    """The numbers after --alpha, in order, each once."""
    doses = []
    for word in words:
        try:
            dose = float(word)
        except ValueError:
            dose = math.nan
        if not math.isfinite(dose):
            raise UserError(f"--alpha {one_line(word)!r} is not a number; for example --alpha 8")
        doses.append(dose)
    return list(dict.fromkeys(doses))


def load(policy: str, steps: int = 0) -> "LoadedPolicy":
    """Load a policy to act with so many denoising steps (0: its own), saying so."""
    from engine.policies.smolvla import load_policy

    click.echo(f"loading {one_line(policy)} ...", err=True)
    return load_policy(policy, steps)


def record_conditions(
    config: "RecordConfig",
    loaded: "LoadedPolicy",
    conditions: list[Condition],
    run_id: str,
    finished: "Mapping[str, list[Path]] | None" = None,
) -> "list[Path]":
    """Record with progress on stderr; a run that is stopped says how to go on."""
    from engine.record import record
    from tui.progress import Progress

    left = len(conditions) - len(finished or {})
    try:
        with Progress(config.episodes * left) as progress:
            return record(config, loaded, conditions, run_id, progress.on_event, finished)
    except KeyboardInterrupt:
        click.echo(f"to go on: vla-trace sweep --resume {run_id}", err=True)
        raise


def printed(paths: "list[Path]", run_id: str, out: str, as_json: bool) -> Exit:
    """Name the files on stdout, and what to do with them on stderr."""
    if as_json:
        click.echo(to_json({"run_id": run_id, "files": [str(path) for path in paths]}))
        return Exit.OK
    for path in paths:
        click.echo(str(path))
    click.echo(f"next: vla-trace analyze {one_line(out)}/*.h5, vla-tui", err=True)
    return Exit.OK

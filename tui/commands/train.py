"""`vla-trace train`: GRPO on a flow-matching policy, live, exact and resumable."""

import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from traces.errors import MissingFile, UserError
from tui.terminal import Exit, one_line, to_json

if TYPE_CHECKING:
    from engine.config import TrainConfig


@click.command(
    name="train",
    help="""Fine-tune a policy with sparse success rewards (GRPO).

    Groups of episodes share a scene and differ in the policy's noise; the better ones become more
    likely. Everything lands in runs/NAME: events, checkpoints that any lerobot tool loads, traces.
    docs/grpo.md explains every option and every metric.

    \b
      vla-trace train                                   push_cube_to_zone, default recipe
      vla-trace train --task 3 --updates 50 --traces 10
      vla-trace train --resume NAME                     go on where it stopped or was killed
    """,
)
@click.option(
    "--task", default="push_cube_to_zone", show_default=True, help="Number or name; several: 0,1,3."
)
@click.option("--suite", default="tabletop", show_default=True)
@click.option("--policy", default="smolvla-tabletop", show_default=True, help="Name or folder.")
@click.option("--name", default="", help="Name of the run; default: made from the time.")
@click.option("--resume", metavar="NAME", help="Go on with this run; takes no other option.")
@click.option("--seed", type=int, help="Seed of scenes, noise and order.")
@click.option("--updates", type=int, help="Updates in all.")
@click.option("--likelihood", metavar="flow-sde|flow-noise|gaussian", help="How actions are drawn.")
@click.option("--steps", type=int, help="Denoising steps.")
@click.option("--noise-level", type=float, help="Noise of the sampler.")
@click.option("--correlation", type=float, help="Of its noise between neighbouring rows.")
@click.option("--stochastic-steps", type=int, help="How many of them are; 0: all (flow-sde).")
@click.option("--noise-low", type=float, help="Smallest learned noise (flow-noise).")
@click.option("--noise-high", type=float, help="Largest one.")
@click.option("--euler-noise", type=float, help="Noise of each Euler step (gaussian).")
@click.option("--replan", type=int, help="Control steps a policy call.")
@click.option("--groups", type=int, help="Groups with variance that an update waits for.")
@click.option("--group-size", type=int, help="Episodes a group.")
@click.option("--attempts", type=int, help="Rounds of drawing groups.")
@click.option("--scenes", metavar="fresh|suite", help="Initial states of training.")
@click.option("--curriculum", is_flag=True, default=None, help="Draw undecided tasks, states more.")
@click.option("--advantage", metavar="group|rloo|state", help="Baseline of the returns.")
@click.option("--train", metavar="expert|lora|full", help="Which weights learn.")
@click.option("--lora-rank", type=int, help="Rank of the additions (lora).")
@click.option("--lr", type=float, help="Learning rate.")
@click.option("--lr-end", type=float, help="Share of it that is left at the last update.")
@click.option("--warmup", type=int, help="Optimizer steps of rising learning rate.")
@click.option("--epochs", type=int, help="Passes over the samples of an update.")
@click.option("--minibatches", type=int, help="Optimizer steps a pass.")
@click.option("--micro-batch", type=int, help="Decisions in memory at once.")
@click.option("--average/--no-average", default=None, help="Save the average of the weights.")
@click.option("--ratio", metavar="row|chunk", help="What has a ratio of its own.")
@click.option("--clip-low", type=float)
@click.option("--clip-high", type=float)
@click.option("--dual-clip", type=float)
@click.option("--kl-beta", type=float, help="Weight of the KL to the starting policy.")
@click.option("--grad-clip", type=float)
@click.option("--workers", type=int, help="Environment processes.")
@click.option("--slots", type=int, help="Episodes at the same time.")
@click.option("--eval-every", type=int, help="Updates between evaluations.")
@click.option("--eval-episodes", type=int, help="Held-out scenes of an evaluation.")
@click.option(
    "--forgetting/--no-forgetting", default=None, help="Evaluate the other tasks at the end."
)
@click.option("--checkpoint-every", type=int, help="Updates between checkpoints that stay.")
@click.option("--traces", type=int, help="Updates between those kept as traces; 0: none.")
@click.option(
    "--keep", multiple=True, metavar="frames", help="Also keep there: the policy's own pictures."
)
@click.option(
    "--mirror",
    multiple=True,
    metavar="tensorboard|wandb|trackio",
    help="Show the metrics there, too; can be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(
    task: str, suite: str, policy: str, name: str, resume: str | None, as_json: bool, **given
) -> Exit:
    """Make or read the configuration, load the policy, train."""
    from engine.config import TrainConfig

    chosen = {key: value for key, value in given.items() if value not in (None, ())}
    if resume is None:
        from engine.envs import load_suite

        tasks = tuple(load_suite(suite).task_id_of(name.strip()) for name in task.split(","))
        config = TrainConfig(suite=suite, tasks=tasks, policy=policy, **chosen)
        run_id = run_name(name, "train")
    else:
        if chosen or name:
            extra = next(iter(chosen), "name").replace("_", "-")
            raise UserError(
                f"--resume goes on with the settings of {one_line(resume)}; leave --{extra} out"
            )
        run_id, config = Path(resume).name, _saved_config(Path(resume).name)

    from engine.policies.smolvla import load_policy
    from engine.train import train
    from tui.training import TrainingLines

    click.echo(f"loading {one_line(config.policy)} ...", err=True)
    last = train(config, load_policy(config.policy), run_id, resume is not None, TrainingLines())
    folder = last / "pretrained_model"
    if as_json:
        click.echo(to_json({"run_id": run_id, "policy": str(folder)}))
    else:
        click.echo(str(folder))
        click.echo(f"next: vla-trace eval --policy {one_line(folder)}", err=True)
    return Exit.OK


def _saved_config(run_id: str) -> "TrainConfig":
    """The configuration a run began with."""
    import yaml

    from engine.config import TrainConfig

    path = Path("runs") / run_id / "config.yaml"
    if not path.is_file():
        raise MissingFile(path)
    known = {field.name for field in fields(TrainConfig)}
    saved = yaml.safe_load(path.read_text())
    if not isinstance(saved, dict) or not {"suite", "tasks", "policy"} <= saved.keys() <= known:
        raise UserError(f"{path} is not the configuration of a training run")
    return TrainConfig(**saved)


def run_name(name: str, kind: str) -> str:
    """The name given, checked, or a new one."""
    if not name:
        from traces.catalog import new_run_id

        return new_run_id(kind)
    if not re.fullmatch(r"[\w.-]{1,48}", name, re.ASCII) or name.startswith("."):
        raise UserError(f"--name {one_line(name)!r}: use up to 48 letters, digits, '-', '_', '.'")
    return name

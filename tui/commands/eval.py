"""`vla-trace eval`: success on held-out scenes, paired with a base policy."""

import platform
from dataclasses import asdict
from pathlib import Path

import click

from tui.terminal import Exit, one_line, to_json


@click.command(
    name="eval",
    help="""Success of a policy on held-out scenes, paired with its base.

    Both policies play the same scenes from the same noise with the same deterministic sampler,
    denoising steps and replanning, so every difference is the policy's. Intervals are 95 %
    (Wilson; Newcombe for the paired difference), p is McNemar's, exact.

    \b
      vla-trace eval --policy runs/NAME/checkpoints/000100/pretrained_model
      vla-trace eval --policy FOLDER --task 1                one task
      vla-trace eval --base none                             one policy alone
    """,
)
@click.option("--policy", default="smolvla-tabletop", show_default=True, help="Name or folder.")
@click.option("--base", default="smolvla-tabletop", show_default=True, help="Name, folder or none.")
@click.option("--task", default="all", show_default=True, help="Number, name or all.")
@click.option("--suite", default="tabletop", show_default=True)
@click.option("--episodes", type=int, default=100, show_default=True, help="Scenes a task.")
@click.option("--seed", type=int, default=0, show_default=True, help="First scene seed.")
@click.option("--replan", type=int, help="Steps a policy call; default: the policy's own.")
@click.option("--steps", type=int, help="Denoising steps; default: the policy's own.")
@click.option("--workers", type=int, default=2, show_default=True, help="Environment processes.")
@click.option("--name", default="", help="Name of the run; default: made from the time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(policy: str, base: str, task: str, suite: str, name: str, as_json: bool, **options):
    """Evaluate, write a run folder, print one line a task."""
    from engine.config import EvalConfig
    from engine.envs import load_suite
    from engine.evaluate import outcomes
    from engine.policies.smolvla import load_policy
    from engine.runs import new_run_folder
    from traces.events import EventWriter
    from tui.commands.train import run_name

    module = load_suite(suite)
    tasks = range(len(module.TASKS)) if task == "all" else [module.task_id_of(task)]
    loaded = load_policy(policy)
    own = loaded.policy.config
    defaults = {"replan": own.n_action_steps, "steps": own.num_steps}
    given = {key: value for key, value in options.items() if value is not None}
    config = EvalConfig(suite=suite, policy=policy, base=base, **defaults | given)
    policies = [loaded, *([] if base == "none" or policy == base else [load_policy(base)])]
    run_id = run_name(name, "eval")
    rows = []
    with EventWriter(new_run_folder(run_id) / "events.jsonl") as events:
        events.emit(
            "run_start", run_id=run_id, kind="eval", host=platform.node(), config=asdict(config)
        )
        for task_id in tasks:
            won = outcomes(config, policies, task_id)
            rows.append(_row(module.TASKS[task_id].name, *won))
            events.emit("eval", task_id=task_id, update=0, n=config.episodes, metrics=rows[-1])
            if not as_json:
                click.echo(_line(rows[-1]))
        events.emit("run_end", status="finished")
    if as_json:
        click.echo(to_json({"run_id": run_id, "config": asdict(config), "tasks": rows}))
    else:
        click.echo(
            f"policy {one_line(policy)}, {config.episodes} held-out scenes a task from seed "
            f"{config.seed}, deterministic sampler, {config.steps} denoising steps, a policy call "
            f"every {config.replan}; log: {Path('runs') / run_id}",
            err=True,
        )
    return Exit.OK


def _row(task: str, won: list[bool], base: list[bool] | None = None) -> dict:
    """What is reported of one task."""
    from analysis.stats import paired_success, wilson

    row = {
        "task": task,
        "n": len(won),
        "success": sum(won),
        "eval/success_once": sum(won) / len(won),
        "ci": wilson(sum(won), len(won)),
    }
    if base is not None:
        paired = paired_success(won, base)
        row |= {
            "base_success": sum(base),
            "eval/base_success_once": sum(base) / len(base),
            "base_ci": wilson(sum(base), len(base)),
            "difference": paired.difference,
            "difference_ci": paired.ci,
            "p_value": paired.p_value,
            "only_policy": paired.only_a,
            "only_base": paired.only_b,
        }
    return row


def _line(row: dict) -> str:
    low, high = row["ci"]
    text = f"{row['task']:24} {row['eval/success_once']:5.0%} [{low:.0%}, {high:.0%}]"
    if "base_success" in row:
        (b_low, b_high), (d_low, d_high) = row["base_ci"], row["difference_ci"]
        text += (
            f"  base {row['eval/base_success_once']:4.0%} [{b_low:.0%}, {b_high:.0%}]"
            f"  difference {row['difference']:+.0%} [{d_low:+.0%}, {d_high:+.0%}]"
            f"  McNemar p {row['p_value']:.2g} ({row['only_policy']} won, {row['only_base']} lost)"
        )
    return f"{text}  n {row['n']}"

"""A training run on stderr: one line an update, one an evaluation."""

import click

from tui.terminal import one_line


class TrainingLines:
    """Takes the events of a run."""

    def __call__(self, kind: str, fields: dict) -> None:
        """Say what is worth a line."""
        if kind == "step":
            click.echo(_step(fields["update"], fields["metrics"]), err=True)
        elif kind == "eval":
            click.echo(_eval(fields), err=True)
        elif kind == "alert":
            text = fields.get("text") or fields.get("message", "")
            click.echo(f"{fields['level']}: {one_line(text)}", err=True)
        elif kind == "phase" and fields["name"] == "eval" and not fields.get("done"):
            click.echo("evaluating ...", err=True)


def _step(update: int, metrics: dict) -> str:
    text = (
        f"update {update}: success {metrics['env/success_once']:.0%} of "
        f"{metrics['rollout/episodes']} episodes, {metrics['rollout/groups_accepted']} groups"
    )
    if "train/actor/approx_kl" in metrics:
        text += (
            f", kl {metrics['train/actor/approx_kl']:.4f}, "
            f"clipped {metrics['train/actor/clip_fraction']:.0%}, "
            f"first ratio off by {metrics['train/actor/first_ratio_max_abs_dev']:.0e}"
        )
    return f"{text}, {metrics['time/step']:.1f} s"


def _eval(fields: dict) -> str:
    from analysis.proportions import wilson

    metrics, n = fields["metrics"], fields["n"]
    share = metrics["eval/success_once"]
    low, high = wilson(round(share * n), n)
    where = fields.get("task_name", "eval")
    text = f"{where}: success {share:.0%} [{low:.0%}, {high:.0%}] on {n} held-out scenes"
    if "eval/base_success_once" in metrics:
        text += f", base {metrics['eval/base_success_once']:.0%}"
    return text

"""`vla-trace snapshot RUN --around UPDATE`: everything about some updates of a training."""

import sys

import click

from tui.terminal import Exit, one_line, to_json


@click.command(name="snapshot")
@click.argument("run")
@click.option("--around", type=int, required=True, metavar="UPDATE", help="The update in question.")
@click.option("--window", type=click.IntRange(0, 100), default=2, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(run: str, around: int, window: int, as_json: bool) -> Exit:
    """Show metrics, evaluations, alerts and groups around an update of RUN.

    Metrics of the updates from UPDATE - WINDOW to UPDATE + WINDOW, and the groups of UPDATE.
    """
    from traces.errors import UserError
    from tui.data.one_run import log_of

    log = log_of(run, groups_kept=sys.maxsize)
    if log.training is None:
        raise UserError(f"{one_line(log.run_id)} is no training run: it has no updates")
    training = log.training.frozen()
    if around not in training.updates and around not in training.groups:
        raise UserError(f"no update {around}; {one_line(log.run_id)} has 1 to {training.done}")
    updates = [u for u in training.updates if abs(u - around) <= window]
    click.echo(
        to_json(_json(log.run_id, training, around, updates, window))
        if as_json
        else "\n".join(_lines(training, around, updates, window))
    )
    return Exit.OK


def _near(training, around: int, window: int) -> tuple[list, list]:
    """Return the alerts and the evaluations of the window."""
    low, high = around - window, around + window
    alerts = [a for a in training.alerts if a.update <= high and a.until >= low]
    return alerts, [e for e in training.evaluations if low <= e.update <= high]


def _json(name: str, training, around: int, updates: list[int], window: int) -> dict:
    from tui.status import alert_json, evaluation_json, groups_json, metrics_json

    alerts, evaluations = _near(training, around, window)
    return {
        "schema": 1,
        "run": name,
        "around": around,
        "updates": [{"update": u, "metrics": metrics_json(training, u)} for u in updates],
        "alerts": [alert_json(alert) for alert in alerts],
        "evals": [evaluation_json(found) for found in evaluations],
        "groups": groups_json(training, around),
    }


def _lines(training, around: int, updates: list[int], window: int) -> list[str]:
    from tui.status import alert_text, evaluation_text
    from tui.wording import compact

    rows = [["update", *(f"*{u}" if u == around else str(u) for u in updates)]]
    rows += [
        [one_line(name), *(compact(training.at(u, name)) for u in updates)]
        for name in sorted(training.history)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    alerts, evaluations = _near(training, around, window)
    lines += ["", *map(alert_text, alerts)] if alerts else ["", "no alerts"]
    lines += map(evaluation_text, evaluations)
    return [*lines, "", *_group_lines(training, around)]


def _group_lines(training, around: int) -> list[str]:
    groups = training.groups.get(around, ())
    lines = [f"groups of update {around}" + ("" if groups else ": none known")]
    for group in groups:
        outcomes = "".join(
            "." if m is None else "x" if not m.success else "o" for m in group.members
        )
        mean = "" if group.mean is None else f"mean {group.mean:.2f}"
        values = group.advantages(training.advantage)
        worth = f"advantage {max(values):+.2f} to {min(values):+.2f}" if values else ""
        said = (f"{group.number:>4}", one_line(group.task), outcomes, mean, worth, group.verdict)
        lines.append("  ".join(text for text in said if text))
    return lines

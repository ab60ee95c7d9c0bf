"""`vla-trace alerts [RUN]`: what needs a look, as logged and as the rules work it out."""

import re
import time

import click

from tui.terminal import Exit, to_json

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command(name="alerts")
@click.argument("run", required=False)
@click.option("--since", metavar="TIME", help="Only of the last TIME, such as 30m, 2h or 1d.")
@click.option("--level", type=click.Choice(["warn", "error"]), help="Only of this level.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(run: str | None, since: str | None, level: str | None, as_json: bool) -> Exit:
    """List the alerts of RUN, oldest first; default: the run heard last.

    The rules and their sources are in docs/watching.md.
    """
    from tui.data.one_run import log_of
    from tui.data.training import Training
    from tui.status import alert_json, alert_text

    after = time.time() - seconds(since) if since else None
    log = log_of(run)
    training = log.training.frozen() if log.training else Training()
    found = [
        alert
        for alert in training.alerts
        if (level is None or alert.level == level) and (after is None or alert.t >= after)
    ]
    if as_json:
        click.echo(
            to_json({"schema": 1, "run": log.run_id, "alerts": list(map(alert_json, found))})
        )
        return Exit.OK
    for alert in found:
        click.echo(alert_text(alert))
    if not found:
        click.echo("no alerts", err=True)
    return Exit.OK


def seconds(text: str) -> float:
    """Return a length of time such as 90s, 30m, 2h or 1d in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is no time; expected such as 30m, 2h or 1d")
    return float(match[1]) * SECONDS[match[2]]

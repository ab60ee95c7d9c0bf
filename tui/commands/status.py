"""`vla-trace status [RUN]`: how a run is, in words or as JSON; reads its log alone."""

import time

import click

from tui.terminal import Exit, to_json

POLL_S = 1.0


@click.command(name="status")
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--watch", is_flag=True, help="Say what changed, every second, until it is over.")
def command(run: str | None, as_json: bool, watch: bool) -> Exit:
    """Say how RUN is: a name in runs/, its folder or its log; default: the one heard last.

    State, update and phase with estimates, success with intervals, groups, alerts, checkpoint.
    """
    from tui.data.one_run import log_of
    from tui.status import status_json, status_lines

    log = log_of(run)
    if as_json and not watch:
        click.echo(to_json(status_json(log, time.time())))
        return Exit.OK
    if not watch:
        click.echo("\n".join(status_lines(log, time.time())))
        return Exit.OK
    said = ""
    while True:
        now = time.time()
        state = log.state(now)
        news = f"{state}: {log.latest}"
        if news != said:
            said = news
            click.echo(_compact(status_json(log, now)) if as_json else f"{log.run_id}: {news}")
        if state in ("finished", "failed", "crashed?"):
            return Exit.OK
        time.sleep(POLL_S)
        log.poll()


def _compact(value: dict) -> str:
    """Return strict JSON on one line."""
    import json

    return json.dumps(value, allow_nan=False)

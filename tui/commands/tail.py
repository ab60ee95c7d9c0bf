"""`vla-trace tail RUN`: what a run logs, and the alerts that follow from it, line by line."""

import json
import math
import time

import click

from tui.terminal import Exit, one_line

POLL_S = 1.0


@click.command(name="tail")
@click.argument("run", required=False)
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only events of this type.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as JSON on one line.")
@click.option("--follow", is_flag=True, help="Go on until the run is over.")
@click.option("-n", "--lines", type=click.IntRange(0), default=20, show_default=True)
def command(
    run: str | None, types: tuple[str, ...], as_json: bool, follow: bool, lines: int
) -> Exit:
    """Print the last events of RUN, the newest last; default: the run heard last.

    With --type alert the alerts that vla-tui works out are there too.
    """
    from traces.errors import UnknownName
    from traces.events import EVENT_TYPES, EventTail
    from tui.data.one_run import log_of
    from tui.data.run_log import RunLog

    for name in types:
        if name not in EVENT_TYPES:
            raise UnknownName("event type", name, EVENT_TYPES)
    path = log_of(run).path
    log, tail = RunLog(path), EventTail(path)
    last: list[dict] = []
    first = True
    while True:
        for event in _with_alerts(log, tail):
            if not types or event["type"] in types:
                last.append(event)
        shown = last[len(last) - lines :] if first and lines < len(last) else last
        for event in shown:
            click.echo(_json(event) if as_json else event_text(event))
        last, first = [], False
        if not follow or log.state(time.time()) in ("finished", "failed", "crashed?"):
            return Exit.OK
        time.sleep(POLL_S)


def _with_alerts(log, tail):
    """Yield new events, each followed by the alerts it gave rise to."""
    from tui.status import alert_json

    for event in tail.poll():
        yield event
        for alert in log.add(event):
            yield {"t": event["t"], "type": "alert"} | alert_json(alert)


def event_text(event: dict) -> str:
    """Return an event on one line: time, type, and its fields by name."""
    fields = {k: v for k, v in event.items() if k not in ("v", "seq", "t", "type", "config")}
    metrics = fields.pop("metrics", None)
    if isinstance(metrics, dict):
        fields |= metrics
    said = " ".join(f"{one_line(k)}={_value(v)}" for k, v in fields.items() if v not in (None, ""))
    return f"{_clock(event['t'])} {one_line(event['type'])} {said}".rstrip()


def _clock(t: float) -> str:
    from tui.wording import date

    return date(t).removesuffix(" UTC")


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return one_line(value)


def _json(event: dict) -> str:
    return json.dumps(_strict(event), allow_nan=False)


def _strict(value: object) -> object:
    """Return a value without NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _strict(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_strict(held) for held in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

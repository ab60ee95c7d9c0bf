"""`vla-trace analyze FILES`: one row a condition, with what makes each number true."""

from itertools import groupby
from typing import TYPE_CHECKING

import click

from tui.terminal import Exit, one_line, to_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from analysis.outcome import Condition, Family, Interval, Report


@click.command(name="analyze")
@click.argument("files", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(files: tuple[str, ...], as_json: bool) -> Exit:
    """Compare the conditions recorded in FILES: traces, folders or "quoted/*.h5" patterns.

    One row a condition: episodes, success with its Wilson interval, MEED (mean end-effector
    displacement, cm per control step) with its bootstrap interval, and the paired difference to
    the baseline with interval and sign-flip p. Intervals are 95 %.
    """
    from analysis.outcome import analyse

    report = analyse(files)
    if as_json:
        click.echo(to_json(report.to_dict()))
    else:
        _print(report)
    return Exit.OK


def _print(report: "Report") -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not report.conditions:
        console.print("no episodes in these files")
    for setting, group in groupby(report.conditions, key=_setting):
        console.print(setting, style="bold")
        table = _table(list(group))
        # A terminal too narrow wraps the lines; rich would cut digits off.
        needed = console.measure(table, options=console.options.update(width=1000)).minimum
        console.width = max(console.width, needed)
        console.print(table)
        console.print()
    for family in report.families:
        if family.p_value is not None:
            _print_trend(console, family)
    for note in report.notes:
        console.print(f"note: {one_line(note)}")


def _setting(condition: "Condition") -> str:
    task = f"{condition.suite} task {condition.task_id} ({condition.task})"
    sampler = f"{condition.sampler}, K {condition.K}, replan {condition.replan}"
    return one_line(f"{condition.policy} on {task}; {sampler}")


def _table(conditions: list["Condition"]) -> "Table":
    from rich import box
    from rich.table import Table

    headers = ("condition", "n", "success", "MEED cm/step", "vs baseline", "p")
    rows = [_row(condition) for condition in conditions]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(headers[0], overflow="fold", min_width=len(headers[0]))
    for place, header in enumerate(headers[1:], start=1):
        lines = [line for row in rows for line in (header, *row[place].split("\n"))]
        table.add_column(header, justify="right", no_wrap=True, min_width=max(map(len, lines)))
    for row in rows:
        table.add_row(*row)
    return table


def _row(condition: "Condition") -> tuple[str, ...]:
    where = f"\n{one_line(condition.sites)}" if condition.sites else ""
    pairs = f"\n{condition.n_pairs} pairs" if condition.n_pairs else ""
    return (
        one_line(condition.label) + where,
        str(condition.episodes),
        _estimate(condition.success_rate, condition.success_ci, _percent),
        _estimate(condition.meed_cm, condition.meed_ci, "{:.4f}".format),
        _estimate(condition.delta_meed_cm, condition.delta_ci, "{:+.4f}".format),
        _p(condition.p_value) + pairs,
    )


def _print_trend(console: "Console", family: "Family") -> None:
    doses = ", ".join(f"{alpha:g}" for alpha in family.alphas)
    low, high = family.slope_ci
    console.print(
        f"trend of MEED over alpha, {one_line(family.intervention)} at {doses} "
        f"({one_line(family.sites)}, {one_line(family.suite)} task {family.task_id}): "
        f"{family.slope_cm_per_alpha:+.4f} [{low:+.4f}, {high:+.4f}] cm per unit of alpha, "
        f"Page's L {family.page_l:g}, p {_p(family.p_value)}, {family.n_pairs} pairs"
    )


def _estimate(value: float | None, interval: "Interval | None", shown: object) -> str:
    """Write a number over its interval, or "-" where there is none."""
    if value is None:
        return "-"
    return f"{shown(value)}\n[{', '.join(map(shown, interval))}]" if interval else shown(value)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"

"""`vla-trace analyze FILES`: one row a condition, with what makes each number true."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from traces.errors import UnknownName
from tui.terminal import Exit, one_line, to_json, write_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from analysis.outcome import Condition, Family, Interval, Report
    from analysis.report_tables import Options

TABLES = ("outcome", "motion", "safety", "training", "advantages")


@click.command(
    name="analyze",
    help="""Compare the conditions recorded in FILES: traces, folders or "quoted/*.h5" patterns.

    One row a condition: episodes, success with its Wilson interval, MEED (mean end-effector
    displacement, cm per control step) with its bootstrap interval, and the paired difference to
    the baseline with interval and sign-flip p, over whole episodes and over the first steps that
    both of a pair have. Intervals are 95 %. Below the table, what speaks for the concept: its rank
    among random clusters, and whether the null control changed nothing. Random clusters share a
    row; --json has each.

    \b
    --table motion      MEED per phase, path, smoothness, gripper, time to success
    --table safety      contact and force, limits, clipped actions, drops
    --table training    fine-tuned policies beside the base, task by task
    --table advantages  groups, advantages, drift and value, from traces of training

    docs/analysis.md defines every number.
    """,
)
@click.argument("files", nargs=-1, required=True)
@click.option("--table", default="outcome", show_default=True, metavar="|".join(TABLES))
@click.option("--base", default="", metavar="NAME|FILE", help="Policy that others were tuned from.")
@click.option("--horizon", type=click.IntRange(1), metavar="STEPS", help="Of fixed-horizon MEED.")
@click.option("--out", metavar="FOLDER", help="Write every table there, as Parquet and CSV.")
@click.option("--force", is_flag=True, help="Replace an earlier FOLDER of tables.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    files: tuple[str, ...],
    table: str,
    base: str,
    horizon: int | None,
    out: str | None,
    force: bool,
    as_json: bool,
) -> Exit:
    """Print one table, after writing all of them where that is asked for."""
    if table not in TABLES:
        raise UnknownName("table", table, TABLES)
    if out is not None:
        _write(files, base, horizon, Path(out).expanduser(), force)
    if table != "outcome":
        from analysis.report_tables import tables

        found = tables(table, files, _options(base, horizon))
        if as_json:
            click.echo(to_json(found.to_dict(table)))
        else:
            from tui.commands.analyze_tables import print_tables

            print_tables(table, found)
        return Exit.OK
    from analysis.outcome import analyse

    report = analyse(files)
    if as_json:
        click.echo(to_json(report.to_dict()))
    else:
        _print(report)
    return Exit.OK


def _options(base: str, horizon: int | None) -> "Options":
    from analysis.report_tables import Options

    return Options(base) if horizon is None else Options(base, horizon)


def _write(files: Sequence[str], base: str, horizon: int | None, out: Path, force: bool) -> None:
    """Write every table into a folder that gets its name when it is whole."""
    from analysis.report_tables import tables, write_tables
    from traces.catalog import find_traces
    from traces.export.target import MARK, fresh

    with fresh(out, find_traces(files), force=force) as folder:
        options = _options(base, horizon)
        names = write_tables(folder, {name: tables(name, files, options) for name in TABLES})
        made_by = {"made_by": "vla-trace analyze", "files": sorted(files), "tables": names}
        write_text(folder / MARK, to_json(made_by))
    click.echo(f"wrote {len(names)} tables to {one_line(out)}", err=True)


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
    _print_specificity(console, report.conditions)
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

    headers = ("condition", "n", "success", "MEED cm/step", "vs baseline", "common steps")
    rows = [_row(condition) for condition in conditions if condition.role != "random"]
    rows += [_random_row(same) for same in _random_clusters(conditions)]
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
    tested = []
    if condition.p_value is not None:
        tested.append(f"p {_p(condition.p_value)}")
    if condition.n_pairs:
        tested.append(f"{condition.n_pairs} pairs")
    lines = [_estimate(condition.delta_meed_cm, condition.delta_ci, "{:+.3f}".format)]
    lines += [", ".join(tested)] if tested else []
    lines += [f"Holm {_p(condition.p_holm)}"] if condition.p_holm is not None else []
    return (
        one_line(condition.label) + where,
        str(condition.episodes),
        _estimate(condition.success_rate, condition.success_ci, _percent),
        _estimate(condition.meed_cm, condition.meed_ci, "{:.3f}".format),
        "\n".join(lines),
        _estimate(condition.delta_meed_common_cm, condition.delta_common_ci, "{:+.3f}".format),
    )


def _random_clusters(conditions: list["Condition"]) -> list[list["Condition"]]:
    """Random clusters at the same dose, for the same concept (their names are numbered)."""
    together: dict[tuple, list[Condition]] = {}
    for condition in conditions:
        if condition.role == "random":
            concept = condition.intervention.partition(" for ")[2]
            together.setdefault((concept, condition.sites, condition.alpha), []).append(condition)
    return list(together.values())


def _random_row(clusters: list["Condition"]) -> tuple[str, ...]:
    """One row for clusters drawn by chance; ranges instead of intervals."""
    first, n = clusters[0], sum(c.episodes for c in clusters)
    concept = first.intervention.partition(" for ")[2]
    alpha = "" if first.alpha is None else f" α={first.alpha:g}"
    successes = sum(c.successes for c in clusters)
    return (
        f"{len(clusters)} random for {one_line(concept)}{alpha}\n{one_line(first.sites)}",
        str(n),
        _percent(successes / n) if n else "-",
        _range([c.meed_cm for c in clusters], "{:.3f}".format),
        _range([c.delta_meed_cm for c in clusters], "{:+.3f}".format),
        _range([c.delta_meed_common_cm for c in clusters], "{:+.3f}".format),
    )


def _range(values: list[float | None], shown: object) -> str:
    known = [value for value in values if value is not None]
    return f"{shown(min(known))}\nto {shown(max(known))}" if known else "-"


def _print_specificity(console: "Console", conditions: list["Condition"]) -> None:
    """The rank of each concept among its random clusters, and once what the null controls did."""
    nulls = {}
    for condition in conditions:
        found = condition.specificity
        if found is None:
            continue
        nulls[found.null_pairs] = found.null_equal
        if found.n_random:
            low, high = found.excess_ci or (None, None)
            interval = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
            console.print(
                f"{one_line(condition.label)}: beyond {found.beyond} of {found.n_random} random "
                f"clusters, rank p {_p(found.rank_p)}; {found.excess_cm:+.3f}{interval} cm more "
                "than they do"
            )
    for pairs, equal in nulls.items():
        if pairs:
            console.print(f"null control: bit-equal to the baseline in {equal} of {pairs} episodes")


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

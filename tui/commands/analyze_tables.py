"""How `vla-trace analyze --table ...` prints: a heading, a table of at most 80 columns, notes."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from analysis import motion_table, safety_table
from tui.terminal import one_line

if TYPE_CHECKING:
    import polars as pl

    from analysis.report_tables import Tables

Row = dict[str, object]

SHARES = frozenset({"idle_share", "contact", "at_limit", "joint_limit", "saturated"})
"""Measures that are printed in per cent."""

SETTING = ("policy", "policy_id", "suite", "task_id", "task", "sampler", "K", "replan")
BLOCK = (*SETTING, "role", "label", "intervention", "sites", "alpha", "prompt", "against")
NAME = 13
"""Characters of a row's name that stay on one line."""
SOME = 12
"""Initial states shown; --json has all of them."""


def print_tables(name: str, tables: "Tables") -> None:
    """Print the tables of one of `report_tables.NAMES` but the first."""
    console = Console(highlight=False, markup=False, emoji=False)
    _PRINTERS[name](console, tables.frames)
    for note in tables.notes:
        console.print(f"note: {one_line(note)}")


def _motion(console: Console, frames: dict[str, "pl.DataFrame"]) -> None:
    _measures(console, frames["motion"], motion_table.MEASURES)


def _safety(console: Console, frames: dict[str, "pl.DataFrame"]) -> None:
    _measures(console, frames["safety"], safety_table.MEASURES)


def _measures(console: Console, frame: "pl.DataFrame", labels: dict[str, str]) -> None:
    """One block a condition and comparison, one line a measure."""
    if frame.is_empty():
        console.print("no episodes in these files")
    rows = frame.to_dicts()
    blocks = [list(block) for _, block in groupby(rows, key=lambda row: _values(row, BLOCK))]
    for setting, of_setting in groupby(blocks, key=lambda block: _values(block[0], SETTING)):
        console.print(_heading(dict(zip(SETTING, setting, strict=True))), style="bold")
        for merged in _random_together(list(of_setting)):
            _print_block(console, merged, labels)


def _random_together(blocks: list[list[Row]]) -> list[list[list[Row]]]:
    """Blocks of random clusters of one concept, dose and comparison share a table."""
    merged: dict[tuple, list[list[Row]]] = {}
    for place, block in enumerate(blocks):
        first = block[0]
        concept = str(first["intervention"]).partition(" for ")[2]
        same = (concept, first["sites"], first["alpha"], first["against"])
        merged.setdefault(same if first["role"] == "random" else place, []).append(block)
    return list(merged.values())


def _print_block(console: Console, blocks: list[list[Row]], labels: dict[str, str]) -> None:
    first = blocks[0][0]
    title = one_line(first["label"])
    if len(blocks) > 1:
        title = (
            f"{len(blocks)} random clusters{title.removeprefix('random 0')}, from lowest to highest"
        )
    against = {"base": ", against the base policy", "baseline": ", against the baseline"}
    headers = ("", "n", "mean", "difference", "pairs", "p", "Holm")
    lines = []
    for measure, label in labels.items():
        rows = [row for block in blocks for row in block if row["measure"] == measure]
        if rows:
            lines.append(_measure_line(label, rows, 100 if measure in SHARES else 1))
    if not first["against"]:
        headers, lines = headers[:3], [line[:3] for line in lines]
    console.print(f"{title}{against.get(first['against'], '')}")
    _print_rows(console, headers, lines)


def _measure_line(label: str, rows: list[Row], scale: int) -> tuple[str, ...]:
    name = f"{label}, %" if scale == 100 else label.replace("MEED ", "  ")
    n, pairs = sum(row["n"] for row in rows), sum(row["n_pairs"] for row in rows)
    if len(rows) > 1:
        mean = _range([row["mean"] for row in rows], scale)
        return (
            name,
            str(n),
            mean,
            _range([row["difference"] for row in rows], scale, "+"),
            str(pairs),
            "",
            "",
        )
    (row,) = rows
    mean = _estimate(row, "mean", scale)
    difference = _estimate(row, "difference", scale, "+")
    return (name, str(n), mean, difference, str(pairs), _p(row["p_value"]), _p(row["p_holm"]))


def _training(console: Console, frames: dict[str, "pl.DataFrame"]) -> None:
    tasks = frames["training_tasks"].to_dicts()
    if not tasks:
        console.print("no fine-tuned policy beside its base in these files")
    arm = ("policy", "base", "suite", "sampler", "K", "replan", "label", "prompt", "fingerprint")
    aggregates = frames["training_aggregates"].to_dicts()
    headers = ("task", "base", "fine-tuned", "difference", "pairs", "test p", "Holm")
    for key, group in groupby(tasks, key=lambda row: _values(row, arm)):
        first = dict(zip(arm, key, strict=True))
        console.print(
            one_line(
                f"{first['policy']} against {first['base']} on {first['suite']}, {first['label']}; "
                f"{first['sampler']}, K {first['K']}, replan {first['replan']}"
            ),
            style="bold",
        )
        _print_rows(console, headers, [_task_line(row) for row in group])
        for row in aggregates:
            if _values(row, arm) == key:
                console.print(_aggregate_line(row))
        console.print()


def _task_line(row: Row) -> tuple[str, ...]:
    won = f"{row['n_pairs']}"
    if row["n_pairs"]:
        won += f"\n{row['only_policy']} won\n{row['only_base']} lost"
    return (
        f"{row['task_id']} {one_line(row['task'])}",
        f"{row['base_successes']}/{row['base_n']}\n{_percent(row, 'base_rate', 'base_')}",
        f"{row['successes']}/{row['n']}\n{_percent(row, 'rate', '')}",
        _percent(row, "difference", "difference_", "+"),
        won,
        f"{_p(row['p_value'])}\n{row['test']}",
        _p(row["p_holm"]),
    )


def _aggregate_line(row: Row) -> str:
    told = (
        ("base", _percent(row, "base_value", "base_")),
        ("fine-tuned", _percent(row, "value", "")),
        ("difference", _percent(row, "difference", "difference_", "+")),
    )
    parts = ", ".join(f"{name} {' '.join(text.splitlines())}" for name, text in told)
    p = f", McNemar p {_p(row['p_value'])}" if row["p_value"] is not None else ""
    return f"{row['statistic']} ({row['n_tasks']} tasks, {row['n_pairs']} pairs): {parts}{p}"


def _advantages(console: Console, frames: dict[str, "pl.DataFrame"]) -> None:
    updates, value = frames["updates"].to_dicts(), frames["value_curve"].to_dicts()
    if not updates:
        console.print("no training in these files")
        return
    for run, own in groupby(updates, key=lambda row: row["run_id"]):
        rows = list(own)
        console.print(one_line(f"run {run}: what its groups taught"), style="bold")
        headers = (
            "update",
            "groups",
            "no variance",
            "success",
            "episodes",
            "advantage",
            "+ / -",
            "ESS",
        )
        _print_rows(console, headers, [_learned_line(row) for row in rows])
        console.print("how far each step went (ratio: new over old likelihood)")
        headers = (
            "update",
            "decisions",
            "ratio",
            "largest",
            "first",
            "KL, nat",
            "clipped",
            "ESS",
            "log p",
        )
        _print_rows(console, headers, [_step_line(row) for row in rows])
        console.print("value: mean return of an update's episodes, and its sum over updates")
        headers = ("update", "n", "value", "n so far", "cumulative", "mean so far")
        curve = [_value_line(row) for row in value if row["run_id"] == run]
        _print_rows(console, headers, curve)
        _print_states(
            console, [r for r in frames["initial_states"].to_dicts() if r["run_id"] == run]
        )
        console.print()


def _learned_line(row: Row) -> tuple[str, ...]:
    mean, spread = row["advantage_mean"], row["advantage_std"]
    without = _percent(row, "zero_variance_share", "zero_variance_")
    return (
        str(row["update"]),
        f"{row['n_groups']}\n{row['n_accepted']} used",
        f"{row['n_zero_variance']}/{row['n_groups']}\n{without}",
        f"{row['n_success']}/{row['n']}\n{_percent(row, 'success_rate', 'success_')}",
        str(row["n_advantages"]),
        "-" if mean is None else f"{_number(mean)}\nsd {_number(spread)}",
        f"{row['n_positive']} / {row['n_negative']}",
        _number(row["ess_episodes"], 1),
    )


def _step_line(row: Row) -> tuple[str, ...]:
    drift = row["log_prob_drift"]
    return (
        str(row["update"]),
        "-" if row["n_decisions"] is None else str(row["n_decisions"]),
        _number(row["ratio_mean"], 3),
        _number(row["ratio_max"]),
        "-" if row["first_ratio_max_abs_dev"] is None else f"{row['first_ratio_max_abs_dev']:.0e}",
        _number(row["approx_kl"], 4),
        "-" if row["clip_fraction"] is None else f"{100 * row['clip_fraction']:.1f}%",
        "-" if row["ess_share"] is None else f"{100 * row['ess_share']:.0f}%",
        "-" if drift is None else f"{row['log_prob']:.1f}\n{drift:+.2f}",
    )


def _value_line(row: Row) -> tuple[str, ...]:
    return (
        str(row["update"]),
        str(row["n"]),
        _number(row["value"], 3),
        str(row["n_cumulative"]),
        _number(row["value_cumulative"], 3),
        _number(row["value_so_far"], 3),
    )


def _print_states(console: Console, states: list[Row]) -> None:
    count = {o: [s for s in states if s["outcome"] == o] for o in ("always", "never", "mixed")}
    console.print(
        f"initial states: {len(states)} drawn; "
        + ", ".join(f"{len(found)} {outcome}" for outcome, found in count.items())
        + " succeeded"
    )
    for outcome in ("always", "never"):
        shown = [f"{s['init_state']} ({s['n_success']}/{s['n']})" for s in count[outcome][:SOME]]
        more = len(count[outcome]) - len(shown)
        if shown:
            console.print(f"  {outcome}: {', '.join(shown)}{f' and {more} more' if more else ''}")


_PRINTERS: dict[str, Callable[[Console, dict[str, "pl.DataFrame"]], None]] = {
    "motion": _motion,
    "safety": _safety,
    "training": _training,
    "advantages": _advantages,
}


def _print_rows(console: Console, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; a terminal too narrow wraps its lines rather than cut digits off."""
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    rows = list(rows)
    first = max(len(row[0]) for row in [headers, *rows])
    table.add_column(headers[0], overflow="fold", min_width=min(first, NAME))
    for place, header in enumerate(headers[1:], start=1):
        lines = [line for row in rows for line in (header, *row[place].split("\n"))]
        width = max(map(len, lines), default=0)
        table.add_column(header, justify="right", no_wrap=True, min_width=width)
    for row in rows:
        table.add_row(*row)
    needed = console.measure(table, options=console.options.update(width=1000)).minimum
    console.width = max(console.width, needed)
    console.print(table)
    console.print()


def _heading(row: Row) -> str:
    task = f"{row['suite']}, {row['task']}, each counting once"
    if row["task_id"] is not None:
        task = f"{row['suite']} task {row['task_id']} ({row['task']})"
    sampler = f"{row['sampler']}, K {row['K']}, replan {row['replan']}"
    return one_line(f"{row['policy']} on {task}; {sampler}")


def _values(row: Row, names: Iterable[str]) -> tuple:
    return tuple(row[name] for name in names)


def _estimate(row: Row, name: str, scale: int, sign: str = "") -> str:
    """Write a number and its interval, with as many decimals as its size asks for."""
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return "-"
    known = [scale * x + 0.0 for x in (value, low, high) if x is not None]
    decimals = _decimals(known)
    texts = [f"{round(x, decimals) + 0.0:{sign}.{decimals}f}" for x in known]
    return f"{texts[0]} [{', '.join(texts[1:])}]" if len(texts) == 3 else texts[0]


def _range(values: list[float | None], scale: int, sign: str = "") -> str:
    known = [scale * value for value in values if value is not None]
    if not known:
        return "-"
    decimals = _decimals(known)
    low, high = (f"{round(x, decimals) + 0.0:{sign}.{decimals}f}" for x in (min(known), max(known)))
    return f"{low} to {high}"


def _decimals(values: list[float]) -> int:
    size = max(map(abs, values))
    return 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3


def _percent(row: Row, name: str, arm: str, sign: str = "") -> str:
    """Write a share over its interval, in per cent."""
    if row[name] is None:
        return "-"
    low, high = row[f"{arm}low"], row[f"{arm}high"]
    interval = "" if low is None else f"\n[{100 * low:{sign}.0f}, {100 * high:{sign}.0f}]"
    return f"{100 * row[name]:{sign}.0f}%{interval}"


def _number(value: float | None, decimals: int = 2) -> str:
    return "-" if value is None else f"{round(value, decimals) + 0.0:.{decimals}f}"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<.001" if value < 0.001 else f"{value:.3f}"

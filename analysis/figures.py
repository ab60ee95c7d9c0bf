"""Figures of a report, each with its intervals, its controls and n.

Random clusters are grey, zero is a line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from analysis.drawing import COLOURS, GREY, axes_of, cycle, rendered
from analysis.outcome import Condition, Report

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHANGE = "change of MEED to the baseline\n[cm per control step]"


def dose_response(report: Report) -> Figure | None:
    """MEED and success over the dose, one line a cluster, beside random clusters and the prompt.

    The layout of the SmolVLA study's Figure 4, with pairs, intervals and controls. None when no
    intervention was recorded at two doses or more.
    """
    families = _families(report)
    lines = {name: rows for name, rows in families.items() if len(rows) > 1}
    if not lines:
        return None
    figure, (left, right) = axes_of(2, width=9.5)
    for colour, (name, rows) in zip(cycle(), lines.items(), strict=False):
        doses = [c.alpha for c in rows]
        _line(left, doses, rows, colour, f"{name} (n {_n(rows)})")
        right.plot(doses, [c.success_rate for c in rows], "o-", color=colour, label=name)
        low, high = zip(*(c.success_ci for c in rows), strict=True)
        right.fill_between(doses, low, high, color=colour, alpha=0.15, linewidth=0)
    _random_dots(left, report)
    for prompt in _with(report, "prompt"):
        if prompt.delta_meed_cm is not None:
            left.axhline(prompt.delta_meed_cm, color="black", linestyle=":", linewidth=1)
            left.annotate(prompt.label, (0.01, prompt.delta_meed_cm), **_AT_LEFT)
    left.set(xlabel="dose alpha", ylabel=CHANGE)
    right.set(xlabel="dose alpha", ylabel="success, 95 % interval", ylim=(-0.03, 1.03))
    left.legend(frameon=False, fontsize=8)
    return figure


def by_size(report: Report) -> Figure | None:
    """Change of MEED over the number of steered neurons, one line a concept, layer and dose."""
    lines: dict[str, list[tuple[int, Condition]]] = {}
    for condition in _with(report, "steered"):
        name, _, size = condition.intervention.rpartition(" n")
        if name and size.isdigit() and condition.delta_ci is not None and condition.alpha:
            lines.setdefault(f"{name} α={condition.alpha:g}", []).append((int(size), condition))
    lines = {
        name: sorted(rows, key=lambda r: r[0]) for name, rows in lines.items() if len(rows) > 1
    }
    if not lines:
        return None
    figure, (axes,) = axes_of(1)
    for colour, (name, rows) in zip(cycle(), lines.items(), strict=False):
        conditions = [condition for _, condition in rows]
        _line(axes, [size for size, _ in rows], conditions, colour, f"{name} (n {_n(conditions)})")
    axes.set(xlabel="neurons in the cluster", ylabel=CHANGE)
    axes.legend(frameon=False, fontsize=8)
    return figure


def by_condition(report: Report) -> Figure | None:
    """Change of MEED and success of every condition without a dose: ablations, prompts, patches."""
    rows = [c for c in report.conditions if c.role != "baseline" and c.alpha is None]
    rows = [c for c in rows if c.delta_ci is not None]
    if len(rows) < 2:
        return None
    figure, (left, right) = axes_of(2, width=9.5, height=1.2 + 0.26 * len(rows))
    places = range(len(rows))
    for place, condition in zip(places, rows, strict=True):
        colour = COLOURS[0] if condition.role == "steered" else COLOURS[1]
        low, high = condition.delta_ci
        left.plot([low, high], [place, place], color=colour, linewidth=2)
        left.plot(condition.delta_meed_cm, place, "o", color=colour)
        right.plot(condition.success_ci, [place, place], color=colour, linewidth=2)
        right.plot(condition.success_rate, place, "o", color=colour)
    left.set_yticks(places, [f"{c.label} (n {c.n_pairs})" for c in rows], fontsize=8)
    left.invert_yaxis()
    left.axvline(0, color=GREY, linewidth=1)
    left.set(xlabel=CHANGE)
    right.set_yticks(places, [])
    right.invert_yaxis()
    right.set(xlabel="success, 95 % interval", xlim=(-0.03, 1.03))
    return figure


def overview(report: Report) -> Figure | None:
    """Success, MEED and its change to the baseline, of every condition but random clusters."""
    rows = [c for c in report.conditions if c.role != "random" and c.success_ci is not None]
    if not rows:
        return None
    figure, axes = axes_of(3, width=10, height=1.2 + 0.3 * len(rows))
    measures = (
        ("success_rate", "success_ci", "success, 95 % interval"),
        ("meed_cm", "meed_ci", "MEED\n[cm per control step]"),
        ("delta_meed_cm", "delta_ci", CHANGE),
    )
    for one, (value, interval, label) in zip(axes, measures, strict=True):
        for place, condition in enumerate(rows):
            colour = COLOURS[0] if condition.role == "baseline" else COLOURS[1]
            if getattr(condition, interval) is not None:
                one.plot(getattr(condition, interval), [place, place], color=colour, linewidth=2)
            if getattr(condition, value) is not None:
                one.plot(getattr(condition, value), place, "o", color=colour)
        one.set_yticks(range(len(rows)), [])
        one.set(xlabel=label, ylim=(len(rows) - 0.5, -0.5))
    several = len({c.policy for c in rows}) > 1
    names = [f"{c.label}, {c.policy}" if several else c.label for c in rows]
    labels = [f"{name} (n {c.episodes})" for name, c in zip(names, rows, strict=True)]
    axes[0].set_yticks(range(len(rows)), labels, fontsize=8)
    axes[0].set(xlim=(-0.03, 1.03))
    axes[2].axvline(0, color=GREY, linewidth=1)
    return figure


FIGURES: dict[str, Callable[[Report], Figure | None]] = {
    "overview": overview,
    "dose-response": dose_response,
    "cluster-size": by_size,
    "conditions": by_condition,
}


def drawn(report: Report, kind: str = "svg") -> Iterator[tuple[str, bytes]]:
    """Yield name and file of every figure that the report has data for.

    Equal reports give equal bytes.

    Args:
        report: of traces.
        kind: svg or png.
    """
    for name, made in FIGURES.items():
        if file := rendered(lambda made=made: made(report), kind):
            yield name, file


def draw(report: Report, folder: Path, kind: str = "svg") -> list[Path]:
    """Write the figures into a folder, made if absent; files of these names are replaced."""
    return write_files(folder, {f"{name}.{kind}": file for name, file in drawn(report, kind)})


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write files into a folder, made if absent; those of these names are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        (folder / name).write_bytes(file)
    return [folder / name for name in files]


_AT_LEFT = {
    "xycoords": ("axes fraction", "data"),
    "xytext": (0, 2),
    "textcoords": "offset points",
    "fontsize": 7,
}


def _line(
    axes: Axes, x: Sequence[float], rows: Sequence[Condition], colour: str, label: str
) -> None:
    """Paired differences with their intervals."""
    y = [c.delta_meed_cm for c in rows]
    low = [c.delta_meed_cm - c.delta_ci[0] for c in rows]
    high = [c.delta_ci[1] - c.delta_meed_cm for c in rows]
    axes.axhline(0, color=GREY, linewidth=1)
    axes.errorbar(x, y, [low, high], fmt="o-", color=colour, capsize=2, label=label)


def _random_dots(axes: Axes, report: Report) -> None:
    dots = [
        (c.alpha, c.delta_meed_cm)
        for c in _with(report, "random")
        if c.delta_meed_cm is not None and c.alpha is not None
    ]
    if dots:
        label = f"random clusters ({len(dots)})"
        axes.plot(*zip(*dots, strict=True), ".", color=GREY, alpha=0.6, label=label, zorder=0)


def _families(report: Report) -> dict[str, list[Condition]]:
    """Steered conditions that can be compared, by name, in order of dose."""
    found: dict[str, list[Condition]] = {}
    for condition in _with(report, "steered"):
        if condition.alpha is not None and condition.delta_ci is not None:
            found.setdefault(condition.intervention, []).append(condition)
    return {name: sorted(rows, key=lambda c: c.alpha) for name, rows in found.items()}


def _with(report: Report, role: str) -> Iterable[Condition]:
    return (c for c in report.conditions if c.role == role)


def _n(rows: Sequence[Condition]) -> str:
    """Pairs a point: one number, or the range."""
    low, high = min(c.n_pairs for c in rows), max(c.n_pairs for c in rows)
    return str(low) if low == high else f"{low}-{high}"

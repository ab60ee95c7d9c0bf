"""The report of `vla-trace report`: tables, figures and films of some traces on one page.

Everything on it comes from traces, by way of the tables of `report_tables`; equal traces give equal
bytes, whatever their order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis import motion_table, safety_table
from analysis.drawing import rendered
from analysis.figures import FIGURES, drawn
from analysis.figures_inside import atlas_figure, shift_figure
from analysis.films import films
from analysis.inside import Inside, inside
from analysis.outcome import Condition, Report, analyse
from analysis.page import Section, beside, code, listed, page, picture, table
from analysis.report_tables import Options, Tables, tables
from analysis.study import figure_3
from traces.collection import open_traces

if TYPE_CHECKING:
    import polars as pl

ABOUT = {
    "outcome": "Success with 95 % Wilson intervals; MEED, the mean end-effector displacement a "
    "control step, with bootstrap intervals; differences over pairs of episodes that share scene "
    "and denoising noise, with sign-flip p, corrected by Holm where several are tested.",
    "training": "Fine-tuned policies beside the policy they came from, on the same scenes.",
    "motion": "How the hand moves: means over episodes, then differences over pairs, with "
    "bootstrap intervals. MEED in cm a control step; docs/analysis.md defines every measure.",
    "safety": "Contact, forces, limits, clipped actions and drops: shares of control steps, "
    "newtons, counts an episode.",
    "advantages": "What training had to learn from.",
}
TITLES = {
    "outcome": "Outcome",
    "training": "Base against fine-tuned",
    "motion": "Motion",
    "safety": "Safety",
    "advantages": "Groups and advantages",
}
SHOWN = {
    "training": ("training_tasks", "training_aggregates"),
    "motion": ("motion",),
    "safety": ("safety",),
    "advantages": ("updates",),
}
"""Frames of each table that are on the page; `analyze --out` writes all."""
MEASURES = {"motion": motion_table.MEASURES, "safety": safety_table.MEASURES}
"""Tables with one row a measure, and what the measures are called."""
MANY_ROWS = 60
HIDDEN = {"policy_id", "fingerprint", "sampler", "K", "replan"}
"""Columns for machines, or told elsewhere."""


def report_page(paths: Sequence[Path | str], command: str, options: Options | None = None) -> str:
    """Return the page.

    Args:
        paths: traces, as `open_traces` finds them.
        command: what was typed, to be typed again.
        options: of the tables.
    """
    outcome = analyse(paths)
    parts = {name: tables(name, paths, options) for name in SHOWN}
    notes = dict.fromkeys(outcome.notes)
    within = inside(paths, options.base if options else "")
    for part in (*parts.values(), within):
        notes |= dict.fromkeys(part.notes)
    n = sum(condition.episodes for condition in outcome.conditions)
    return page(
        "vla-trace report",
        f"{n} episodes, {len(outcome.conditions)} conditions. Intervals are 95 %.",
        [
            Section(TITLES["outcome"], ABOUT["outcome"], (*_outcome(outcome), *_figures(outcome))),
            *(_tables(name, part) for name, part in parts.items()),
            Section("Inside the policies", INSIDE, tuple(_inside(within))),
            Section("Episodes", FILMED, _films(paths, outcome)),
            Section("What the numbers do not rest on", "", (listed(notes),) if notes else ()),
            Section("How this page was made", "", (code(command), *_provenance(paths))),
        ],
    )


INSIDE = (
    "Activations of fine-tuned policies beside the base's: |d| is the shift of a neuron's mean in "
    "standard deviations, CKA how alike whole layers are. On equal inputs (record --replay) a "
    "layer without a bit of difference is frozen. The atlas shows the expert over denoising steps "
    "and action rows. docs/diff.md defines every number."
)
FILMED = (
    "What the policy saw, where traces kept it (record --keep frames): of each condition the first "
    "pair whose outcomes differ, beside its baseline."
)


def _outcome(report: Report) -> Iterable[str]:
    headers = ("condition", "n", "success", "MEED [cm/step]", "difference [cm/step]", "pairs", "p")
    headers += ("p (Holm)", "setting")
    if report.conditions:
        yield table(headers, map(_condition, report.conditions))


def _condition(c: Condition) -> tuple[object, ...]:
    where = f"{c.policy}, {c.suite} {c.task}, {c.sampler}, K {c.K}, replan {c.replan}"
    return (
        c.label if c.sites is None else f"{c.label} ({c.sites})",
        c.episodes,
        _estimate(c.success_rate, c.success_ci, "{:.0%}".format),
        _estimate(c.meed_cm, c.meed_ci, "{:.3f}".format),
        _estimate(c.delta_meed_cm, c.delta_ci, "{:+.3f}".format),
        c.n_pairs or None,
        _p(c.p_value),
        _p(c.p_holm),
        where,
    )


def _estimate(value: float | None, interval: Sequence[float] | None, shown: object) -> str | None:
    if value is None:
        return None
    return f"{shown(value)} [{', '.join(map(shown, interval))}]" if interval else shown(value)


def _p(value: float | None) -> str | None:
    if value is None:
        return None
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _figures(report: Report) -> Iterable[str]:
    for name, svg in drawn(report, "svg"):
        yield picture(svg, "svg+xml", FIGURES[name].__doc__.partition("\n")[0])


def _tables(name: str, part: Tables) -> Section:
    shown = [part.frames[frame] for frame in SHOWN[name] if not part.frames[frame].is_empty()]
    if name in MEASURES:
        made = [html for frame in shown for html in _measures(frame, MEASURES[name])]
    else:
        made = list(map(_frame, shown))
    if name == "advantages":
        value = part.frames["value_curve"]
        if file := rendered(lambda: figure_3(value)):
            made.append(picture(file, "svg+xml", figure_3.__doc__))
    return Section(TITLES[name], ABOUT[name], tuple(made))


def _inside(found: Inside) -> Iterable[str]:
    """The shifts of every fine-tuned policy, then atlases; a picture each and a table."""
    for shifts in found.shifts:
        caption = f"{shifts.base} -> {shifts.tuned}. {shift_figure.__doc__}"
        yield picture(rendered(lambda one=shifts: shift_figure(one)), "svg+xml", caption)
        yield _frame(shifts.sites)
    for one in found.atlases:
        made = rendered(lambda one=one: atlas_figure(one))
        yield picture(made, "svg+xml", atlas_figure.__doc__)


def _measures(frame: pl.DataFrame, labels: dict[str, str]) -> Iterable[str]:
    """Means, then differences: one row a measure, one column a condition that is not random."""
    rows = [row for row in frame.to_dicts() if row["role"] != "random"]
    told = [k for k in ("label", "policy", "task") if k == "label" or frame[k].n_unique() > 1]
    for against in ("", "baseline", "base"):
        columns: dict[tuple, dict[str, str]] = {}
        for row in rows:
            if not against:
                cell = _between(row["mean"], row["mean_low"], row["mean_high"], "")
            elif row["against"] != against or row["difference"] is None:
                continue
            else:
                cell = _between(
                    row["difference"], row["difference_low"], row["difference_high"], "+"
                )
                cell += f" (n {row['n_pairs']}, p {_p(row['p_value']) or 'unknown'})"
            columns.setdefault(tuple(row[k] for k in told), {})[row["measure"]] = cell
        if columns:
            first = f"difference to the {against}" if against else "mean"
            heads = [first, *(", ".join(key) for key in columns)]
            lines = [[label, *(c.get(m) for c in columns.values())] for m, label in labels.items()]
            yield table(heads, lines)


def _between(value: float, low: float | None, high: float | None, sign: str) -> str:
    if low is None:
        return f"{value:{sign}.3g}"
    return f"{value:{sign}.3g} [{low:{sign}.3g}, {high:{sign}.3g}]"


def _frame(frame: pl.DataFrame) -> str:
    """A frame without columns that say the same, or nothing, in every row."""
    told = [c for c in frame.columns if frame.height == 1 or frame[c].n_unique() > 1]
    told = [c for c in told if c not in HIDDEN]
    told = [c for c in told if frame[c].null_count() < frame.height]
    rows = frame.select(told).head(MANY_ROWS)
    text = table([c.replace("_", " ") for c in told], (map(_cell, row) for row in rows.rows()))
    if frame.height > MANY_ROWS:
        text += listed([f"{frame.height - MANY_ROWS} more rows: vla-trace analyze --out FOLDER"])
    return text


def _cell(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


def _films(paths: Sequence[Path | str], report: Report) -> tuple[str, ...]:
    return tuple(
        beside(picture(gif, "gif", caption) for gif, caption in pair)
        for pair in films(paths, report)
    )


def _provenance(paths: Sequence[Path | str]) -> Iterable[str]:
    """Files, and the versions that recorded them."""
    with open_traces(*paths) as traces:
        recordings = traces.recordings()
        rows = [(path.name, r.header.run_id, r.header.kind) for r in recordings for path in r.paths]
        versions = sorted({json.dumps(r.header.versions, sort_keys=True) for r in recordings})
    yield table(("file", "run", "kind"), sorted(rows))
    for one in versions:
        yield code("\n".join(f"{name} {value}" for name, value in json.loads(one).items()))

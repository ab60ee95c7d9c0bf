"""The preview of a run: what ran, what was changed in it, and what each condition did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.alerts import SUCCESS
from tui.data.model import Run
from tui.data.training import Training
from tui.terminal import one_line
from tui.widgets.chart import sparkline
from tui.widgets.lines import Span, fit, fit_tail, wrap
from tui.wording import date, interval, number, p_value, share, size, state_mark

if TYPE_CHECKING:
    from tui.data.summary import ConditionSummary, RunSummary

NEURONS = 6
"""Neurons of a site that are listed."""

Lines = list[list[Span]]


def run_card(run: Run, summary: RunSummary | None, error: str, width: int) -> Lines:
    """Return the preview, most important lines first (the pane may be low)."""
    lines: Lines = _identity(run, width)
    if run.trouble:
        lines += [[(text, "bad")] for text in wrap(run.trouble, width, limit=4)]
    if run.training is not None:
        lines += training_lines(run.training, width)
    elif run.episodes:
        lines += summary_lines(summary, error, width)
    lines += [[(text, "")] for fact in _facts(run) for text in wrap(fact, width, limit=3)]
    lines += _files(run, width)
    if summary is not None:
        lines += [[(t, "dim")] for n in summary.notes for t in wrap(f"note: {n}", width, limit=3)]
    return lines


def training_lines(training: Training, width: int) -> Lines:
    """Return what a training has reached."""
    done = f"update {training.done}" + (f" of {training.total}" if training.total else "")
    shares = [training.at(update, SUCCESS) for update in training.updates[-200:]]
    lines: Lines = [[(f"{done} ", "bold"), (sparkline(shares, width - len(done) - 2), "accent")]]
    found = [("train", training.success(training.done), None)]
    found += [
        (f"eval at {e.update}{f', {e.task}' if e.forgetting else ''}", e.success, e.base)
        for e in training.evaluations[-4:]
    ]
    for name, success, base in found:
        if success is not None:
            said = f"{share(success.rate)} {interval(success.interval)} of {success.n}"
            beside = f", base {share(base.rate)}" if base else ""
            lines.append([(f"{name} ", "dim"), (said, ""), (beside, "dim")])
    for alert in training.active(training.done)[:3]:
        lines += [[(text, "warn")] for text in wrap(alert.text, width, limit=2)]
    return lines


def summary_lines(summary: RunSummary | None, error: str, width: int) -> Lines:
    """Return two or three lines per condition; the intervals are of 95 %."""
    if error:
        return [[(text, "bad")] for text in wrap(error, width, limit=3)]
    if summary is None:
        return [[("computing intervals …", "dim")]]
    several = len({condition.task for condition in summary.conditions}) > 1
    return [line for c in summary.conditions for line in _condition(c, several, width)]


def _condition(condition: ConditionSummary, with_task: bool, width: int) -> Lines:
    rate = f"{condition.successes}/{condition.n} {share(condition.successes / condition.n)}"
    success: list[Span] = [("success ", "dim"), (f"{rate} ", "bold")]
    success.append((interval(condition.success_ci), ""))
    meed: list[Span] = [("MEED ", "dim"), (f"{number(condition.meed_cm, 3)} cm ", "bold")]
    meed.append((interval(condition.meed_ci, lambda v: number(v, 3)), ""))
    name = condition.label + (f" in {condition.task}" if with_task else "")
    head: list[Span] = [(name, "accent")]
    if condition.from_log:
        head.append((" from the log", "dim"))
    if width >= 76 and len(name) <= 18:
        gap = [(" " * max(1, 19 - sum(len(text) for text, _ in head)), "")]
        lines = [[*head, *gap, *success, ("  ", ""), *meed]]
    else:
        lines = [head, [("  ", ""), *success], [("  ", ""), *meed]]
    return lines + (_difference(condition, width) if condition.delta_cm is not None else [])


def _difference(condition: ConditionSummary, width: int) -> Lines:
    """Return the paired difference to the baseline, on as many lines as it needs."""
    delta: list[Span] = [
        ("  ΔMEED ", "dim"),
        (f"{number(condition.delta_cm, 3, '+')} cm ", "bold"),
        (interval(condition.delta_ci, lambda v: number(v, 3, "+")), ""),
    ]
    sure: list[Span] = [
        (f"  {condition.n_pairs} pairs", "dim"),
        (f"  {p_value(condition.p_value)}" if condition.p_value is not None else "", ""),
    ]
    return [[*delta, *sure]] if width >= 64 else [delta, sure]


def _identity(run: Run, width: int) -> Lines:
    mark, style = state_mark(run.state)
    name: list[Span] = [(f"{one_line(run.run_id)} ", "bold"), (mark, style)]
    what = " ".join(text for text in (run.kind, date(run.started)) if text)
    if sum(len(text) for text, _ in name) + len(what) + 2 <= width:
        return [[*name, (f"  {what}", "dim")]]
    return [[(fit(one_line(run.run_id), width), "bold")], [(mark, style), (f"  {what}", "dim")]]


def _facts(run: Run) -> list[str]:
    header, facts = run.header, []
    if run.tasks:
        facts.append(f"{run.suite}: {', '.join(run.tasks)}" if run.suite else ", ".join(run.tasks))
    if run.policy:
        facts.append(f"policy {run.policy}")
    if header is not None:
        sampler = one_line(header.likelihood.get("name") or "sampler unknown")
        facts.append(f"{sampler}, K {header.K}, replan {header.n_action_steps}")
    intervention = header.intervention if header else None
    if intervention is not None:
        label = one_line(header.condition.label)
        units = "features" if intervention.sae else "neurons"
        where = ", ".join(_site(site, units) for site in intervention.sites)
        concept = intervention.provenance.get("concept")
        source = f"; concept {one_line(concept)}" if concept else ""
        facts.append(f"{label}: {intervention.operator} at {where}{source}")
    return facts


def _site(site, units: str) -> str:
    text = one_line(f"{site.tower} layer {site.layer}")
    if site.neurons:
        listed = " ".join(map(str, site.neurons[:NEURONS]))
        more = " …" if len(site.neurons) > NEURONS else ""
        text += f", {len(site.neurons)} {units} ({listed}{more})"
    return text


def _files(run: Run, width: int) -> Lines:
    places = [(run.folder, "run folder")] if run.folder is not None else []
    for file in run.files:
        what = f"{size(file.n_bytes)}, "
        what += f"{len(file.episodes)} episodes" if not file.error else "unreadable"
        if len(file.paths) > 1:
            what += f", {len(file.paths)} shards"
        if file.missing:
            what += f", shard {' '.join(map(str, file.missing))} missing"
        places.append((file.path, what + (", not closed" if file.partial else "")))
    return [
        [(fit_tail(one_line(path), width - len(what) - 2), ""), (f"  {what}", "dim")]
        for path, what in places
    ]

"""What the Live screen says, panel by panel, as lines; no widgets."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.alerts import Alert
from analysis.proportions import Proportion
from tui.data.machine import Load
from tui.data.model import Run
from tui.data.training import ONE_UPDATE, Group, News, Training
from tui.terminal import one_line
from tui.widgets.chart import bar, rule, sparkline
from tui.widgets.lines import Span, fit, wrap
from tui.widgets.table import Column, Row
from tui.wording import clock, compact, duration, interval, share, state_mark, whole_minutes

Lines = list[list[Span]]

METRICS = (
    ("kl", "train/actor/approx_kl"),
    ("clip", "train/actor/clip_fraction"),
    ("ratio", "train/actor/ratio"),
    ("ratio0", "train/actor/first_ratio_max_abs_dev"),
    ("gnorm", "train/actor/grad_norm"),
    ("loss", "train/actor/policy_loss"),
    ("zero%", "rollout/frac_reward_zero_std"),
    ("entr", "train/actor/entropy_loss"),
    ("lr", "train/actor/lr"),
    ("len", "env/episode_len"),
    ("ess", "train/actor/ess"),
    ("delta", "train/actor/param_delta"),
    ("skip", "train/actor/skipped"),
    ("gpu", "sys/gpu0/util"),
)
"""Short name and metric of the optimiser strip, the most telling first."""
WATCHED = ("kl", "ratio0", "gnorm", "loss", "zero%", "entr", "gpu")
"""Those that an alert rule looks at."""
GROUP_COLUMNS = (
    Column("g", right=True),
    Column("task", least=10, most=24, rank=5),
    Column("episodes", most=16),
    Column("mean", right=True),
    Column("advantage ✓/✗", rank=6),
    Column(""),
    Column("scene", right=True, rank=8),
    Column("steps", right=True, rank=7),
)
LEVELS = {"error": "bad", "warn": "warn"}


def title(
    run: Run, viewed: int | None, paused: bool, now: float, follow: str, alerts: str
) -> list[Span]:
    """Return where this is, how the run is and when it will be over, with the keys for more."""
    training = run.training or Training()
    mark, style = state_mark(run.state)
    spans: list[Span] = [
        (" Runs > ", "dim"),
        (f"{one_line(run.run_id)} ", "bold"),
        (mark, style),
    ]
    if paused:
        spans.append(("  paused", "mark"))
    if viewed is not None:
        spans.append((f"  at update {viewed} of {training.done}, {follow} follows", "mark"))
        return [*spans, *_counted(training.active(viewed), alerts)]
    wanted = f"/{training.total}" if training.total else ""
    spans += [
        (f"  update {training.present}{wanted}", ""),
        *_counted(training.active(training.done), alerts),
    ]
    left = training.run_left(now) if run.state == "running" else None
    if left is not None:
        spans.append((f"  ~{duration(left)} left", ""))
    if run.state in ("silent", "crashed?"):
        spans.append((f"  heard {whole_minutes(now - run.heard)} ago", "dim"))
    return spans


def _counted(active: Sequence[Alert], key: str) -> list[Span]:
    spans: list[Span] = []
    for level, style in LEVELS.items():
        n = sum(alert.level == level for alert in active)
        if n:
            spans.append((f"  {n} {level.upper()} ({key})", style))
    return spans


def success_line(training: Training, update: int, width: int) -> list[Span]:
    """Return the last numbers of the chart."""
    evaluation = max(
        (e for e in training.evaluations if not e.forgetting and e.update <= update),
        key=lambda e: e.update,
        default=None,
    )
    spans: list[Span] = [(" train ", "accent"), *_share(training.success(update))]
    if evaluation is not None:
        spans += [("  eval ◆ ", "good"), *_share(evaluation.success)]
        if width >= 66 and evaluation.base is not None:
            spans.append((f"  base {share(evaluation.base.rate)}", "dim"))
    return spans


def _share(found: Proportion | None) -> list[Span]:
    if found is None:
        return [("–", "dim")]
    text = f"{interval(found.interval).replace(', ', ',')}/{found.n}"
    return [(share(found.rate), "bold"), (f" {text}", "")]


def step_lines(run: Run, viewed: int | None, now: float, width: int, height: int) -> Lines:
    """Return how far the present update is, or how long the viewed one took."""
    training = run.training or Training()
    wanted = f" of {training.total}" if training.total else ""
    update = viewed or training.present
    lines = [rule([(f"update {update}{wanted}", "title")], width)]
    if viewed is None and training.phase is not None and run.state in ("running", "silent"):
        lines += _phases(training, now, width)
        if run.state == "silent":
            lines[-1] = [(f" silent: nothing for {whole_minutes(now - run.heard)}", "warn")]
    elif viewed is None:
        lines += [
            [(f" {text}", style)]
            for said, style in _why_still(run)
            for text in wrap(said, width - 1, limit=4)
        ]
    else:
        lines += _took(training, viewed)
    return lines + _history(training, update, width, height - len(lines))


def _phases(training: Training, now: float, width: int) -> Lines:
    phase = training.phase
    assert phase is not None
    names = ONE_UPDATE if phase.name in ONE_UPDATE else (phase.name,)
    place = names.index(phase.name)
    room = max(4, width - 19)
    lines: Lines = []
    for i, name in enumerate(names):
        usual = training.usual.get(name)
        if i < place:
            share_done, said = 1.0, ""
        elif i > place:
            share_done, said = 0.0, ""
        elif phase.done is not None and phase.total:
            share_done, said = phase.done / phase.total, f"{phase.done}/{phase.total}"
        else:
            share_done = min(1.0, (now - phase.began) / usual) if usual else 0.0
            said = f"~{share_done:.0%}" if usual else "…"
        style = "accent" if i == place else "dim"
        lines.append(
            [(f" {fit(name, 8):8}", ""), (bar(share_done, room), style), (f" {said:>8}", "")]
        )
    elapsed, left = now - phase.began, training.update_left(now)
    about = f", ~{duration(left)} left" if left is not None else ""
    lines.append([(f" {duration(max(0.0, elapsed))} in {phase.name}{about}", "dim")])
    return lines


def _why_still(run: Run) -> list[Span]:
    """Say why nothing moves."""
    if run.state == "finished":
        return [("finished", "good")]
    if run.state == "failed":
        return [("failed", "bad"), (run.trouble or run.last, "")]
    if run.state == "crashed?":
        how = f"vla-trace train --resume {one_line(run.run_id)}"
        return [("crashed: it ended without a word", "bad"), (how, "dim")]
    if run.state == "silent":
        return [("silent, between two phases", "warn")]
    return [("between two phases", "dim")]


def _took(training: Training, update: int) -> Lines:
    lines: Lines = []
    for name, metric in (("rollout", "time/rollout"), ("update", "time/actor")):
        seconds = training.at(update, metric)
        if math.isfinite(seconds):
            lines.append([(f" {name:8}{duration(seconds)}", "")])
    return lines or [[(" not over yet", "dim")]]


def _history(training: Training, update: int, width: int, room: int) -> Lines:
    """Return the latest updates as bars of rollout and update, on one scale."""
    if room < 3:
        return []
    rows = []
    for number in reversed(training.updates[-1000:]):
        if number <= update and len(rows) < room - 1:
            parts = [training.at(number, name) for name in ("time/rollout", "time/actor")]
            rows.append((number, [p if math.isfinite(p) and p > 0 else 0.0 for p in parts]))
    longest = max((sum(parts) for _, parts in rows), default=0.0)
    if not longest:
        return []
    cells = max(4, width - 15)
    lines: Lines = [[(" earlier: ", "dim"), ("█ rollout ", "accent"), ("▒ update", "dim")]]
    for number, (rollout, actor) in rows:
        first = round(cells * rollout / longest)
        second = round(cells * (rollout + actor) / longest) - first
        gap = " " * (cells - first - second)
        took = f" {duration(rollout + actor):>6}"
        lines.append(
            [
                (f" {number:>5} ", "dim"),
                ("█" * first, "accent"),
                ("▒" * second + gap, "dim"),
                (took, ""),
            ]
        )
    return lines


def strip_lines(training: Training, update: int, width: int, height: int) -> Lines:
    """Return the optimiser strip: value, course and alert state of each metric."""
    active = {alert.metric: alert.level for alert in training.active(update)}
    lines = [rule([("optimiser", "title")], width)]
    last = training.index(update)
    cells = width - 21
    for name, metric in METRICS:
        values = training.history.get(metric)
        if values is None or len(lines) >= height:
            continue
        stop = last + 1 if last >= 0 else len(values)
        shown = values[max(0, stop - max(0, cells)) : stop]
        level = active.get(metric, "")
        state = level.upper() if level else "ok" if name in WATCHED else ""
        lines.append(
            [
                (f" {name:6}", ""),
                (f"{compact(values[stop - 1]):>7} ", "bold" if not level else LEVELS[level]),
                (f"{sparkline(shown, cells):{max(0, cells)}}", "accent"),
                (f" {state:5}", LEVELS.get(level, "dim")),
            ]
        )
    if len(lines) == 1:
        lines.append([(" no update yet", "dim")])
    return lines


def groups_heading(training: Training, update: int, width: int) -> list[Span]:
    """Return how many groups teach nothing; of an update long ago, how to see them."""
    groups = training.groups.get(update, ())
    spans: list[Span] = [(f"groups of update {update}", "title")]
    if training.groups and update < next(iter(training.groups)):
        spans.append((f"  long ago: vla-trace snapshot RUN --around {update}", "dim"))
    if groups:
        full = [group for group in groups if group.full]
        flat = sum(bool(group.verdict) for group in full)
        spans.append((f"  no variance {flat}/{len(full)}", "warn" if 2 * flat > len(full) else ""))
    return rule(spans, width)


def group_row(group: Group, advantage: str) -> Row:
    """Return one group, ended or not."""
    episodes = "".join("·" if m is None else "✓" if m.success else "✗" for m in group.members)
    if len(episodes) > 16:
        won = sum(member.success for member in group.ended)
        episodes = f"{won} of {len(group.ended)}/{len(group.members)}"
    verdict = group.verdict
    values = group.advantages(advantage)
    if verdict and not any(values):
        worth = "0"
    elif values:
        worth = f"{max(values):+.2f}/{min(values):+.2f}".replace("0.", ".").replace("-", "−")
    else:
        worth = "…"
    ended = group.ended
    steps = f"{sum(m.n_steps for m in ended) / len(ended):.0f}" if ended else ""
    style = {"DEAD": "bad", "SAT": "good", "FLAT": "warn"}.get(verdict, "")
    return Row(
        group.number,
        (
            (str(group.number), "dim"),
            (group.task, ""),
            (episodes, style),
            (share(group.mean) if group.mean is not None else "–", ""),
            (worth, "dim" if not values else ""),
            (verdict, style),
            (str(group.scene_seed) if group.scene_seed >= 0 else "", "dim"),
            (steps, "dim"),
        ),
    )


def copied(training: Training, update: int, judged: int, row: Row | None) -> str:
    """Return a group of an update, and the metrics of the last one that is over."""
    parts = []
    if row is not None:
        cells = zip(GROUP_COLUMNS, row.cells, strict=True)
        said = [f"{column.title} {text}".strip() for column, (text, _) in cells if text]
        parts.append(f"update {update}: {', '.join(said)}")
    numbers = [
        f"{name} {compact(training.at(judged, metric))}"
        for name, metric in METRICS
        if math.isfinite(training.at(judged, metric))
    ]
    success = "".join(text for text, _ in _share(training.success(judged)))
    parts.append(f"update {judged}: success {success}, {', '.join(numbers)}")
    return "; ".join(parts)


def machine_line(
    training: Training, update: int, load: Load | None, now: float, width: int
) -> list[Span]:
    """Return speed, the last checkpoint and the load of this machine, as much as there is room."""
    parts = []
    names = ("rollout/episodes", "env/episode_len", "time/rollout")
    episodes, length, seconds = (training.at(update, name) for name in names)
    if all(map(math.isfinite, (episodes, length, seconds))) and seconds > 0:
        parts.append(f"env {episodes * length / seconds:.0f} steps/s")
    if (each := training.update_seconds) is not None:
        parts.append(f"{duration(each)} an update")
    if training.checkpoints:
        number, t = training.checkpoints[-1]
        ago = f", {whole_minutes(now - t)} ago" if not training.ended else ""
        parts.append(f"ckpt {number}{ago}")
    if load is not None and load.cpu_busy is not None:
        parts.append(f"cpu {load.cpu_busy:.0f}% of {load.cpus}")
    if load is not None and load.memory_gb is not None:
        parts.append(f"mem {load.memory_gb:.1f}/{load.total_gb:.0f} GB")
    for i, gpu in enumerate(load.gpus if load else ()):
        parts.append(f"gpu{i} {gpu.busy}% {gpu.used_gb:.0f}/{gpu.total_gb:.0f} GB")
    while parts and len(" │ ".join(parts)) + 1 > width:
        parts.pop()
    return [(" " + " │ ".join(parts), "dim")]


def news_span(news: News, width: int) -> list[Span]:
    """Return one event on one line."""
    style = LEVELS.get(news.kind, "good" if news.kind == "eval" else "")
    level = f"{news.kind.upper()} " if news.kind in LEVELS else ""
    at = f"{news.update}: " if news.kind in LEVELS else ""
    return [(f" {clock(news.t)} ", "dim"), (fit(f"{level}{at}{news.text}", width - 7), style)]


def last_news(training: Training, update: int, width: int) -> list[Span]:
    """Return the worst alert that holds, else the latest event."""
    active = training.active(update)
    if active:
        alert = active[0]
        return news_span(News(alert.t, alert.level, alert.text, alert.update), width)
    return news_span(training.news[-1], width) if training.news else []


def news_lines(training: Training, width: int, height: int) -> Lines:
    """Return the latest events, the newest first."""
    lines = [rule([("events, UTC", "title")], width)]
    lines += [news_span(news, width) for news in reversed(training.news)]
    return lines[:height]

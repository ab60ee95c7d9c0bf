"""How a run is, as one JSON object and as sentences; for scripts, pipes and screen readers."""

from __future__ import annotations

import math

from analysis.alerts import Alert
from analysis.proportions import Proportion
from tui.data.run_log import RunLog
from tui.data.training import Evaluation, Group, Training
from tui.terminal import one_line
from tui.wording import age, compact, duration, interval, share


def status_json(log: RunLog, now: float) -> dict:
    """Return what is known of a run; numbers that do not exist are None."""
    training = log.training.frozen() if log.training else None
    state = {
        "schema": 1,
        "run": log.run_id,
        "folder": str(log.path.parent),
        "kind": str(log.start.get("kind") or "") or None,
        "state": log.state(now),
        "heard_s": now - log.last["t"] if log.last else None,
        "trouble": log.trouble or None,
        "last": log.latest or None,
    }
    if training is None:
        return state | {"success": proportion_json(log.success), "episodes": len(log.episodes)}
    phase = training.phase
    return state | {
        "update": training.present,
        "updates_done": training.done,
        "updates": training.total,
        "phase": phase
        and {
            "name": phase.name,
            "seconds": now - phase.began,
            "done": phase.done,
            "total": phase.total,
        },
        "update_left_s": training.update_left(now),
        "run_left_s": training.run_left(now),
        "train_success": proportion_json(training.success(training.done)),
        "evals": [evaluation_json(found) for found in training.evaluations],
        "groups": groups_json(training, training.present),
        "metrics": metrics_json(training, training.done),
        "alerts": [alert_json(alert) for alert in training.active(training.done)],
        "checkpoint": training.checkpoints[-1][0] if training.checkpoints else None,
    }


def status_lines(log: RunLog, now: float) -> list[str]:
    """Return the same as sentences, one fact a line."""
    state, name = log.state(now), one_line(log.run_id)
    heard = f", heard {age(now - log.last['t'])} ago" if log.last else ""
    training = log.training.frozen() if log.training else None
    if training is None:
        lines = [f"{name}: {state}, {len(log.episodes)} episodes{heard}"]
        if log.success is not None:
            lines.append(f"success {proportion_text(log.success)}")
        return lines + ([f"trouble: {log.trouble}"] if log.trouble else [])
    lines = [_head(name, state, training, now) + heard]
    if state in ("running", "silent") and training.phase is not None:
        left = training.update_left(now)
        about = f", about {duration(left)} left of this update" if left is not None else ""
        lines.append(f"phase: {log.latest}{about}")
    if (success := training.success(training.done)) is not None:
        lines.append(f"train success {proportion_text(success)}, update {training.done}")
    if (found := training.evaluation) is not None:
        lines.append(evaluation_text(found))
    if groups := training.groups.get(training.present):
        lines.append(groups_text(training.present, groups))
    named = ("train/actor/approx_kl", "train/actor/clip_fraction", "train/actor/grad_norm")
    known = {m.rpartition("/")[2]: training.at(training.done, m) for m in named}
    if any(map(math.isfinite, known.values())):
        lines.append(", ".join(f"{name} {compact(value)}" for name, value in known.items()))
    active = training.active(training.done)
    lines += [alert_text(alert) for alert in active] or ["no alert holds"]
    if training.checkpoints:
        update, t = training.checkpoints[-1]
        lines.append(f"checkpoint {update}, {age(now - t)} ago")
    return lines + ([f"trouble: {log.trouble}"] if log.trouble else [])


def _head(name: str, state: str, training: Training, now: float) -> str:
    wanted = f" of {training.total}" if training.total else ""
    left = training.run_left(now) if state == "running" else None
    about = f", about {duration(left)} left" if left is not None else ""
    return f"{name}: {state}, update {training.present}{wanted}{about}"


def proportion_text(success: Proportion) -> str:
    """Return ".58 [.38, .76] of 80"."""
    return f"{share(success.rate)} {interval(success.interval)} of {success.n}"


def evaluation_text(found: Evaluation) -> str:
    """Return one evaluation as a line."""
    base = f", base {share(found.base.rate)}" if found.base else ""
    where = f" on {found.task}" if found.task else ""
    return f"eval success {proportion_text(found.success)}{base}{where}, update {found.update}"


def groups_text(update: int, groups: tuple[Group, ...]) -> str:
    """Return how many groups teach nothing."""
    full = [group.verdict for group in groups if group.full]
    flat = f"{full.count('DEAD')} DEAD (none succeeded), {full.count('SAT')} SAT (all did)"
    return f"groups of update {update}: {len(full)} of {len(groups)} full, {flat}"


def alert_text(alert: Alert) -> str:
    """Return one alert as a line."""
    return f"{alert.level.upper()} update {alert.update}: {alert.text} ({alert.rule})"


def proportion_json(success: Proportion | None) -> dict | None:
    """Return a proportion with its 95 % interval."""
    if success is None:
        return None
    low, high = success.interval
    effective = success.effective or float(success.n)
    return {"rate": success.rate, "low": low, "high": high, "n": success.n, "n_eff": effective}


def evaluation_json(found: Evaluation) -> dict:
    """Return one evaluation."""
    return {
        "update": found.update,
        "task": found.task,
        "success": proportion_json(found.success),
        "base": proportion_json(found.base),
        "forgetting": found.forgetting,
    }


def alert_json(alert: Alert) -> dict:
    """Return one alert."""
    return {
        "level": alert.level,
        "rule": alert.rule,
        "update": alert.update,
        "until": alert.until,
        "t": _finite(alert.t),
        "metric": alert.metric or None,
        "value": _finite(alert.value),
        "threshold": _finite(alert.threshold),
        "text": alert.text,
        "logged": alert.logged,
    }


def metrics_json(training: Training, update: int) -> dict[str, float | None]:
    """Return every metric of an update."""
    return {name: _finite(training.at(update, name)) for name in training.history}


def groups_json(training: Training, update: int) -> list[dict]:
    """Return the groups of an update."""
    return [
        {
            "group": group.number,
            "task": group.task,
            "scene_seed": group.scene_seed,
            "success": [None if m is None else m.success for m in group.members],
            "returns": [None if m is None else m.total_return for m in group.members],
            "mean": group.mean,
            "advantages": list(group.advantages(training.advantage)) or None,
            "verdict": group.verdict or None,
        }
        for group in training.groups.get(update, ())
    ]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

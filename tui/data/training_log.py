"""The log of a training run, folded event by event into `Training`."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from statistics import median

from analysis.alerts import (
    EFFECTIVE,
    EPISODES,
    IN_A_ROW,
    RECENT,
    SUCCESS,
    Alert,
    Seen,
    evaluation_alerts,
    pooled,
    step_alerts,
)
from analysis.proportions import Proportion, effective_n
from tui.data.fields import number, whole
from tui.data.filling import Filling
from tui.data.training import ONE_UPDATE, Evaluation, Group, News, Phase, Training
from tui.terminal import one_line
from tui.wording import interval, share

MOST_METRICS = 500
NEWS = 500
ALERTS = 1000
GROUPS = 1000
"""Updates whose groups are kept; of a long run these are the most of what is known."""


class TrainingLog:
    """Takes the events of a run, oldest first; every field of one may be missing or odd."""

    def __init__(self, kept: int = GROUPS) -> None:
        """Know nothing yet; keep the groups of the latest `kept` updates."""
        self._kept = kept
        self._start: dict = {}
        self._config: dict = {}
        self._updates, self._times = array("q"), array("d")
        self._history: dict[str, array] = {}
        self._successes: deque[Proportion] = deque(maxlen=2 * RECENT)
        self._best: Proportion | None = None
        self._best_eval: dict[str, Proportion] = {}
        self._evaluations: list[Evaluation] = []
        self._phase: Phase | None = None
        self._lasted: dict[str, deque[float]] = {}
        self._groups: dict[int, tuple[Group, ...]] = {}
        self._filling = Filling(0)
        self._alerts: list[Alert] = []
        self._raised: list[Alert] = []
        self._checkpoints: list[tuple[int, float]] = []
        self._news: deque[News] = deque(maxlen=NEWS)
        self._tasks: dict[int, str] = {}
        self._ended = False

    def add(self, event: Mapping) -> list[Alert]:
        """Fold one event; returns the alerts that follow from it and that no log holds."""
        self._raised = []
        if event["type"] in FOLDS:
            FOLDS[event["type"]](self, event)
        return self._raised

    def frozen(self) -> Training:
        """Return what is known now; it does not change when more is folded."""
        total = whole(self._config.get("updates"))
        groups = dict(self._groups)
        if len(self._filling):
            groups[self._filling.update] = self._filling.groups()
        return Training(
            total=total if total > 0 else None,
            config=self._config,
            updates=self._updates[:],
            times=self._times[:],
            history={name: values[:] for name, values in self._history.items()},
            evaluations=tuple(self._evaluations),
            phase=self._present,
            usual={name: median(lasted) for name, lasted in self._lasted.items() if lasted},
            groups=groups,
            alerts=tuple(self._alerts),
            checkpoints=tuple(self._checkpoints),
            news=tuple(self._news),
            ended=self._ended,
        )

    @property
    def success(self) -> Proportion | None:
        """Training success of the last update."""
        return self._successes[-1] if self._successes else None

    @property
    def latest(self) -> str:
        """What the run does, else the last thing that happened."""
        phase = self._present
        if phase is None:
            return self._news[-1].text if self._news else ""
        known = phase.done is not None and phase.total
        return phase.name + (f" {phase.done}/{phase.total}" if known else "")

    @property
    def _present(self) -> Phase | None:
        """The phase, with the episodes that were played."""
        phase, filling = self._phase, self._filling
        if phase is None or phase.name != "rollout" or filling.update != phase.update:
            return phase
        return replace(phase, done=filling.played) if filling.played else phase

    def _run_start(self, event: Mapping) -> None:
        self._start = dict(event)
        config = event.get("config")
        self._config = config if isinstance(config, dict) else {}
        self._phase, self._ended = None, False
        self._name_task(event)
        done = whole(event.get("update"), 0)
        if event.get("resumed") is True:
            self._back_to(done)
        self._tell(event, "resumed" if event.get("resumed") is True else "started", done)

    def _run_end(self, event: Mapping) -> None:
        self._phase, self._ended = None, True
        why = one_line(event.get("reason") or event.get("error") or "")
        status = one_line(event.get("status") or "finished")
        self._tell(event, status + (f": {why}" if why else ""), self._done)

    def _phase_of(self, event: Mapping) -> Phase:
        """Return the phase that an event speaks of, with what is known of its progress."""
        name = one_line(event.get("name") or "unknown")
        update = whole(event.get("update"), self._done) + (name in ONE_UPDATE)
        done, total = (number(event.get(field)) for field in ("done", "total"))
        return Phase(
            name,
            update,
            event["t"],
            None if done is None else int(done),
            None if total is None else int(total),
        )

    def _next_phase(self, event: Mapping) -> None:
        found, now = self._phase_of(event), self._phase
        goes_on = now is not None and (now.name, now.update) == (found.name, found.update)
        if goes_on and now is not None:
            if found.name == "rollout" and now.total is not None and found.total is not None:
                found = replace(found, total=now.total + found.total)  # another round
            found = replace(found, began=now.began)
        else:
            self._end_phase(event["t"])
        self._phase = found
        if found.name == "rollout":
            self._expect_groups(event, found)

    def _end_phase(self, t: float) -> None:
        if self._phase is not None and t >= self._phase.began:
            lasted = self._lasted.setdefault(self._phase.name, deque(maxlen=10))
            if len(self._lasted) <= MOST_METRICS:
                lasted.append(t - self._phase.began)
        self._phase = None

    def _expect_groups(self, event: Mapping, phase: Phase) -> None:
        """Show the groups of a round before their first episode ends."""
        self._turn_to(phase.update)
        size, task = whole(self._config.get("group_size")), ""
        wanted = whole(event.get("total"), 0) // size if size > 0 else 0
        if "total" not in event and not len(self._filling):
            wanted = whole(self._config.get("groups"), 0)
        if self._config.get("tasks") == [self._start.get("task_id")]:
            task = self._task_of(self._start)
        self._filling.expect(wanted, size, whole(event.get("attempt"), 0), task)

    def _episode(self, event: Mapping) -> None:
        self._turn_to(whole(event.get("update"), self._done) + 1)
        self._filling.end(event, self._task_of(event))

    def _group(self, event: Mapping) -> None:
        self._turn_to(whole(event.get("update"), self._done) + 1)
        self._filling.judge(event)

    def _turn_to(self, update: int) -> None:
        """Make an update the one whose groups fill."""
        before = self._filling
        if update == before.update:
            return
        if update < before.update:  # a run that was stopped makes it again
            self._groups = {u: groups for u, groups in self._groups.items() if u < update}
        if len(before):
            self._groups[before.update] = before.groups()
        while len(self._groups) > self._kept:
            del self._groups[next(iter(self._groups))]
        self._filling = Filling(update)

    def _step(self, event: Mapping) -> None:
        self._end_phase(event["t"])
        metrics = _metrics(event.get("metrics"))
        update = whole(event.get("update"), self._done + 1)
        if update < 1:
            return
        if update <= self._done:
            self._back_to(update - 1)
        if self._filling.update == update and self._filling.played:
            played = [group.ended for group in self._filling.groups()]
            won = [(sum(m.success for m in ended), len(ended)) for ended in played if ended]
            metrics.setdefault(EFFECTIVE, effective_n(won))
        self._updates.append(update)
        self._times.append(event["t"])
        for name, value in metrics.items():
            if name not in self._history and len(self._history) < MOST_METRICS:
                self._history[name] = array("d", [math.nan]) * (len(self._updates) - 1)
            if name in self._history:
                self._history[name].append(value)
        for values in self._history.values():
            if len(values) < len(self._updates):
                values.append(math.nan)
        n = whole(metrics.get(EPISODES), 0)
        success = Proportion.of(metrics.get(SUCCESS), n, metrics.get(EFFECTIVE, 0.0))
        if success is not None:
            self._successes.append(success)
        last = self._checkpoints[-1][0] if self._checkpoints else None
        seen = Seen(update, metrics, self._history, tuple(self._successes), self._best, last)
        for alert in step_alerts(seen):
            self._raise(replace(alert, t=event["t"]))
        recent = pooled(tuple(self._successes)[-IN_A_ROW:])
        full = len(self._successes) >= IN_A_ROW
        if full and recent and (self._best is None or recent.rate > self._best.rate):
            self._best = recent
        said = f"success {share(success.rate)} of {success.n}" if success else "done"
        self._tell(event, f"update {update}: {said}", update)

    def _eval(self, event: Mapping) -> None:
        self._end_phase(event["t"])
        self._name_task(event)
        metrics = event.get("metrics")
        found = metrics if isinstance(metrics, dict) else {}
        n = whole(event.get("n"), 0)
        success = Proportion.of(number(found.get("eval/success_once")), n)
        if success is None:
            return
        update, task = max(0, whole(event.get("update"), self._done)), self._task_of(event)
        base = Proportion.of(number(found.get("eval/base_success_once")), n)
        forgetting = event.get("forgetting") is True
        self._evaluations.append(Evaluation(update, task, success, base, forgetting, event["t"]))
        if not forgetting:
            recent = pooled(tuple(self._successes)[-RECENT:])
            best = self._best_eval.get(task)
            for alert in evaluation_alerts(update, success, best, recent):
                self._raise(replace(alert, t=event["t"]))
            if best is None or success.rate > best.rate:
                self._best_eval[task] = success
        said = f"{share(success.rate)} {interval(success.interval)} of {success.n}"
        beside = f", base {share(base.rate)}" if base else ""
        self._tell(event, f"eval{f' {task}' if task else ''}: {said}{beside}", update)

    def _alert(self, event: Mapping) -> None:
        said = one_line(event.get("message") or event.get("text") or event.get("rule") or "alert")
        update = self._phase.update if self._phase else self._done
        level = one_line(event.get("level") or "warn")
        self._raise(
            Alert(
                "warn" if level == "warning" else level,
                one_line(event.get("rule") or "alert"),
                update,
                said,
                number(event.get("value")),
                number(event.get("threshold")),
                t=event["t"],
                logged=True,
            )
        )

    def _checkpoint(self, event: Mapping) -> None:
        update = max(0, whole(event.get("update"), self._done))
        self._checkpoints.append((update, event["t"]))
        self._tell(event, f"checkpoint {update}", update)

    def _shard(self, event: Mapping) -> None:
        name = one_line(event.get("path") or "").rsplit("/", 1)[-1]
        self._tell(event, f"trace {name}", self._done)

    def _raise(self, alert: Alert) -> None:
        """Keep an alert; one that goes on is not said again."""
        for place in range(len(self._alerts) - 1, max(-1, len(self._alerts) - 20), -1):
            old = self._alerts[place]
            goes_on = not alert.logged and old.rule == alert.rule
            if goes_on and alert.update - 1 <= old.until <= alert.update:
                self._alerts[place] = replace(old, until=alert.update)
                return
        alert = replace(alert, until=alert.update)
        self._alerts = [*self._alerts[-ALERTS:], alert]
        if not alert.logged:
            self._raised.append(alert)
        self._news.append(News(alert.t, alert.level, alert.text, alert.update))

    def _tell(self, event: Mapping, text: str, update: int) -> None:
        self._news.append(News(event["t"], event["type"], text, update))

    def _back_to(self, done: int) -> None:
        """Forget the updates after `done`: a run that was stopped makes them again."""
        keep = bisect_right(self._updates, done)
        for _ in range(min(len(self._successes), len(self._updates) - keep)):
            self._successes.pop()
        del self._updates[keep:], self._times[keep:]
        for values in self._history.values():
            del values[keep:]
        self._groups = {u: groups for u, groups in self._groups.items() if u <= done}
        if self._filling.update > done:
            self._filling = Filling(0)
        self._evaluations = [e for e in self._evaluations if e.update <= done]
        self._checkpoints = [c for c in self._checkpoints if c[0] <= done]
        self._alerts = [replace(a, until=min(a.until, done)) for a in self._alerts]
        self._alerts = [a for a in self._alerts if a.logged or a.update <= done]

    @property
    def _done(self) -> int:
        return self._updates[-1] if self._updates else 0

    def _name_task(self, event: Mapping) -> None:
        if event.get("task_name") and len(self._tasks) < MOST_METRICS:
            self._tasks[whole(event.get("task_id"))] = one_line(event["task_name"])

    def _task_of(self, event: Mapping) -> str:
        task_id = whole(event.get("task_id"))
        return self._tasks.get(task_id, f"task {task_id}" if task_id >= 0 else "")


FOLDS = {
    "run_start": TrainingLog._run_start,
    "run_end": TrainingLog._run_end,
    "phase": TrainingLog._next_phase,
    "episode": TrainingLog._episode,
    "group": TrainingLog._group,
    "step": TrainingLog._step,
    "eval": TrainingLog._eval,
    "alert": TrainingLog._alert,
    "checkpoint": TrainingLog._checkpoint,
    "shard": TrainingLog._shard,
}
"""What is done with each type of event; others say nothing about training."""


def _metrics(found: object) -> dict[str, float]:
    """Return what a step says, infinite and NaN kept; what is no number is left out."""
    if not isinstance(found, dict):
        return {}
    values = {}
    for name, value in found.items():
        if type(value) is float:  # as nearly all are
            values[name] = value
        elif isinstance(value, int) and not isinstance(value, bool):
            try:
                values[name] = float(value)
            except OverflowError:
                values[name] = math.inf
    return values

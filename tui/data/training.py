"""A training run as its log tells it; plain frozen data.

Updates are numbered as in `step` events: update 1 is the first, and its episodes, which were
played when 0 updates were done, belong to it. An evaluation or a checkpoint of update 10 came
after it; 0 is before the first.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean, median, stdev

from analysis.alerts import EFFECTIVE, EPISODES, SUCCESS, Alert
from analysis.proportions import Proportion

ONE_UPDATE = ("rollout", "update")
"""Phases of an update, in order."""


@dataclass(frozen=True, slots=True)
class Member:
    """One episode of a group that has ended."""

    success: bool
    total_return: float | None
    n_steps: int


@dataclass(frozen=True, slots=True)
class Group:
    """Episodes of one scene, ended or not."""

    update: int
    number: int
    """within the update"""
    attempt: int = 0
    """round in which it was drawn"""
    task: str = ""
    scene_seed: int = -1
    members: tuple[Member | None, ...] = ()
    """None while it plays"""
    judged: bool = False
    """whether the run has said what it is worth"""
    accepted: bool = False
    reason: str = ""
    values: tuple[float, ...] = ()
    """advantage of each member, as logged"""

    @property
    def ended(self) -> tuple[Member, ...]:
        """Members that have ended."""
        return tuple(member for member in self.members if member is not None)

    @property
    def full(self) -> bool:
        """Whether every member has ended."""
        return bool(self.members) and None not in self.members

    @property
    def mean(self) -> float | None:
        """Mean return of those that have ended."""
        returns = self._returns(self.ended)
        return fmean(returns) if returns else None

    @property
    def verdict(self) -> str:
        """DEAD: none succeeded; SAT: all did; FLAT: no variance otherwise; else empty."""
        if not self.full:
            return ""
        won = sum(member.success for member in self.ended)
        if won in (0, len(self.members)):
            return "SAT" if won else "DEAD"
        return "FLAT" if len(set(self._returns(self.ended))) == 1 else ""

    def advantages(self, kind: str) -> tuple[float, ...]:
        """Advantage of each member: as logged, else worked out where returns suffice.

        group: (R - mean) / (std + 1e-6), ddof 1; rloo: G / (G - 1) (R - mean); otherwise none.
        """
        returns = self._returns(self.ended)
        if self.values or not self.full or len(returns) < max(2, len(self.members)):
            return self.values
        centred = [value - fmean(returns) for value in returns]
        if kind == "group":
            return tuple(value / (stdev(returns) + 1e-6) for value in centred)
        if kind == "rloo":
            return tuple(len(returns) / (len(returns) - 1) * value for value in centred)
        return ()

    @staticmethod
    def _returns(members: tuple[Member, ...]) -> list[float]:
        return [m.total_return for m in members if m.total_return is not None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Held-out success on one task."""

    update: int
    task: str
    success: Proportion
    base: Proportion | None
    """of the policy that training began with"""
    forgetting: bool
    """of a task that was not trained"""
    t: float


@dataclass(frozen=True, slots=True)
class Phase:
    """What the run does now."""

    name: str
    update: int
    """the update it belongs to"""
    began: float
    done: int | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class News:
    """One line of what happened."""

    t: float
    kind: str
    """type of the event; `warn` or `error` of an alert"""
    text: str
    update: int


@dataclass(frozen=True)
class Training:
    """Everything the screens show of a training run."""

    total: int | None = None
    """updates wanted"""
    config: Mapping[str, object] = field(default_factory=dict)
    updates: array = field(default_factory=lambda: array("q"))
    """(n,) numbers of the updates done, rising"""
    times: array = field(default_factory=lambda: array("d"))
    """(n,) seconds since 1970 at which they ended"""
    history: Mapping[str, array] = field(default_factory=dict)
    """metric to its (n,) values; NaN where an update lacks it"""
    evaluations: tuple[Evaluation, ...] = ()
    phase: Phase | None = None
    usual: Mapping[str, float] = field(default_factory=dict)
    """phase to its median duration in the last ten updates, seconds"""
    groups: Mapping[int, tuple[Group, ...]] = field(default_factory=dict)
    """update to its groups; the last one may be filling"""
    alerts: tuple[Alert, ...] = ()
    checkpoints: tuple[tuple[int, float], ...] = ()
    """(update, seconds since 1970)"""
    news: tuple[News, ...] = ()
    """the latest, oldest first"""
    ended: bool = False

    @property
    def done(self) -> int:
        """Updates done."""
        return self.updates[-1] if self.updates else 0

    @property
    def present(self) -> int:
        """The update that is being made, or the last one."""
        if self.phase is not None and self.phase.name in ONE_UPDATE:
            return max(self.done, self.phase.update)
        return self.done

    def at(self, update: int, metric: str) -> float:
        """Return a metric of an update; NaN where there is none."""
        place = self.index(update)
        return self.history[metric][place] if place >= 0 and metric in self.history else math.nan

    def index(self, update: int) -> int:
        """Return the place of an update in the history; -1 where it is not there."""
        place = bisect_left(self.updates, update)
        there = place < len(self.updates) and self.updates[place] == update
        return place if there else -1

    def success(self, update: int) -> Proportion | None:
        """Return the training success of an update."""
        rate, n, effective = (self.at(update, name) for name in (SUCCESS, EPISODES, EFFECTIVE))
        return Proportion.of(rate, int(n), effective) if math.isfinite(n) else None

    @property
    def evaluation(self) -> Evaluation | None:
        """The latest evaluation of a trained task."""
        return next((e for e in reversed(self.evaluations) if not e.forgetting), None)

    def active(self, update: int) -> list[Alert]:
        """Return the alerts that hold at an update, the worst first."""
        found = [alert for alert in self.alerts if alert.update <= update <= alert.until]
        return sorted(found, key=lambda alert: alert.level != "error")

    @property
    def advantage(self) -> str:
        """How this run turns returns into advantages."""
        return str(self.config.get("advantage") or "group")

    def phase_left(self, now: float) -> float | None:
        """Return the seconds until the present phase is over, as far as earlier ones tell."""
        phase = self.phase
        if phase is None or self.ended:
            return None
        elapsed = max(0.0, now - phase.began)
        if phase.name in self.usual:
            return max(0.0, self.usual[phase.name] - elapsed)
        if phase.done and phase.total:
            return elapsed * max(0, phase.total - phase.done) / phase.done
        return None

    def update_left(self, now: float) -> float | None:
        """Return the seconds until the present update, or else the present phase, is over."""
        left = self.phase_left(now)
        if left is None or self.phase is None or self.phase.name not in ONE_UPDATE:
            return left
        later = ONE_UPDATE[ONE_UPDATE.index(self.phase.name) + 1 :]
        if any(name not in self.usual for name in later):
            return None
        return left + sum(self.usual[name] for name in later)

    def run_left(self, now: float) -> float | None:
        """Return the seconds until all updates and evaluations are over."""
        each = self.update_seconds
        if self.total is None or each is None or self.ended:
            return None
        here = self.present if self.phase and self.phase.name in ONE_UPDATE else self.done
        return (
            (self.update_left(now) or 0.0)
            + each * max(0, self.total - here)
            + self.usual.get("eval", 0.0) * self._evaluations_left(here)
        )

    @property
    def update_seconds(self) -> float | None:
        """Median duration of the last ten updates, without their evaluations."""
        known = [v for v in self.history.get("time/step", ())[-10:] if math.isfinite(v)]
        if not known and all(name in self.usual for name in ONE_UPDATE):
            known = [sum(self.usual[name] for name in ONE_UPDATE)]
        return median(known) if known else None

    def _evaluations_left(self, here: int) -> int:
        every, total = self.config.get("eval_every"), self.total or 0
        after = here - (self.phase is not None and self.phase.name in ONE_UPDATE)
        if after >= total:
            return 0
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            return 1
        return total // every - after // every + bool(total % every)

"""One run's events log, folded while it grows: only what the screens show is kept."""

from __future__ import annotations

import math
import time
from pathlib import Path

from analysis.alerts import Alert
from analysis.proportions import Proportion
from traces.events import EventTail, run_state
from tui.data.fields import number, whole
from tui.data.model import Episode
from tui.data.training_log import GROUPS, TrainingLog
from tui.terminal import one_line
from tui.wording import condition_label

QUIET = ("heartbeat",)
"""Events that say only that the process lives."""
AT_ONCE = 200_000
"""Bytes of a log in memory at one time."""


class RunLog:
    """Follow `events.jsonl` of one run; every field of an event may be missing or odd."""

    def __init__(self, path: Path, groups_kept: int = GROUPS) -> None:
        self.path = path
        self._groups_kept = groups_kept
        """Updates of a training whose groups are remembered."""
        self.tail = EventTail(path)
        self.error = ""
        self.behind = True
        """Whether more of it was there when it was read last; True before that."""
        self._forget()

    def _forget(self) -> None:
        self.version = 0
        """Counts events: unchanged means nothing new."""
        self.start: dict = {}
        self.first_t = math.nan
        self.last: dict | None = None
        self.news = ""
        self.trouble = ""
        self._episodes: dict[tuple[str, str], Episode] = {}
        self.shards: list[str] = []
        self.training: TrainingLog | None = None
        self.evaluation: Proportion | None = None
        """The last one, of a run that only evaluates."""
        self._update = -1
        """That the episodes of a training are of; earlier ones are in traces or nowhere."""
        self._played: list[dict] = []
        """The events of those episodes."""

    def poll(self, budget_s: float = math.inf) -> None:
        """Read what was appended since the last call; a long log takes several calls."""
        deadline = time.monotonic() + budget_s
        while True:
            try:
                events = self.tail.poll(AT_ONCE)
                self.error = ""
            except OSError as error:
                self.error = one_line(f"{self.path}: {error.strerror or error}")
                self.behind = False
                return
            if self.tail.restarted:
                self._forget()
            for event in events:
                self.add(event)
            self.behind = self.tail.behind
            if not self.behind or time.monotonic() > deadline:
                return

    def state(self, now: float) -> str:
        """Return the state of the run as `traces.events.run_state` words it."""
        if self.last is None:
            return "silent"
        events = [self.last]
        if self.start and self.start is not self.last:
            events.insert(0, self.start)
        return run_state(events, now)

    @property
    def run_id(self) -> str:
        """Name of the run: what it says itself, else the folder's."""
        return str(self.start.get("run_id") or self.path.parent.name)

    @property
    def episodes(self) -> dict[tuple[str, str], Episode]:
        """Those of a recording, or of the present update of a training."""
        played = [_episode(event, place) for place, event in enumerate(self._played)]
        return self._episodes | {episode.key: episode for episode in played}

    @property
    def success(self) -> Proportion | None:
        """What the run itself says last: of an update, or of an evaluation."""
        return self.training.success if self.training else self.evaluation

    @property
    def latest(self) -> str:
        """The last thing that happened, for people."""
        return self.training.latest if self.training else self.news

    @property
    def planned(self) -> list[str]:
        """Labels of the conditions announced."""
        found = self.start.get("conditions")
        entries = found if isinstance(found, list) else []
        return [
            condition_label(entry.get("name"), number(entry.get("alpha")))
            for entry in entries
            if isinstance(entry, dict)
        ]

    def add(self, event: dict) -> list[Alert]:
        """Fold one event; returns the alerts that follow from it and that no log holds."""
        if number(event["t"]) is None:  # a time that is no time
            return []
        self.version += 1
        self.last = event
        if math.isnan(self.first_t):
            self.first_t = event["t"]
        kind = event["type"]
        if kind == "run_start":
            self.start, self.trouble = event, ""
            self.news = "started"
        if self.training is None and (event.get("kind") == "grpo" or kind == "step"):
            self.training = TrainingLog(self._groups_kept)
        alerts = self.training.add(event) if self.training is not None else []
        if kind == "episode" and self.training is not None:
            if whole(event.get("update")) != self._update:
                self._update, self._played = whole(event.get("update")), []
            self._played.append(event)
        elif kind == "episode":
            episode = _episode(event, len(self._episodes))
            self._episodes[episode.key] = episode
            outcome = "✓" if episode.success else "✗"
            self.news = f"{episode.condition} #{episode.number} {outcome}"
        elif kind == "phase":
            self.news = f"phase {one_line(event.get('name', ''))}"
        elif kind == "shard":
            path = event.get("path")
            if isinstance(path, str) and "\0" not in path:
                self.shards.append(path)
                self.news = f"wrote {one_line(path.rsplit('/', 1)[-1])}"
        elif kind == "alert":
            said = event.get("text") or event.get("message") or event.get("rule") or ""
            self.news = f"{one_line(event.get('level', 'alert'))}: {one_line(said)}"
            if event.get("level") != "info":
                self.trouble = self.news
        elif kind == "eval":
            self.news = "evaluated"
            metrics = event.get("metrics")
            rate = metrics.get("eval/success_once") if isinstance(metrics, dict) else None
            self.evaluation = Proportion.of(number(rate), whole(event.get("n"), 0))
        elif kind == "run_end":
            why = one_line(event.get("error") or event.get("reason") or "")
            self.news = one_line(event.get("status", "finished")) + (f": {why}" if why else "")
            self.trouble = why or self.trouble
        elif kind not in (*QUIET, "run_start"):
            self.news = one_line(kind)
        return alerts


def _episode(event: dict, place: int) -> Episode:
    alpha = number(event.get("alpha"))
    member = whole(event.get("episode"), place)
    task = event.get("task_name") or event.get("task") or f"task {whole(event.get('task_id'))}"
    return Episode(
        uid=str(event.get("uid") or f"episode {member}"),
        condition=condition_label(event.get("condition"), alpha),
        alpha=alpha,
        number=member,
        task=one_line(task),
        instruction=one_line(event.get("instruction") or ""),
        init_state=whole(event.get("init_state")),
        scene_seed=whole(event.get("scene_seed")),
        pair_key=str(event.get("pair_key") or ""),
        success=event.get("success") is True,
        n_steps=whole(event.get("n_steps"), 0),
        meed_cm=number(event.get("meed_cm")),
        total_return=number(event.get("return")),
        error=one_line(event.get("error") or ""),
    )

"""What the screens know about runs and episodes; plain frozen data without any drawing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from traces.condition import BASELINE
from tui.data.training import Training

if TYPE_CHECKING:
    from traces.header import TraceHeader


@dataclass(frozen=True)
class Episode:
    """One episode, from a closed trace or (while its trace is open) from the events log."""

    uid: str
    condition: str
    """Label such as "baseline" or "fast α=8"."""
    alpha: float | None
    """Dose; None where there is none."""
    number: int
    """Place within its condition, from 0."""
    task: str
    instruction: str
    init_state: int
    scene_seed: int
    pair_key: str
    success: bool
    n_steps: int
    meed_cm: float | None
    total_return: float | None
    error: str = ""
    session: int = 0
    path: Path | None = None
    """Its trace; None while only the log knows it."""
    row: int = -1
    """Row in episodes/ of that trace."""

    @property
    def live(self) -> bool:
        """Whether its trace is not readable yet."""
        return self.path is None

    @property
    def is_baseline(self) -> bool:
        """Whether nothing was done to it."""
        return self.condition == BASELINE.label

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same episode in the log and in the trace."""
        return self.condition, self.uid


@dataclass(frozen=True)
class TraceFile:
    """A trace (all shards of a recording) as the lists need it, or why it cannot be read."""

    path: Path
    """Of its first shard."""
    stamp: tuple[int, ...]
    """Changes when a file of it does: time of change [ns], bytes and inode of each."""
    n_bytes: int
    error: str = ""
    partial: bool = False
    header: TraceHeader | None = None
    episodes: tuple[Episode, ...] = ()
    policies: tuple[tuple[str, str], ...] = ()
    """(sha256, path) of the weights."""
    paths: tuple[Path, ...] = ()
    """Its shards; one unless the recording is long."""
    missing: tuple[int, ...] = ()
    """Shards that are not there although a later one is."""

    @property
    def changed(self) -> float:
        """When it was last written to, seconds since 1970."""
        return max(self.stamp[::3]) / 1e9


@dataclass(frozen=True)
class Run:
    """A run: its folder, its traces, or both."""

    key: str
    """Folder of the run, or the run_id its traces carry, or the path of an unreadable file."""
    run_id: str
    state: str
    """A state of `traces.events.run_state`; closed, unfinished or broken without a log."""
    kind: str = ""
    suite: str = ""
    tasks: tuple[str, ...] = ()
    policy: str = ""
    conditions: tuple[str, ...] = ()
    """Labels, the baseline first."""
    total: int | None = None
    """Episodes planned; None when no log says it."""
    episodes: tuple[Episode, ...] = ()
    """Pairs adjacent, the baseline first within each."""
    success_rate: float | None = None
    """Over all episodes that no error cut short; None when there are none."""
    success_ci: tuple[float, float] | None = None
    """Its 95 % Wilson interval."""
    files: tuple[TraceFile, ...] = ()
    started: float = 0.0
    heard: float = 0.0
    """When something last happened, seconds since 1970."""
    last: str = ""
    """The last thing that happened, for people."""
    trouble: str = ""
    """Error or alert to be read."""
    folder: Path | None = None
    training: Training | None = None
    """What its updates did, of a training run."""
    config: dict = field(default_factory=dict, hash=False)

    @property
    def done(self) -> int:
        """Episodes that ended."""
        return len(self.episodes)

    @property
    def header(self) -> TraceHeader | None:
        """Header that tells most: that of a steered trace, else of any."""
        headers = [file.header for file in self.files if file.header]
        return next((h for h in headers if h.intervention), headers[0] if headers else None)

    @property
    def stamp(self) -> tuple:
        """Changes when its traces or its episodes do."""
        return tuple((file.path, file.stamp) for file in self.files), self.done

    def meed_by_condition(self) -> dict[str, float]:
        """Mean MEED of each condition that has one [cm per control step]."""
        values: dict[str, list[float]] = {label: [] for label in self.conditions}
        for episode in self.episodes:
            if episode.meed_cm is not None:
                values.setdefault(episode.condition, []).append(episode.meed_cm)
        return {label: sum(v) / len(v) for label, v in values.items() if v}

    def partner(self, episode: Episode) -> list[Episode]:
        """Return the other episodes with its pair_key, in the order of the list."""
        if not episode.pair_key:
            return []
        same = [e for e in self.episodes if e.pair_key == episode.pair_key]
        return [e for e in same if e.key != episode.key]

    def next_of_pair(self, episode: Episode) -> Episode | None:
        """Return the episode after this one among those of its pair, the first after the last."""
        others = self.partner(episode)
        if not others:
            return None
        order = {e.key: i for i, e in enumerate(self.episodes)}
        here = order.get(episode.key, -1)
        return next((e for e in others if order[e.key] > here), others[0])


def in_pairs(episodes: list[Episode]) -> tuple[Episode, ...]:
    """Order episodes by pair (as first seen in the baseline), the baseline first in each."""
    ordered = sorted(episodes, key=lambda e: (_dose(e), e.condition, e.number))
    place: dict[str, int] = {}
    for episode in ordered:
        place.setdefault(episode.pair_key or episode.uid, len(place))
    return tuple(sorted(ordered, key=lambda e: place[e.pair_key or e.uid]))


def _dose(episode: Episode) -> tuple[bool, float]:
    return not episode.is_baseline, -math.inf if episode.alpha is None else episode.alpha

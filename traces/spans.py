"""Where the steps and the decisions of each episode lie, also when the file lies about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traces.safety import FAILURES, SafeGroup
from traces.scan import Fault, read_blocks

NAMES = ("first_step", "n_steps", "first_decision", "n_decisions")


@dataclass(frozen=True)
class Spans:
    """Spans of episodes in steps/ and decisions/; arrays (E,) int64."""

    first_step: np.ndarray
    n_steps: np.ndarray
    first_decision: np.ndarray
    n_decisions: np.ndarray

    def __len__(self) -> int:
        return len(self.first_step)

    def steps(self, episode: int) -> tuple[int, int]:
        """Return the rows [start, stop) of steps/."""
        start = int(self.first_step[episode])
        return start, start + int(self.n_steps[episode])

    def decisions(self, episode: int) -> tuple[int, int]:
        """Return the rows [start, stop) of decisions/."""
        start = int(self.first_decision[episode])
        return start, start + int(self.n_decisions[episode])

    def used(self, lengths: dict[str, int]) -> dict[str, int]:
        """Return how many rows of each table, which has so many, these episodes have."""
        stops = self.first_step + self.n_steps, self.first_decision + self.n_decisions
        used = {
            t: int(s.max(initial=0)) for t, s in zip(("steps", "decisions"), stops, strict=True)
        }
        return {"episodes": len(self)} | {t: min(n, lengths[t]) for t, n in used.items()}

    def broken(self, n_steps: int, n_decisions: int) -> np.ndarray:
        """Mark episodes (E,) whose spans are negative, leave their table or do not follow on."""
        bad = np.zeros(len(self), bool)
        for first, n, length in (
            (self.first_step, self.n_steps, n_steps),
            (self.first_decision, self.n_decisions, n_decisions),
        ):
            bad |= (first < 0) | (n < 0) | (first > length) | (n > length - first)
            bad[1:] |= first[1:] != first[:-1] + n[:-1]
            bad[:1] |= first[:1] != 0
        return bad


def stored_spans(file: SafeGroup, n_episodes: int) -> Spans:
    """Return the spans that episodes/ gives."""
    return Spans(*(file[f"episodes/{name}"][:n_episodes].astype(np.int64) for name in NAMES))


def _readable_spans(file: SafeGroup, n_episodes: int) -> tuple[Spans, np.ndarray]:
    """Return the spans that episodes/ gives, and which of them (E,) can be read; -1 elsewhere."""
    found = np.full((len(NAMES), n_episodes), -1, np.int64)
    unread = np.ones_like(found, bool)
    for place, name in enumerate(NAMES):
        try:
            for start, block in read_blocks(file[f"episodes/{name}"], n_episodes):
                found[place, start : start + len(block)] = block
                unread[place, start : start + len(block)] = False
        except FAILURES:
            continue  # the structure says what is wrong with the column
    return Spans(*found), ~unread.any(axis=0)


def rebuilt_spans(file: SafeGroup, n_episodes: int) -> Spans:
    """Return the spans that the columns `episode` of steps/ and decisions/ give."""
    found = []
    for table in ("steps", "decisions"):
        episode = file[f"{table}/episode"][:]
        if np.any(np.diff(episode) < 0):
            raise ValueError(f"{table}/episode does not ascend")
        edges = np.searchsorted(episode, np.arange(n_episodes + 1))
        found += [edges[:-1].astype(np.int64), np.diff(edges).astype(np.int64)]
    return Spans(*found)


def find_spans(
    file: SafeGroup, lengths: dict[str, int], *, partial: bool
) -> tuple[Spans, np.ndarray, list[Fault]]:
    """Return the spans of all episodes that count, which of them hold, and what is wrong.

    Where episodes/ cannot be read or contradicts itself, the spans are rebuilt from the other
    tables.  In a `.partial` only episodes with a uid count, which is written last.

    Args:
        file: an open trace.
        lengths: rows of episodes/, steps/ and decisions/.
        partial: whether only complete episodes count.
    """
    count = lengths["episodes"]
    if partial:
        count = _named(file, count)
    spans, read = _readable_spans(file, count)
    bad = spans.broken(lengths["steps"], lengths["decisions"])
    if not bad.any():
        return spans, ~bad, []
    what = "give spans which leave their table or do not follow on the episode before"
    wrong = np.flatnonzero(bad & read)
    faults = [Fault("episodes/first_step", what, wrong)] if len(wrong) else []
    try:
        rebuilt = rebuilt_spans(file, count)
    except FAILURES:
        return spans, ~bad, faults
    return rebuilt, ~rebuilt.broken(lengths["steps"], lengths["decisions"]), faults


def _named(file: SafeGroup, count: int) -> int:
    """Return how many episodes have a uid, which is written last, before the first without."""
    try:
        named = file["episodes/uid"][:count] != b""
    except FAILURES:
        return count
    return int(np.argmin(named)) if not named.all() else count

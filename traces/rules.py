"""What the index columns of a trace must say of each other, checked for many episodes at a time.

Each rule compares columns with what follows from the spans in episodes/: which step and decision
belongs to which episode, in which order, and how often each decision was acted on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from traces.header import TraceHeader
from traces.safety import FAILURES, SafeGroup
from traces.scan import Fault
from traces.spans import Spans

BLOCK_ROWS = 200_000
"""Steps and decisions looked at together, unless one episode has more."""

STEP_COLUMNS = ("episode", "t", "decision", "chunk_offset", "intervened", "reward")
DECISION_COLUMNS = ("episode", "t", "n_executed")


def index_faults(
    file: SafeGroup, header: TraceHeader, spans: Spans, good: np.ndarray
) -> list[Fault]:
    """Return every row whose indices contradict the spans of its episode.

    Episodes whose index columns cannot be read are passed over: scanning the columns finds them.

    Args:
        file: the trace.
        header: its root attributes.
        spans: of all episodes.
        good: (E,) which of them to look at; their spans must lie within the tables.
    """
    found: dict[tuple[str, str, str], list[np.ndarray]] = {}
    for chosen in _blocks(spans, good):
        for block in _read(file, spans, chosen):
            for place, what, mask, level in block.rules(header):
                rows = block.first[place.partition("/")[0]] + np.flatnonzero(mask)
                found.setdefault((place, what, level), []).append(rows)
    joined = {key: np.concatenate(rows) for key, rows in found.items()}
    return [Fault(*key[:2], rows, key[2]) for key, rows in joined.items() if len(rows)]


def _blocks(spans: Spans, good: np.ndarray) -> Iterator[slice]:
    """Yield runs of good episodes, each at most BLOCK_ROWS long or one episode."""
    start, rows = 0, 0
    for episode in range(len(spans) + 1):
        here = episode < len(spans) and bool(good[episode])
        size = int(spans.n_steps[episode] + spans.n_decisions[episode]) if here else 0
        if start < episode and (not here or rows + size > BLOCK_ROWS):
            yield slice(start, episode)
            start, rows = episode, 0
        start += 0 if here else 1
        rows += size


def _read(file: SafeGroup, spans: Spans, chosen: slice) -> Iterator[_Block]:
    """Yield the chosen episodes as one block, or as several around what cannot be read."""
    try:
        yield _Block.read(file, spans, chosen)
    except FAILURES:
        middle = (chosen.start + chosen.stop) // 2
        if middle > chosen.start:
            yield from _read(file, spans, slice(chosen.start, middle))
            yield from _read(file, spans, slice(middle, chosen.stop))


Rule = tuple[str, str, np.ndarray, str]
"""A column, what is wrong with the marked rows, the mask over the rows of the block, the level."""


@dataclass(frozen=True)
class _Block:
    """Index columns of consecutive episodes."""

    first: dict[str, int]
    """Table to the row at which the block begins."""
    n_steps: np.ndarray
    n_decisions: np.ndarray
    told_return: np.ndarray
    steps: dict[str, np.ndarray]
    decisions: dict[str, np.ndarray]

    @classmethod
    def read(cls, file: SafeGroup, spans: Spans, chosen: slice) -> _Block:
        last = chosen.stop - 1
        step, decision = spans.steps(chosen.start)[0], spans.decisions(chosen.start)[0]
        of_steps = slice(step, spans.steps(last)[1])
        of_decisions = slice(decision, spans.decisions(last)[1])
        return cls(
            {"episodes": chosen.start, "steps": step, "decisions": decision},
            spans.n_steps[chosen],
            spans.n_decisions[chosen],
            file["episodes/return"][chosen],
            {name: file[f"steps/{name}"][of_steps] for name in STEP_COLUMNS},
            {name: file[f"decisions/{name}"][of_decisions] for name in DECISION_COLUMNS},
        )

    def rules(self, header: TraceHeader) -> Iterator[Rule]:
        """Yield the outcome of every rule."""
        yield from self._memberships()
        yield from self._executions(header.H)
        if header.intervention is None:
            what = "say that an intervention acted, and the header has none"
            yield "steps/intervened", what, self.steps["intervened"], "error"
        total = np.bincount(self._episode_of_step(), self.steps["reward"], len(self.n_steps))
        off = ~np.isclose(self.told_return, total, rtol=1e-6, atol=1e-9, equal_nan=True)
        yield "episodes/return", "are not the sum of the rewards", off, "warning"

    def _episode_of_step(self) -> np.ndarray:
        """Return the episode of each step, within the block."""
        return np.repeat(np.arange(len(self.n_steps)), self.n_steps)

    def _memberships(self) -> Iterator[Rule]:
        """Rows that name another episode or another time than their place says."""
        for table, n, columns in (
            ("steps", self.n_steps, self.steps),
            ("decisions", self.n_decisions, self.decisions),
        ):
            episode = self.first["episodes"] + np.repeat(np.arange(len(n)), n)
            what = "name another episode than the one whose span they lie in"
            yield f"{table}/episode", what, columns["episode"] != episode, "error"
        starts = np.repeat(np.cumsum(self.n_steps) - self.n_steps, self.n_steps)
        t = np.arange(len(self.steps["t"])) - starts
        what = "do not count 0, 1, 2, ... within their episode"
        yield "steps/t", what, self.steps["t"] != t, "error"

    def _executions(self, horizon: int) -> Iterator[Rule]:
        """Decisions, and the steps that acted on them."""
        local = self.steps["decision"] - self.first["decisions"]  # (steps,)
        first = (np.cumsum(self.n_decisions) - self.n_decisions)[self._episode_of_step()]
        n = self.n_decisions[self._episode_of_step()]
        within = (local >= first) & (local < first + n)
        yield "steps/decision", "point to a decision of another episode", ~within, "error"
        same_episode = within[1:] & within[:-1] & (first[1:] == first[:-1])
        backwards = np.zeros(len(local), bool)
        backwards[1:] = same_episode & (local[1:] < local[:-1])
        what = "point to an earlier decision than the step before"
        yield "steps/decision", what, backwards, "error"

        offset = self.steps["chunk_offset"]
        wrong = (offset < 0) | (offset >= horizon)
        yield "steps/chunk_offset", f"lie outside the chunk of {horizon} rows", wrong, "error"
        follows = np.zeros(len(local), bool)
        follows[1:] = same_episode & (local[1:] == local[:-1])
        jumps = follows & ~wrong
        jumps[1:] &= offset[1:] != offset[:-1] + 1
        yield "steps/chunk_offset", "do not follow the row of the step before", jumps, "error"

        count = len(self.decisions["t"])
        executed = np.bincount(local[within], minlength=count)
        what = "differ from the number of steps that acted on the decision"
        yield "decisions/n_executed", what, self.decisions["n_executed"] != executed, "error"
        begins = within & ~follows
        began = np.full(count, -1)
        began[local[begins]] = self.steps["t"][begins]
        late = (executed > 0) & (self.decisions["t"] != began)
        yield "decisions/t", "differ from the first step that acted on the decision", late, "error"

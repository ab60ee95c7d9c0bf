"""What each condition of a run did, with intervals; slow enough to belong on a thread.

Episodes in closed traces are reported exactly as `vla-trace analyze` reports them; a condition of
which the log knows more is counted from the log, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from traces.errors import UserError
from tui.data.apart import apart
from tui.data.model import Episode, Run
from tui.terminal import one_line

if TYPE_CHECKING:
    from analysis.outcome import Condition

Interval = tuple[float, float]


@dataclass(frozen=True)
class ConditionSummary:
    """Success and MEED of one condition."""

    label: str
    task: str
    n: int
    successes: int
    success_ci: Interval | None
    meed_cm: float | None
    meed_ci: Interval | None
    n_pairs: int = 0
    delta_cm: float | None = None
    """Mean of steered minus baseline over pairs."""
    delta_ci: Interval | None = None
    p_value: float | None = None
    from_log: bool = False
    """Counted from the log: not all of it is in a closed trace yet."""
    sites: str = ""
    role: str = ""
    """baseline, prompt, steered, random or null."""
    alpha: float | None = None
    fingerprint: str | None = None
    """Of its intervention."""


@dataclass(frozen=True)
class RunSummary:
    """Every condition of a run, the baseline first, and what the numbers do not rest on."""

    conditions: tuple[ConditionSummary, ...]
    notes: tuple[str, ...]


def summarise_run(run: Run) -> RunSummary:
    """Analyse the closed traces of a run, and count what is not in them yet."""
    files = [file for file in run.files if not file.error]
    conditions: list[ConditionSummary] = []
    notes: list[str] = []
    if files:
        try:
            found = analysed(tuple((file.paths, file.stamp) for file in files))
            notes += found.notes
            conditions += found.conditions
        except UserError as error:
            notes.append(one_line(error))
    known: dict[str, list[Episode]] = {}
    for episode in run.episodes:
        if not episode.error:
            known.setdefault(episode.condition, []).append(episode)
    for label, episodes in known.items():
        if any(episode.live for episode in episodes):
            _add_live(conditions, label, episodes)
    conditions.sort(key=lambda c: c.label != "baseline")
    return RunSummary(tuple(conditions), tuple(notes))


@lru_cache(maxsize=8)
def analysed(files: tuple[tuple[tuple[Path, ...], tuple[int, ...]], ...]) -> RunSummary:
    """Analyse files once as long as their stamps stay the same."""
    return apart("tui.data.summary:analyse_files", [path for paths, _ in files for path in paths])


def analyse_files(paths: Sequence[Path]) -> RunSummary:
    """Analyse files here; it takes polars."""
    from analysis.outcome import analyse

    report = analyse(paths)
    return RunSummary(tuple(map(_reported, report.conditions)), tuple(map(one_line, report.notes)))


def _reported(condition: Condition) -> ConditionSummary:
    return ConditionSummary(
        label=one_line(condition.label),
        task=one_line(condition.task),
        n=condition.episodes,
        successes=condition.successes,
        success_ci=condition.success_ci,
        meed_cm=condition.meed_cm,
        meed_ci=condition.meed_ci,
        n_pairs=condition.n_pairs,
        delta_cm=condition.delta_meed_cm,
        delta_ci=condition.delta_ci,
        p_value=condition.p_value,
        sites=one_line(condition.sites or ""),
        role=condition.role,
        alpha=condition.alpha,
        fingerprint=condition.fingerprint,
    )


def _add_live(conditions: list[ConditionSummary], label: str, episodes: list[Episode]) -> None:
    """Count a condition of which the log knows more than the closed traces.

    What is closed of it keeps its paired difference, whose number of pairs stands beside it.
    """
    closed = [condition for condition in conditions if condition.label == label]
    if len(closed) != 1:
        conditions.append(_counted(label, [episode for episode in episodes if episode.live]))
        return
    counted = _counted(label, episodes)
    names = ("n", "successes", "success_ci", "meed_cm", "meed_ci", "from_log")
    conditions[conditions.index(closed[0])] = replace(
        closed[0], **{name: getattr(counted, name) for name in names}
    )


def _counted(label: str, episodes: list[Episode]) -> ConditionSummary:
    from analysis.stats import bootstrap_ci, wilson

    successes = sum(episode.success for episode in episodes)
    meeds = [episode.meed_cm for episode in episodes if episode.meed_cm is not None]
    return ConditionSummary(
        label=label,
        task=episodes[0].task,
        n=len(episodes),
        successes=successes,
        success_ci=wilson(successes, len(episodes)),
        meed_cm=sum(meeds) / len(meeds) if meeds else None,
        meed_ci=bootstrap_ci(meeds),
        from_log=True,
    )

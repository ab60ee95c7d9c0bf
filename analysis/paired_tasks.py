"""What a comparison of two arms found: plain data, without polars."""

from dataclasses import dataclass

from analysis.proportions import Interval
from analysis.stats import PairedDifference, SuccessDifference


@dataclass(frozen=True)
class Rate:
    """Success of one arm."""

    successes: int
    n: int
    ci: Interval | None
    """95 % Wilson."""


@dataclass(frozen=True)
class TaskPairs:
    """One task, or all of them together."""

    task: str
    a: Rate
    """Over all its episodes, paired or not."""
    b: Rate
    success: SuccessDifference
    """Over pairs; p is McNemar's."""
    meed: PairedDifference
    """Over pairs of which both have a MEED [cm per control step]."""


@dataclass(frozen=True)
class Arms:
    """Two arms compared."""

    tasks: tuple[TaskPairs, ...]
    """Tasks that both play; with several of them, all together come last."""
    notes: tuple[str, ...]

    @property
    def n_pairs(self) -> int:
        """Pairs in all."""
        return self.tasks[-1].success.n if self.tasks else 0

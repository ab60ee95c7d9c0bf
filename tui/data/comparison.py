"""Two arms for the Compare screen: which there are, what they did, how their settings differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from tui.data.apart import apart
from tui.data.model import Run, TraceFile
from tui.data.neuron_sources import PolicySource
from tui.terminal import one_line
from tui.wording import short_id

if TYPE_CHECKING:
    from analysis.paired_tasks import Arms
    from tui.data.shifts import SiteShifts

PER_FILE = ("run_id", "created_utc", "recording", "shard", "prompt", "intervention")
"""Attributes that differ by nature, or are said in words."""


@dataclass(frozen=True)
class Arm:
    """One condition of one run, as its closed traces hold it."""

    run: str
    """Run id, for people."""
    label: str
    role: str
    files: tuple[TraceFile, ...]

    @property
    def policy(self) -> str:
        """Name and hash of its weights."""
        names = dict.fromkeys(
            PolicySource(sha, path).name for f in self.files for sha, path in f.policies
        )
        return ", ".join(names) or "unknown policy"

    @property
    def name(self) -> str:
        """Run, condition and policy."""
        return f"{self.run}  {self.label}  {self.policy}"

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every shard."""
        return tuple(path for file in self.files for path in file.paths)

    @property
    def stamp(self) -> tuple:
        """Changes when its traces do."""
        return tuple((file.path, file.stamp) for file in self.files)

    @property
    def scenes(self) -> str:
        """Which tasks and scenes it plays, such as "lift 0-11"."""
        seeds = {(e.task, e.scene_seed) for file in self.files for e in file.episodes}
        parts = [
            f"{task} {ranges(sorted(seed for _, seed in group))}"
            for task, group in groupby(sorted(seeds), key=lambda pair: pair[0])
        ]
        return ", ".join(parts) or "nothing"


def ranges(numbers: Sequence[int]) -> str:
    """Return ascending whole numbers as "0-3, 7"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def arms_of(run: Run) -> tuple[Arm, ...]:
    """Return the conditions of a run that closed traces hold, the baseline first."""
    found: dict[str, list[TraceFile]] = {}
    for file in run.files:
        if file.header is not None and not file.partial:
            found.setdefault(file.header.condition.label, []).append(file)
    arms = [
        Arm(short_id(run.run_id), one_line(label), files[0].header.condition.role, tuple(files))
        for label, files in found.items()
    ]
    return tuple(sorted(arms, key=lambda arm: (arm.role != "baseline", arm.role != "steered")))


def first_choice(runs: Sequence[Run]) -> tuple[int, int] | None:
    """Return which of the arms of one or two runs to compare at first, as numbers; B may be A.

    Of one run, its baseline and its first other condition. Of two runs with other weights, the
    baselines; with the same weights, the baseline of the first and what is steered in the second.
    """
    groups = [arms_of(run) for run in runs]
    if not groups or not all(groups):
        return None
    if len(groups) == 1:
        return 0, min(1, len(groups[0]) - 1)
    one, other = groups
    steered = one[0].policy == other[0].policy and one[0].role == "baseline"
    return 0, len(one) + (1 if steered and len(other) > 1 else 0)


def read_arms(a: Arm, b: Arm) -> Arms:
    """Compare success and MEED pair by pair."""
    return apart("analysis.arms:compare_arms", a.paths, b.paths)


def read_shifts(a: Arm, b: Arm, progress: Callable[[str, int, int], None]) -> SiteShifts:
    """Compare activations; `progress` is told the next site, sites done and in all."""
    return apart("tui.data.shifts:compare_sites", a.paths, b.paths, told=progress)


def settings(arm: Arm) -> dict[str, str]:
    """Return every setting of an arm by its dotted name, as text for people."""
    header = arm.files[0].header
    found = {"condition": arm.label, "policy": arm.policy, "prompt": one_line(header.prompt)}
    for name, value in vars(header).items():
        if name not in PER_FILE:
            found.update(_flat(name, value))
    if header.intervention is not None:
        found.update(_flat("intervention", vars(header.intervention)))
    return found


def differing(a: Arm, b: Arm) -> list[tuple[str, str, str]]:
    """Return (setting, of A, of B) where they differ; an en dash for what one does not have."""
    ours, theirs = settings(a), settings(b)
    names = sorted(set(ours) | set(theirs), key=lambda name: (name.count("."), name))
    rows = [(name, ours.get(name, "–"), theirs.get(name, "–")) for name in names]
    return [row for row in rows if row[1] != row[2]]


def _flat(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield (dotted name, text) of a value and of everything in it that has a name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for i, inner in enumerate(value):
            if hasattr(inner, "__dataclass_fields__"):
                yield from _flat(f"{name}.{i}", vars(inner))
            else:
                yield one_line(name), one_line(list(value))
                break
    elif value is not None:
        yield one_line(name), one_line(value)

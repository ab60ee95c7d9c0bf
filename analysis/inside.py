"""Base and fine-tuned policies among some traces, compared inside: for the report.

Of the unsteered recordings of every policy but the base the activations are compared with the
base's (`analysis.shifts`), and the atlas of the expert where it was recorded (`analysis.atlas`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from analysis.atlas import Atlas, AtlasChange, atlas, atlas_change
from analysis.base_policy import base_policy
from analysis.shifts import Shifts, activation_shifts
from analysis.tables import policies_of, read_episodes
from traces.collection import TraceCollection, open_traces
from traces.errors import UserError


@dataclass(frozen=True)
class Inside:
    """What could be compared, and why the rest could not."""

    shifts: tuple[Shifts, ...]
    atlases: tuple[Atlas | AtlasChange, ...]
    notes: tuple[str, ...]


def inside(paths: Iterable[Path | str], base: str = "") -> Inside:
    """Compare every policy in some traces with the base, inside.

    Args:
        paths: traces, as `open_traces` takes them.
        base: which policy is the base, see `base_policy.base_policy`.
    """
    paths = list(paths)
    base_id = base_policy(read_episodes(paths).frame, base)
    files = _by_policy(paths)
    shifts, atlases, notes = [], [], []
    if base_id not in files:
        return Inside((), (), ())
    with open_traces(*files.pop(base_id)) as ours:
        if _has_atlas(ours):
            atlases += _tried(lambda: atlas(ours), notes)
        for _, theirs in sorted(files.items()):
            with open_traces(*theirs) as other:
                if _has_sites(ours) and _has_sites(other):
                    shifts += _tried(lambda other=other: activation_shifts(ours, other), notes)
                if _has_atlas(ours) and _has_atlas(other):
                    atlases += _tried(lambda other=other: atlas_change(ours, other), notes)
    for found in (*shifts, *atlases):
        notes += found.notes
    return Inside(tuple(shifts), tuple(atlases), tuple(dict.fromkeys(notes)))


def _by_policy(paths: list[Path | str]) -> dict[str, list[Path]]:
    """The unsteered recordings of each policy, replays included, by `policy_id`."""
    found: dict[str, list[Path]] = {}
    with open_traces(*paths) as traces:
        for recording in traces.recordings():
            header = recording.header
            ids = {identity for _, identity, _ in policies_of(traces, recording).values()}
            if len(ids) == 1 and header.kind != "grpo" and header.condition.role == "baseline":
                found.setdefault(ids.pop(), []).append(recording.paths[0])
    return found


def _tried(compare: object, notes: list[str]) -> Iterator[object]:
    """Yield what a comparison found, or note why there is none."""
    try:
        yield compare()
    except UserError as error:
        notes.append(f"not compared inside: {error}")


def _has_sites(traces: TraceCollection) -> bool:
    return bool(traces.sites())


def _has_atlas(traces: TraceCollection) -> bool:
    return any(site.dims == ("D", "K", "H", "N") for site in traces.sites())

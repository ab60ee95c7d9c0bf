"""How activations differ between two policies, as plain data; worked out in another process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from analysis.shifts import Shifts

LISTED = 8
"""Neurons of a site that are listed."""
SAID = ("d", "ks", "mean_base", "mean_tuned", "p_corrected", "frozen")
"""Columns of `analysis.shifts.NEURONS` that a neuron's card speaks of."""


@dataclass(frozen=True)
class SiteShifts:
    """Every site of a comparison."""

    design: str
    """replay or on-policy."""
    episodes: tuple[int, int]
    """Of base and tuned that were compared."""
    correction: str
    notes: tuple[str, ...]
    sites: tuple[dict, ...]
    """Rows of `analysis.shifts.SITES`."""
    moved: dict[str, tuple[dict, ...]]
    """Site to the rows of `analysis.shifts.NEURONS` that moved most, the largest |d| first."""


@dataclass(frozen=True, eq=False)
class NeuronShifts:
    """Every neuron of one site."""

    design: str
    episodes: tuple[int, int]
    tested: int
    """Neurons with a p."""
    neuron: np.ndarray
    columns: dict[str, np.ndarray]
    """Those of `SAID`, NaN where nothing can be said."""

    def row(self, neuron: int) -> dict[str, float | None] | None:
        """Return what is said of one neuron; None where it was not recorded."""
        for place in np.flatnonzero(self.neuron == neuron).tolist():
            values = {name: column[place].item() for name, column in self.columns.items()}
            return {name: None if value != value else value for name, value in values.items()}
        return None


def compare_sites(
    base: Sequence[Path], tuned: Sequence[Path], progress: Callable[[str, int, int], None]
) -> SiteShifts:
    """Compare all activations; `progress` is told the next site, sites done and in all."""
    found = _compared(base, tuned, progress=progress)
    known = found.neurons.drop_nulls("d")
    known = known.filter(known["d"] != 0)
    parts = {site: part for (site,), part in known.group_by("site")}
    moved = {
        site: part.sort(part["d"].abs(), descending=True).head(LISTED).to_dicts()
        for site, part in parts.items()
    }
    return SiteShifts(
        found.design,
        found.episodes,
        found.correction,
        found.notes,
        tuple(found.sites.to_dicts()),
        {site: tuple(rows) for site, rows in moved.items()},
    )


def compare_neurons(base: Sequence[Path], tuned: Sequence[Path], site: str) -> NeuronShifts:
    """Compare the neurons of one site."""
    found = _compared(base, tuned, sites=(site,))
    rows = found.neurons
    columns = {name: rows[name].to_numpy() for name in SAID}
    tested = int(found.sites["tested"].sum())
    return NeuronShifts(found.design, found.episodes, tested, rows["neuron"].to_numpy(), columns)


def _compared(base: Sequence[Path], tuned: Sequence[Path], **how: object) -> Shifts:
    from analysis.shifts import activation_shifts
    from traces.collection import open_traces

    with open_traces(*base) as before, open_traces(*tuned) as after:
        return activation_shifts(before, after, **how)

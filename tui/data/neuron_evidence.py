"""What recordings say of neurons: how they fired, and how they moved between two policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.base_policy import CHECKPOINT
from analysis.firing import firing, site_of, values_of
from traces.collection import open_traces
from traces.errors import UserError
from tui.data.neuron_sources import PolicySource

if TYPE_CHECKING:
    from analysis.shifts import Shifts


@dataclass(frozen=True)
class Fired:
    """Recorded activations of one neuron under one policy."""

    policy: str
    values: np.ndarray
    """(n,) one a decision, finite; n at least 1."""


@dataclass(frozen=True)
class Moved:
    """How one neuron differs between two policies."""

    base: str
    tuned: str
    shifts: Shifts
    """Of its site alone."""
    row: dict
    """The neuron's row of `shifts.neurons`."""


def read_firing(source: PolicySource) -> tuple[dict[int, tuple[np.ndarray, np.ndarray]], str]:
    """Return layer to (mean, p99) of its neurons, and what they were read from."""
    if not source.unsteered:
        return {}, "no unsteered recording of this policy here"
    found = firing(source.paths(source.unsteered))
    return found.layers, f"{found.decisions:,} decisions of {found.episodes} episodes"


def read_fired(sources: Sequence[PolicySource], layer: int, neuron: int) -> tuple[Fired, ...]:
    """Read what a neuron did under each of some policies that recorded it.

    Raises:
        UserError: none did.
    """
    found = []
    for source in sources:
        if source.unsteered:
            values = values_of(source.paths(source.unsteered), layer, neuron)
            if len(values):
                found.append(Fired(source.name, values))
    if not found:
        raise UserError("no unsteered recording here has its activations")
    return tuple(found)


def in_order(one: PolicySource, other: PolicySource) -> tuple[PolicySource, PolicySource]:
    """Return (base, tuned): a checkpoint of training is the tuned one."""
    return (other, one) if CHECKPOINT.search(one.path) else (one, other)


def read_shift(one: PolicySource, other: PolicySource, layer: int) -> Shifts:
    """Compare a layer's neurons under two policies."""
    from analysis.shifts import activation_shifts

    base, tuned = in_order(one, other)
    with (
        open_traces(*base.paths(base.unsteered)) as before,
        open_traces(*tuned.paths(tuned.unsteered)) as after,
    ):
        return activation_shifts(before, after, sites=(site_of(layer),))


def moved(shifts: Shifts, neuron: int, one: PolicySource, other: PolicySource) -> Moved | str:
    """Pick one neuron of its site, or say that it is not there."""
    rows = shifts.neurons.filter(shifts.neurons["neuron"] == neuron)
    if rows.is_empty():
        return "shift: this neuron was not recorded"
    base, tuned = in_order(one, other)
    return Moved(base.name, tuned.name, shifts, rows.row(0, named=True))

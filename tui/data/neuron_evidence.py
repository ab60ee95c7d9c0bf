"""What recordings say of neurons: how they fired, and how they moved between two policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.checkpoints import CHECKPOINT
from analysis.firing import firing, site_of, values_of
from traces.errors import UserError
from tui.data.apart import apart
from tui.data.neuron_sources import PolicySource
from tui.data.shifts import NeuronShifts


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
    shifts: NeuronShifts
    """Of its site alone."""
    row: dict
    """What they say of the neuron."""


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


def read_shift(one: PolicySource, other: PolicySource, layer: int) -> NeuronShifts:
    """Compare a layer's neurons under two policies."""
    traces = [source.paths(source.unsteered) for source in in_order(one, other)]
    return apart("tui.data.shifts:compare_neurons", *traces, site_of(layer))


def moved(shifts: NeuronShifts, neuron: int, one: PolicySource, other: PolicySource) -> Moved | str:
    """Pick one neuron of its site, or say that it is not there."""
    row = shifts.row(neuron)
    if row is None:
        return "shift: this neuron was not recorded"
    base, tuned = in_order(one, other)
    return Moved(base.name, tuned.name, shifts, row)

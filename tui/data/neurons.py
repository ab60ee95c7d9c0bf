"""The neurons of a policy as columns, one row a neuron; read in parts, what is quick comes first.

What is in the table of the policy comes from `tui.data.neuron_table`; how neurons fired and what
steering them did comes from the traces in the folder.  A hundred thousand rows take a few
megabytes: words are kept as numbers of a vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tui.data.effects import Dose, chosen_dose

Place = tuple[int, int]
"""(layer, neuron)"""


@dataclass(frozen=True, eq=False)
class Words:
    """What the value vectors of n neurons promote."""

    ids: np.ndarray
    """(n, 30) of the top tokens, the largest logit first."""
    vocabulary: dict[int, str]
    """Token of each id that occurs, as decoded; it may hold anything."""
    scores: dict[str, np.ndarray]
    """Concept to (n,) hits of it less hits of its opposite."""

    def tokens(self, row: int) -> list[str]:
        """Return the top tokens of one neuron."""
        return [self.vocabulary[i] for i in self.ids[row].tolist()]

    def having(self, wanted: str, whole: bool) -> np.ndarray:
        """Return (n,) whether a top token is (whole) or contains a text, whatever its case."""
        wanted = wanted.lower()
        spelled = np.zeros(max(self.vocabulary, default=-1) + 1, bool)
        for i, token in self.vocabulary.items():
            token = token.strip().lower()
            spelled[i] = token == wanted if whole else wanted in token
        return spelled[self.ids].any(axis=1)

    @cached_property
    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (n,) number of the concept with the largest score, and that score."""
        table = np.stack(list(self.scores.values()))
        return table.argmax(axis=0), table.max(axis=0)


@dataclass(frozen=True, eq=False)
class Neurons:
    """Columns over n neurons, ascending by layer and neuron; None for what was not read yet."""

    facts: dict
    """What the table was made from."""
    layer: np.ndarray
    neuron: np.ndarray
    reach: np.ndarray
    """(n,) bool: can this feed-forward block change the action."""
    norm: np.ndarray
    words: Words | None = None
    mean: np.ndarray | None = None
    """(n,) recorded activation; NaN where there is none."""
    p99: np.ndarray | None = None
    fired: str = ""
    """What mean and p99 were read from."""
    doses: tuple[Dose, ...] | None = None
    """Interventions recorded on these weights."""

    def __len__(self) -> int:
        return len(self.layer)

    def place(self, row: int) -> Place:
        """Return (layer, neuron) of a row."""
        return int(self.layer[row]), int(self.neuron[row])

    def row_of(self, place: Place) -> int | None:
        """Return the row of a neuron, if there is such a one."""
        low, high = np.searchsorted(self.layer, [place[0], place[0] + 1])
        row = low + int(np.searchsorted(self.neuron[low:high], place[1]))
        return int(row) if row < high and self.neuron[row] == place[1] else None

    @cached_property
    def steered(self) -> dict[int, list[Dose]]:
        """Return row to the doses of interventions that it was in."""
        found: dict[int, list[Dose]] = {}
        for dose in self.doses or ():
            for place in dose.places:
                row = self.row_of(place)
                if row is not None:
                    found.setdefault(row, []).append(dose)
        return found

    def numbers(self, name: str, concept: str = "") -> np.ndarray:
        """Return (n,) a column of numbers by name, NaN where it is unknown."""
        if name == "score":
            if self.words is None:
                return np.full(len(self), np.nan)
            return self.words.scores[concept] if concept else self.words.best[1]
        if name == "effect":
            return self._effect
        column = getattr(self, name)
        return np.full(len(self), np.nan) if column is None else column

    @cached_property
    def _effect(self) -> np.ndarray:
        found = np.full(len(self), np.nan)
        for row, doses in self.steered.items():
            found[row] = chosen_dose(doses).delta_cm
        return found

    def with_firing(self, layers: dict[int, tuple[np.ndarray, np.ndarray]], said: str) -> Neurons:
        """Return these with how they fired: layer to (mean, p99) of its neurons."""
        mean, p99 = np.full((2, len(self)), np.nan, np.float32)
        for layer, (means, highs) in layers.items():
            rows = np.flatnonzero(self.layer == layer)
            rows = rows[self.neuron[rows] < len(means)]
            mean[rows], p99[rows] = means[self.neuron[rows]], highs[self.neuron[rows]]
        return replace(self, mean=mean, p99=p99, fired=said)


@dataclass(frozen=True)
class Spelling:
    """What the table says of one neuron beside what is listed."""

    promotes: tuple[str, ...]
    suppresses: tuple[str, ...]
    entropy: float
    """Of the softmax over the vocabulary, nats."""


def ordered(
    values: np.ndarray, rows: np.ndarray, descending: bool, absolute: bool = False
) -> np.ndarray:
    """Return rows by their values; equal ones stay in order, unknown ones (NaN) come last."""
    key = values[rows].astype(np.float64)
    key = np.abs(key) if absolute else key
    return rows[np.argsort(-key if descending else key, kind="stable")]


def known_columns(neurons: Neurons, names: Iterable[str]) -> Sequence[str]:
    """Return those of some columns in which anything is known."""
    return [name for name in names if np.isfinite(neurons.numbers(name)).any()]

"""Rows of the Neurons table, made when they are drawn."""

from typing import TYPE_CHECKING

import numpy as np

from tui.terminal import one_line
from tui.widgets.lines import Span, pad
from tui.widgets.table import Column, Row
from tui.widgets.virtual_table import VirtualRows
from tui.wording import interval, number

if TYPE_CHECKING:
    from tui.data.effects import Dose
    from tui.data.neurons import Neurons

COLUMNS = (
    Column("mark", rank=1),
    Column("layer", right=True),
    Column("neuron", right=True),
    Column("top tokens", least=20, most=72),
    Column("concept", least=9, most=14),
    Column("norm", right=True, rank=5),
    Column("reach"),
    Column("mean", right=True, rank=6),
    Column("p99", right=True, rank=4),
    Column("effect, cm", rank=2),
)
SORTED_BY = ("", "layer", "neuron", "", "score", "norm", "reach", "mean", "p99", "effect")
"""Name by which each column is sorted; "" for those that are not."""
SORTS = ("layer", "effect", "score", "norm", "p99", "mean", "reach")
"""In the order of the key `s`."""
TOKENS = 12
"""Top tokens that may find room in a cell."""
MARKS = {True: ("✓ in", "good"), False: ("✗ out", "dim")}
NOT_STEERED = "n/a"


class NeuronRows(VirtualRows):
    """Some neurons in some order."""

    def __init__(
        self,
        neurons: "Neurons",
        order: np.ndarray,
        marks: dict[tuple[int, int], bool],
        concept: str = "",
    ) -> None:
        self._neurons = neurons
        self._order = order
        self._marks = dict(marks)
        self._concept = concept

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Row:
        row = int(self._order[index])
        neurons, place = self._neurons, self._neurons.place(row)
        return Row(
            row,
            (
                MARKS.get(self._marks.get(place), ("", "")),
                (str(place[0]), ""),
                (str(place[1]), ""),
                _tokens(neurons, row),
                self._spoken(row),
                (f"{neurons.norm[row]:.3f}", ""),
                ("yes", "") if neurons.reach[row] else ("no", "dim"),
                (_activation(neurons.mean, row), ""),
                (_activation(neurons.p99, row), ""),
                effect_span(neurons.steered.get(row)),
            ),
        )

    @property
    def widest(self) -> Row:
        """A row whose cells are as wide as any."""
        neurons = self._neurons
        last = (int(column.max(initial=0)) for column in (neurons.layer, neurons.neuron))
        fired = "-00.00" if neurons.mean is not None and np.isfinite(neurons.mean).any() else ""
        cells = (
            MARKS[False][0] if self._marks else "",
            *map(str, last),
            " " * 72,
            "careful 30",
            f"{neurons.norm.max(initial=0):.3f}",
            "yes",
            fired,
            fired,
            self._widest_effect(),
        )
        return Row(None, tuple((text, "") for text in cells))

    def _widest_effect(self) -> str:
        roles = {dose.role for dose in self._neurons.doses or ()}
        if not roles:
            return NOT_STEERED
        return "+.187 [+.128,+.221]" + (" random" if roles - {"steered"} else "")

    def place_of(self, key: object) -> int | None:
        """Return the number of the row of a neuron, from 0; None where it is not shown."""
        found = np.flatnonzero(self._order == key)
        return int(found[0]) if len(found) else None

    def _spoken(self, row: int) -> Span:
        """The concept that it speaks of most, or the one asked for, with its score."""
        words = self._neurons.words
        if words is None:
            return "…", "dim"
        if self._concept:
            return f"{self._concept} {words.scores[self._concept][row]}", ""
        which, score = (int(column[row]) for column in words.best)
        return (f"{list(words.scores)[which]} {score}", "") if score > 0 else ("none", "dim")


def spelled(token: str) -> str:
    """Return a token for people; one of white space alone in quotes."""
    return one_line(token) or one_line(repr(token))


def effect_span(doses: "list[Dose] | None") -> Span:
    """Return the effect that a list shows of a neuron, with its interval or its few pairs."""
    from tui.data.effects import chosen_dose

    if not doses:
        return NOT_STEERED, "dim"
    dose = chosen_dose(doses)
    sure = interval(dose.delta_ci, signed).replace(" ", "") or f"{dose.n_pairs} pairs"
    control = "" if dose.role == "steered" else f" {dose.role}"
    apart = dose.delta_ci is not None and (dose.delta_ci[0] > 0 or dose.delta_ci[1] < 0)
    return f"{signed(dose.delta_cm)} {sure}{control}", "" if apart and not control else "dim"


def signed(value: float) -> str:
    """Return centimetres as "+.187": the sign always, a leading zero never."""
    return number(value, 3, "+").replace("0.", ".", 1) if abs(value) < 1 else number(value, 3, "+")


def _tokens(neurons: "Neurons", row: int) -> Span:
    if neurons.words is None:
        return "…", "dim"
    return " ".join(map(spelled, neurons.words.tokens(row)[:TOKENS])), ""


def _activation(values: np.ndarray | None, row: int) -> str:
    if values is None or not np.isfinite(values[row]):
        return ""
    return pad(f"{values[row]:.2f}", 5, right=True)

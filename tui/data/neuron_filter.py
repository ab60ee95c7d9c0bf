"""The filter of the Neurons screen: words that all must hold.

up                a top token contains it; so does token~up
token=up          a top token is that word
concept=fast      speaks of fast: score of 4 or more (see `analysis.neurons`)
layer=3 layer=0-3 effect>1 norm<=0.2 score>=8 mean>0 p99>2 neuron=126
reach=yes         its layer can change the action
mark=accepted     or rejected, any, none
!layer=3          any of these, turned round
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from traces.errors import UnknownName
from tui.data.filter_words import (
    Term,
    compared,
    is_whole_choice,
    is_whole_number,
    parse_words,
)

if TYPE_CHECKING:
    from tui.data.neurons import Neurons

NUMBERS = ("layer", "neuron", "score", "norm", "mean", "p99", "effect")
CHOICES = {"reach": ("yes", "no"), "mark": ("accepted", "rejected", "any", "none")}
FIELDS = ("token", "concept", *CHOICES, *NUMBERS)
QUALIFYING = 4
"""Score from which a neuron speaks of a concept, as for the source of a cluster."""


def parse(text: str) -> tuple[tuple[Term, ...], str]:
    """Read a filter: the terms that can be read, and what is wrong with the first that cannot."""
    return parse_words(text, "token", _is_whole)


def concept_of(terms: tuple[Term, ...]) -> str:
    """Return the concept that is asked for, "" for none: scores are then those for it."""
    asked = [term.value.lower() for term in terms if term.field == "concept" and not term.negated]
    return asked[-1] if asked else ""


def matching(
    neurons: Neurons, terms: tuple[Term, ...], marks: dict[tuple[int, int], bool]
) -> np.ndarray:
    """Return the rows that satisfy every term, ascending.

    Args:
        neurons: the columns; a condition on one that is unknown holds for no neuron.
        terms: what `parse` read.
        marks: neuron to whether it was accepted (else rejected).
    """
    kept = np.ones(len(neurons), bool)
    concept = concept_of(terms)
    for term in terms:
        kept &= _holds(neurons, term, concept, marks) != term.negated
    return np.flatnonzero(kept)


def _is_whole(term: Term) -> bool:
    """Refuse what a field cannot be compared with; False while it is still being typed."""
    from analysis.lexicons import LEXICONS

    if term.field not in FIELDS:
        raise UnknownName("column", term.field, FIELDS)
    if not term.value:
        return False
    if term.field == "token":
        if term.operator not in ("~", "="):
            raise term.expected("token~part or token=word")
        return True
    if term.field == "concept":
        if term.operator != "=":
            raise term.expected("concept=NAME")
        name = term.value.lower()
        if not any(known.startswith(name) for known in LEXICONS):
            raise UnknownName("concept", name, LEXICONS)
        return name in LEXICONS
    if term.field in CHOICES:
        return is_whole_choice(term, CHOICES[term.field])
    return is_whole_number(term)


def _holds(
    neurons: Neurons, term: Term, concept: str, marks: dict[tuple[int, int], bool]
) -> np.ndarray:
    if term.field == "token":
        if neurons.words is None:
            return np.zeros(len(neurons), bool)
        return neurons.words.having(term.value, whole=term.operator == "=")
    if term.field == "concept":
        return neurons.numbers("score", term.value.lower()) >= QUALIFYING
    if term.field == "reach":
        return neurons.reach == (term.value.lower() == "yes")
    if term.field == "mark":
        return _marked(neurons, term.value.lower(), marks)
    return compared(neurons.numbers(term.field, concept), term)


def _marked(neurons: Neurons, wanted: str, marks: dict[tuple[int, int], bool]) -> np.ndarray:
    any_mark, accepted = np.zeros((2, len(neurons)), bool)
    for place, accept in marks.items():
        row = neurons.row_of(place)
        if row is not None:
            any_mark[row], accepted[row] = True, accept
    return {
        "accepted": accepted,
        "rejected": any_mark & ~accepted,
        "any": any_mark,
        "none": ~any_mark,
    }[wanted]

"""The filter of the list of features: words that all must hold (see `tui.data.filter_words`).

speed             its label or its strongest signal contains it
label=general     or memorised, silent
signal=speed      follows speed: corrected p below .05; r and p are then those for speed.
                  A signal of two words is written with a hyphen, such as phase-contact
coverage>0.5 onsets>=1 peak>0.1 r<-0.2 p<0.01 feature=3 feature=0-15
!label=silent     any of these, turned round
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from traces.errors import UnknownName
from tui.data.features import FOLLOWS, Features
from tui.data.filter_words import Term, compared, is_whole_choice, is_whole_number, parse_words

NUMBERS = ("feature", "coverage", "onsets", "r", "p", "peak")
FIELDS = ("label", "signal", *NUMBERS)


def parse(text: str) -> tuple[tuple[Term, ...], str]:
    """Read a filter: the terms that can be read, and what is wrong with the first that cannot."""
    return parse_words(text, "", _is_whole)


def signal_of(terms: tuple[Term, ...]) -> str:
    """Return the signal that is asked for, "" for none: r and p are then those for it."""
    asked = [term.value for term in terms if term.field == "signal" and not term.negated]
    return _signal(asked[-1]) if asked else ""


def matching(features: Features, terms: tuple[Term, ...]) -> np.ndarray:
    """Return the rows that satisfy every term, ascending; what is unknown satisfies nothing."""
    kept, signal = np.ones(len(features), bool), signal_of(terms)
    for term in terms:
        kept &= _holds(features, term, signal) != term.negated
    return np.flatnonzero(kept)


def _signal(value: str) -> str:
    return value.lower().replace("-", " ")


def _is_whole(term: Term) -> bool:
    """Refuse what a field cannot be compared with; False while it is still being typed."""
    from analysis.generality import LABELS
    from analysis.signals import SIGNALS

    if not term.field:
        return bool(term.value)
    if term.field not in FIELDS:
        raise UnknownName("column", term.field, FIELDS)
    if not term.value:
        return False
    if term.field == "label":
        return is_whole_choice(term, LABELS)
    if term.field == "signal":
        return is_whole_choice(term, tuple(name.replace(" ", "-") for name in SIGNALS))
    return is_whole_number(term)


def _holds(features: Features, term: Term, signal: str) -> np.ndarray:
    if term.field == "label":
        return _labelled(features, lambda label: label == term.value.lower())
    if term.field == "signal":
        return features.numbers("p", _signal(term.value)) < FOLLOWS
    if not term.field:
        part = term.value.lower()
        names = (*features.follows.names, "")  # the last is that of -1: none
        spoken = np.array([part in name.lower() for name in names])
        return _labelled(features, lambda label: part in label) | spoken[features.follows.strongest]
    return compared(features.numbers(term.field, signal), term)


def _labelled(features: Features, wanted: Callable[[str], bool]) -> np.ndarray:
    chosen = np.array([wanted(label.lower()) for label in features.labels], bool)
    return chosen[features.label] if len(chosen) else np.zeros(len(features), bool)

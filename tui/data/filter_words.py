"""The filters of the Neurons place: words that all must hold, such as `norm<=0.2` or `!layer=0-3`.

A word is FIELD OPERATOR VALUE, where `:` says the same as `=`; one without an operator is looked
for in the texts. `!` turns a word round.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from traces.errors import UserError

TERM = re.compile(r"(!?)(?:(\w+)(<=|>=|[~<>=:]))?(.*)", re.DOTALL)
NUMBER = re.compile(r"\d+-\d*|[+-]?\d*\.?\d*", re.ASCII)
"""Also one that is not typed to its end."""
RANGE = re.compile(r"(\d+)-(\d+)", re.ASCII)
COMPARE = {
    "<": np.less,
    ">": np.greater,
    "<=": np.less_equal,
    ">=": np.greater_equal,
    "=": np.equal,
}


@dataclass(frozen=True)
class Term:
    """One condition."""

    field: str
    operator: str
    value: str
    negated: bool = False

    def expected(self, what: str) -> UserError:
        """Return the refusal that says what would do."""
        return UserError(f"{self.field}{self.operator}{self.value}: expected {what}")


def parse_words(
    text: str, plain: str, is_whole: Callable[[Term], bool]
) -> tuple[tuple[Term, ...], str]:
    """Read a filter: the terms that can be read, and what is wrong with the first that cannot.

    Args:
        text: as typed.
        plain: field of a word without an operator.
        is_whole: refuses (`UserError`) what a field cannot be compared with; False while a term is
            still being typed, which does not count yet.
    """
    terms, trouble = [], ""
    for word in text.split():
        bang, field, operator, value = TERM.fullmatch(word).groups()
        operator = (operator or "~").replace(":", "=")
        term = Term((field or plain).lower(), operator, value, bool(bang))
        try:
            if is_whole(term):
                terms.append(term)
        except UserError as error:
            trouble = trouble or str(error)
    return tuple(terms), trouble


def is_whole_number(term: Term) -> bool:
    """Refuse what no number can be compared with; False while it is still being typed."""
    if term.operator == "~" or not NUMBER.fullmatch(term.value):
        raise term.expected(f"{term.field} and a number after one of = < > <= >=")
    return term.value[-1:].isdigit()


def is_whole_choice(term: Term, choices: tuple[str, ...]) -> bool:
    """Refuse what is none of some words; False while it is still being typed."""
    value = term.value.lower()
    if term.operator != "=" or not any(choice.startswith(value) for choice in choices):
        raise term.expected(f"{term.field}={'|'.join(choices)}")
    return value in choices


def compared(values: np.ndarray, term: Term) -> np.ndarray:
    """Return (n,) whether numbers satisfy a term; NaN satisfies nothing."""
    if match := RANGE.fullmatch(term.value):
        return (values >= int(match[1])) & (values <= int(match[2]))
    return COMPARE[term.operator](values, float(term.value))

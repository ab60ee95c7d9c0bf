"""Rows of the table of features, made when they are drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tui.data.features import FOLLOWS
from tui.terminal import one_line
from tui.widgets.lines import Span
from tui.widgets.table import Column, Row
from tui.widgets.virtual_table import VirtualRows
from tui.wording import interval, number, p_value

if TYPE_CHECKING:
    from tui.data.features import Correlations, Features

COLUMNS = (
    Column("feature", right=True),
    Column("label", least=9, most=12),
    Column("coverage", right=True, rank=2),
    Column("onsets", right=True, rank=4),
    Column("signal", least=8, most=24),
    Column("r, 95 %", rank=1),
    Column("p", right=True),
    Column("n", right=True, rank=3),
    Column("peak", right=True, rank=5),
)
SORTED_BY = ("feature", "label", "coverage", "onsets", "", "r", "p", "", "peak")
"""Name by which each column is sorted; "" for those that are not."""
SORTS = ("feature", "r", "p", "coverage", "onsets", "peak")
"""In the order of the key `s`."""
LABEL_STYLE = {"general": "good", "silent": "dim"}


class FeatureRows(VirtualRows):
    """Some features in some order."""

    def __init__(self, features: "Features", order: np.ndarray, signal: str = "") -> None:
        self._features, self._order, self._signal = features, order, signal

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Row:
        row = int(self._order[index])
        features = self._features
        label = one_line(features.labels[features.label[row]])
        signal = features.signal(row, self._signal)
        cells = (
            (str(features.feature[row]), ""),
            (label, LABEL_STYLE.get(label, "")),
            (number(features.coverage[row]), ""),
            (number(features.onsets[row], 1), ""),
            *_followed(features.follows, signal, row),
            (number(features.peak[row], 3), ""),
        )
        return Row(row, cells)

    @property
    def widest(self) -> Row:
        """A row whose cells are as wide as any."""
        features = self._features
        wide = (
            str(features.feature.max(initial=0)),
            _longest(features.labels),
            "0.00",
            _widest(features.onsets, 1),
            _longest(features.follows.names),
            "+.00 [+.00, +.00]",
            "< .0001",
            str(features.follows.episodes.max(initial=0)),
            _widest(features.peak, 3),
        )
        return Row(None, tuple((text, "") for text in wide))

    def place_of(self, key: object) -> int | None:
        """Return the number of the row of a feature, from 0; None where it is not shown."""
        found = np.flatnonzero(self._order == key)
        return int(found[0]) if len(found) else None


def correlation(value: float | None) -> str:
    """Return r in four characters, as "+.14": the sign always, a leading zero never."""
    if value is not None and abs(value) >= 0.995:
        return number(value, 1, "+")
    return number(value, 2, "+").replace("0.", ".", 1)


def corrected(p: float | None) -> str:
    """Return a p value for a column of them; an en dash where there is none."""
    known = p is not None and bool(np.isfinite(p))
    return p_value(p).removeprefix("p ") if known else number(None)


def _followed(follows: "Correlations", signal: int, row: int) -> tuple[Span, Span, Span, Span]:
    """Name of a signal, r with its interval, p, and the episodes in which both change."""
    if signal < 0:
        return ("none", "dim"), ("", ""), ("", ""), ("", "")
    low, high, p = (float(values[signal, row]) for values in (follows.low, follows.high, follows.p))
    sure = interval((low, high), correlation) if np.isfinite(low) else ""
    style = "" if p < FOLLOWS else "dim"
    return (
        (one_line(follows.names[signal]), style),
        (f"{correlation(float(follows.r[signal, row]))} {sure}", style),
        (corrected(p), style),
        (str(follows.episodes[signal, row]), "dim"),
    )


def _longest(texts: Sequence[str]) -> str:
    return max(map(one_line, texts), key=len, default="")


def _widest(values: np.ndarray, digits: int) -> str:
    """The largest number as it is shown."""
    finite = values[np.isfinite(values)]
    return number(float(finite.max(initial=0)), digits)

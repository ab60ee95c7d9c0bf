"""The features of one autoencoder as columns, one row a feature, and the card of one of them.

They come from what `vla-trace sae features` wrote, which `tui.data.feature_table` reads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FOLLOWS = 0.05
"""Corrected p below which a feature follows a signal."""


@dataclass(frozen=True, eq=False)
class Correlations:
    """Features (n) against signals (s): as `analysis.meaning.OF_SIGNALS`; NaN where unknown."""

    names: tuple[str, ...]
    r: np.ndarray
    """(s, n)"""
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    """(s, n) that it follows, beyond what other episodes explain; corrected over all features."""
    episodes: np.ndarray
    """(s, n) in which both change; 0 where there is none."""
    strongest: np.ndarray
    """(n,) number of the signal with the largest |r| of those it follows, else of those with a p;
    -1: none. The clock is left out."""


@dataclass(frozen=True, eq=False)
class Features:
    """Columns over n features, ascending by number; NaN where unknown."""

    facts: dict
    """What `features.json` says: policy, site, episodes, decisions, notes."""
    feature: np.ndarray
    labels: tuple[str, ...]
    label: np.ndarray
    """(n,) number of its label."""
    coverage: np.ndarray
    """(n,) share of the episodes in which it is active."""
    onsets: np.ndarray
    """(n,) in an episode in which it is active, mean."""
    peak: np.ndarray
    """(n,) largest value in an episode in which it is active, mean, by the row's length."""
    follows: Correlations

    def __len__(self) -> int:
        return len(self.feature)

    def signal(self, row: int, asked: str = "") -> int:
        """Return the number of the signal that is shown of a feature; -1: none."""
        names = self.follows.names
        return names.index(asked) if asked in names else int(self.follows.strongest[row])

    def numbers(self, name: str, signal: str = "") -> np.ndarray:
        """Return (n,) a column by name; r and p are of a signal, or of each one's strongest."""
        return self._of_signal(name, signal) if name in ("r", "p") else getattr(self, name)

    def _of_signal(self, name: str, signal: str) -> np.ndarray:
        values = getattr(self.follows, name)
        if signal:
            names = self.follows.names
            return values[names.index(signal)] if signal in names else np.full(len(self), np.nan)
        found, rows = np.full(len(self), np.nan), np.flatnonzero(self.follows.strongest >= 0)
        found[rows] = values[self.follows.strongest[rows], rows]
        return found


@dataclass(frozen=True, eq=False)
class FeatureCard:
    """Everything that was written of one feature; rows are dicts by the names of the tables."""

    about: dict
    """Of `analysis.sae.features.OF_FEATURES`."""
    signals: tuple[dict, ...]
    """The largest |r| first."""
    top: tuple[dict, ...]
    """Episodes where it peaks highest."""

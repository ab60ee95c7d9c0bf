"""How good an autoencoder is, on rows that it was not trained on.

    FVU                  sum |x - x^|^2 / sum |x - mean(x)|^2, the mean over all rows
    variance explained   1 - sum_j var(x_j - x^_j) / sum_j var(x_j), which a constant error does
                         not touch (dictionary_learning)
    cosine               mean over rows of cos(x, x^)
    L0                   mean number of features of a row
    dead share           features that fire in no row
    density              share of rows in which a feature fires
    stability            mean over features alive of their largest |cosine| with a feature of an
                         autoencoder of another seed; beside it what as many random directions give

Sums are in float64 and over blocks: memory does not grow with the rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from traces.autoencoder import Autoencoder

DENSITIES = tuple(10.0**e for e in np.arange(-5, 0.01, 0.5))
"""Edges of the histogram of densities: the first bin holds what is rarer, too, and what never
fires is apart."""


@dataclass(frozen=True)
class Reconstruction:
    """What is left of some rows; definitions above."""

    rows: int
    fvu: float
    variance_explained: float
    cosine: float
    l0: float
    dead_share: float
    density: np.ndarray
    """(m,)"""

    def to_dict(self) -> dict:
        """Figures and the histogram of densities, for JSON."""
        some = np.clip(self.density[self.density > 0], DENSITIES[0], 1.0)
        counts, _ = np.histogram(some, (*DENSITIES[:-1], 1.0 + 1e-9))
        names = ("rows", "fvu", "variance_explained", "cosine", "l0", "dead_share")
        return {name: getattr(self, name) for name in names} | {
            "density": {"edges": list(DENSITIES), "features": counts.tolist()}
        }


def reconstruction(sae: Autoencoder, blocks: Iterable[np.ndarray]) -> Reconstruction:
    """Measure an autoencoder on rows (rows, d), block by block."""
    d, m = sae.width, sae.features
    n, fired, l0, cosine = 0, np.zeros(m), 0.0, 0.0
    x_sum, x_square, e_sum, e_square = np.zeros(d), np.zeros(d), np.zeros(d), np.zeros(d)
    for block in blocks:
        if not len(block):
            continue
        z = sae.encode(block)
        x, made = block.astype(np.float64), sae.decode(z, block).astype(np.float64)
        error = x - made
        n += len(x)
        fired += (z > 0).sum(0)
        l0 += float((z > 0).sum())
        length = np.linalg.norm(x, axis=1) * np.linalg.norm(made, axis=1)
        cosine += float(((x * made).sum(1) / np.where(length > 0, length, 1.0)).sum())
        x_sum, x_square = x_sum + x.sum(0), x_square + (x * x).sum(0)
        e_sum, e_square = e_sum + error.sum(0), e_square + (error * error).sum(0)
    if not n:
        none = float("nan")
        return Reconstruction(0, none, none, none, none, none, np.full(m, np.nan))
    spread = float((x_square - x_sum**2 / n).sum())
    unexplained = float((e_square - e_sum**2 / n).sum())
    return Reconstruction(
        rows=n,
        fvu=float(e_square.sum()) / spread if spread > 0 else float("nan"),
        variance_explained=1 - unexplained / spread if spread > 0 else float("nan"),
        cosine=cosine / n,
        l0=l0 / n,
        dead_share=float((fired == 0).mean()),
        density=fired / n,
    )


def stability(saes: Sequence[Autoencoder], alive: Sequence[np.ndarray]) -> list[float]:
    """How much of each autoencoder is found again under the other seeds; NaN for a single one.

    Args:
        saes: of several seeds.
        alive: (m,) bool of each, its features that fire.
    """
    directions = [_unit(sae.W_dec[some]) for sae, some in zip(saes, alive, strict=True)]
    found = []
    for i, own in enumerate(directions):
        best = [
            np.abs(own @ other.T).max(axis=1)
            for j, other in enumerate(directions)
            if i != j and len(other) and len(own)
        ]
        found.append(float(np.mean(best)) if best else float("nan"))
    return found


def random_stability(width: int, features: int, seed: int = 0) -> float:
    """What `stability` would be for random directions: the control."""
    rng = np.random.default_rng(seed)
    one, other = (_unit(rng.standard_normal((features, width))) for _ in range(2))
    return float(np.abs(one @ other.T).max(axis=1).mean())


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

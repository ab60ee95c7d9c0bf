"""Features of recorded rows: a site's activations as an autoencoder reads them."""

import numpy as np

from traces.autoencoder import Autoencoder
from traces.lazy import LazyActivations


class FeatureRows:
    """Features (D, m) of a site, read and encoded when they are sliced.

    They are in units of the row's own length, z / |y|, as if inputs had length 1: then the onset
    threshold of `analysis.onsets` means what it means in the publication. Where a site keeps tokens
    apart, a decision has the mean over them.

    Args:
        values: activations of the autoencoder's site.
        sae: the autoencoder.
    """

    def __init__(self, values: LazyActivations, sae: Autoencoder) -> None:
        self.site, self.decisions = values.site, values.decisions
        self.shape = (len(values), sae.features)
        self._values, self._sae = values, sae

    def __getitem__(self, rows: object) -> np.ndarray:
        """Return the features of some decisions, (rows, m); NaN where nothing is finite."""
        values = np.asarray(self._values[rows], np.float32)
        flat = values.reshape(-1, values.shape[-1])
        known = np.isfinite(flat).all(axis=1)
        found = np.full((len(flat), self.shape[1]), np.nan, np.float32)
        found[known] = self._sae.encode(flat[known]) / self._sae.length(flat[known])
        if values.ndim == 2:
            return found
        tokens = found.reshape(len(values), -1, self.shape[1])
        some = np.isfinite(tokens).any(axis=(1, 2))
        means = np.full((len(values), self.shape[1]), np.nan, np.float32)
        means[some] = np.nanmean(tokens[some], axis=1)
        return means

"""Correlations with the signals of other episodes: what a course of time that all share explains.

Hands start slow, and neurons change as an episode goes on: so a neuron correlates with the speed of
episodes that it never saw. Two episodes of different lengths are laid beside each other twice,

    by number   row i beside row i, as far as the shorter one goes: a clock that counts decisions
    by share    row i beside the row at the same share of the other episode: a course that is
                stretched with the episode

and both times the episode's own signal is cut, or coarsened, as the other's is: what is compared
has the same rows and the same resolution.
"""

from collections.abc import Sequence

import numpy as np

from analysis.episode_means import correlations

ALIGNMENTS = ("number", "share")


def beside_others(
    values: np.ndarray, own: np.ndarray, others: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Correlate one episode with its own signals and with those of other episodes.

    Args:
        values: (n, N) activations of the episode.
        own: (S, n) its signals.
        others: (S, m) signals of each other episode, m its own number of rows.

    Returns:
        (ALIGNMENTS, S, N) means over the other episodes, of r with the episode's own signals and of
        r with theirs; NaN where no other has both.
    """
    shape = (len(ALIGNMENTS), len(own), values.shape[1])
    pairs = np.full((len(others), 2, *shape), np.nan)  # own or theirs, alignment, S, N
    for pair, theirs in zip(pairs, others, strict=True):
        k = min(own.shape[1], theirs.shape[1])
        aligned = (own[:, :k], theirs[:, :k]), by_share(own, theirs)
        for i, both in enumerate(aligned):
            rows = both[0].shape[1]
            pair[:, i] = correlations(values[:rows], np.concatenate(both)).reshape(2, *shape[1:])
    known = np.isfinite(pairs).all(axis=1, keepdims=True)
    count = known.sum(axis=0)
    means = np.where(known, pairs, 0.0).sum(axis=0) / np.where(count, count, np.nan)
    return means[0], means[1]


def by_share(own: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (S, n) both signals at the n rows of the first, in the resolution of the coarser.

    The middle of row i of n stands at the share (i + 1/2) / n of the episode.
    """
    n, m = own.shape[1], theirs.shape[1]
    there = ((np.arange(n) + 0.5) / n * m).astype(int)
    back = ((there + 0.5) / m * n).astype(int)
    return own[:, back], theirs[:, there]

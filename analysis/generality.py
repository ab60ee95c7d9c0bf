"""General or memorised: whether a unit comes back again and again, or in a few moments only.

DrVLA (arXiv:2603.19183) tells general features from memorised ones by a logistic regression on
coverage, onset count, magnitude and relative run length, fitted to 30 features labelled by hand;
its weights are not published. Both rules here are refits to the labels that its site publishes for
2,048 features of pi0.5 on 1,693 LIBERO episodes (github.com/drvla/drvla.github.io, commit d672e86),
and each gives all of these labels.

    thresholds   general if onset_count >= 1.3 and coverage >= 0.94
    logistic     general if -25.39 + 9.26 coverage + 8.49 onset_count + 79.6 mean_active
                            - 0.48 relative_run_length > 0

The label is the thresholds', which know no scale; the logistic's weight of `mean_active` belongs to
the scale of their features. Either calls memorised, by construction, what is active once an
episode, however regularly.
"""

import numpy as np

from analysis.onsets import Coverage

GENERAL_ONSETS = 1.3
GENERAL_COVERAGE = 0.94
INTERCEPT = -25.39
WEIGHTS = {
    "coverage": 9.26,
    "onset_count": 8.49,
    "mean_active": 79.6,
    "relative_run_length": -0.48,
}
"""Refit with C = 1; tenfold cross-validation misses one label of 2,048."""

LABELS = ("general", "memorised", "silent")
"""Silent: active in no episode; such features have no label in the publication."""

RESOLVING_EPISODES = 17
"""Of fewer, one silent episode alone takes coverage below `GENERAL_COVERAGE`: 1 / 17 < 0.06."""


def labels(counted: Coverage) -> np.ndarray:
    """Return (N,) one of `LABELS`, by the thresholds."""
    onsets = np.nan_to_num(counted.onset_count)
    general = (onsets >= GENERAL_ONSETS) & (counted.coverage >= GENERAL_COVERAGE)
    active = np.where(general, "general", "memorised")
    return np.where(counted.active_episodes > 0, active, "silent")


def logits(counted: Coverage) -> np.ndarray:
    """Return (N,) of the logistic rule, general above 0; NaN of silent units.

    A unit that is active without ever beginning a run has no onset, and runs of no length.
    """
    parts = (w * np.nan_to_num(getattr(counted, name)) for name, w in WEIGHTS.items())
    return np.where(counted.active_episodes > 0, INTERCEPT + sum(parts), np.nan)

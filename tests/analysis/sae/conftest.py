"""Traces and an autoencoder whose features the test can name."""

import numpy as np
import pytest

from traces.autoencoder import Autoencoder

SITE = "vlm.1.resid_post"
EPISODES, ROWS, WIDTH = 12, 10, 5


def identity(width=WIDTH, **metadata):
    """Feature i is coordinate i, where that is above 0."""
    eye = np.eye(width, dtype=np.float32)
    zeros = np.zeros(width, np.float32)
    about = {"site": SITE, "tower": "vlm", "layer": 1, "kind": "resid_post", "rows": "mean"}
    about |= {"tokens": "all", "policy": "p", "policy_sha256": "ab" * 32}
    return Autoencoder(
        eye, zeros, eye, zeros, k=width, normalisation="none", metadata=about | metadata
    )


@pytest.fixture(scope="session")
def identity_sae():
    """Make the autoencoder above."""
    return identity


@pytest.fixture
def planted(traces, tmp_path):
    """A trace: feature 0 follows the speed, 1 is only active in episode 3, 4 never.

    Coordinate 3 is so large that all rows are about 10 long; without frames, of one task.
    """
    rng = np.random.default_rng(0)
    made = []
    for i in range(EPISODES):
        cm = rng.uniform(0.5, 2, ROWS)
        x = np.zeros((ROWS, WIDTH), np.float32)
        x[:, 0] = 2 * cm
        x[4, 1] = 5.0 if i == 3 else 0.0
        x[:, 2] = rng.uniform(0, 1, ROWS)
        x[:, 3] = 10.0
        x[:, 4] = -1.0
        made.append(traces.episode(f"p{i:02d}", list(cm), ffn_act=None, activations={SITE: x}))
    return str(traces.write(tmp_path / "base.h5", made))

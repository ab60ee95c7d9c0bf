"""What of the action is left when an autoencoder takes the place of its site."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.config import RecordConfig
from engine.policies.smolvla import load_policy
from engine.record import record
from engine.recovery import recovery, splice
from traces.autoencoder import Autoencoder, constant, load_autoencoder, save_autoencoder
from traces.collection import open_traces
from traces.condition import BASELINE
from traces.errors import UserError

SITE = "vlm.2.resid_post"  # what the organism's reader reads


@pytest.fixture(scope="module")
def organism():
    return load_policy("organism")


@pytest.fixture(scope="module")
def kept(organism, tmp_path_factory):
    """Three episodes with frames, two in the first shard."""
    folder, before = tmp_path_factory.mktemp("kept"), Path.cwd()
    os.chdir(folder)
    try:
        config = RecordConfig(
            episodes=3, replan=10, keep=("frames",), shard_episodes=2, capture=("light",)
        )
        (path, *_) = record(config, organism, [BASELINE], "one")
    finally:
        os.chdir(before)
    return folder / path


def identity(width, rows="token", shift=100.0):
    eye = np.eye(width, dtype=np.float32)
    about = {"site": SITE, "tower": "vlm", "layer": 2, "kind": "resid_post", "rows": rows}
    return Autoencoder(
        eye,
        np.zeros(width, np.float32),
        eye,
        np.full(width, -shift, np.float32),
        k=width,
        normalisation="none",
        metadata=about | {"tokens": "all"},
    )


@pytest.fixture(scope="module")
def mean(kept):
    with open_traces(kept) as traces:
        return traces.activation_stats(SITE)[1]


def asked(kept, organism, folder, sae, episodes=3):
    save_autoencoder(folder, sae)
    told = []
    found = recovery(
        kept, organism, folder, episodes, lambda done, total: told.append((done, total))
    )
    return found, told


def test_a_perfect_autoencoder_recovers_everything(kept, organism, mean, tmp_path):
    found, told = asked(kept, organism, tmp_path / "a", identity(len(mean)))
    assert found.spliced.shape == found.mean.shape == found.zero.shape == (3,)
    assert (found.mean > 0).all() and (found.zero > 0).all()
    assert (1 - found.spliced / found.mean > 0.999).all()
    assert told == [(1, 3), (2, 3), (3, 3)]
    with open_traces(kept) as traces:
        assert found.decisions == len(traces.decisions("t")["t"])


def test_the_mean_recovers_nothing(kept, organism, mean, tmp_path):
    sae = constant(identity(len(mean)), mean)
    found, _ = asked(kept, organism, tmp_path / "a", sae, episodes=2)
    np.testing.assert_array_equal(found.spliced, found.mean)
    assert len(found.spliced) == 2


def test_what_cannot_be_asked(kept, organism, mean, tmp_path):
    with pytest.raises(UserError, match=r"reads rows of 7, vlm\.2\.resid_post of this policy has"):
        asked(kept, organism, tmp_path / "w", identity(7))
    with pytest.raises(UserError, match="does not say where it belongs"):
        splice("x", replace(identity(4), metadata={"site": SITE}))
    other = identity(len(mean))
    site = {"site": "vlm.2.resid_post.state", "tokens": "state"}
    with pytest.raises(UserError, match=r"vlm\.2\.resid_post\.state"):
        asked(kept, organism, tmp_path / "s", replace(other, metadata=other.metadata | site))
    assert load_autoencoder(tmp_path / "s").site.endswith("state")

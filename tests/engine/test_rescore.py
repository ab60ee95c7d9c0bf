"""A policy asked again on the inputs of a real recording."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from engine.config import RecordConfig
from engine.record import record
from engine.rescore import asked_like, rescore
from traces.check import check
from traces.collection import open_traces
from traces.condition import BASELINE
from traces.errors import UserError
from traces.intervention import Intervention, Site

STEER = Intervention("fast", "overwrite", (Site("vlm", 1, (3, 50, 200)),), 8.0)


@pytest.fixture(scope="module")
def kept(loaded, tmp_path_factory):
    """Three episodes with their frames, two in the first shard."""
    folder, before = tmp_path_factory.mktemp("kept"), Path.cwd()
    os.chdir(folder)
    try:
        config = RecordConfig(episodes=3, replan=3, keep=("frames",), shard_episodes=2)
        paths = record(config, loaded, [BASELINE], "one")
    finally:
        os.chdir(before)
    return folder / paths[0]


def test_the_same_policy_says_the_same(kept, loaded, tmp_path):
    """Chains, log-probabilities and activations equal the recorded ones, bit for bit."""
    (path,) = rescore(kept, asked_like(kept, loaded), tmp_path, "again")
    assert not [f for f in check(path) if f.level == "error"]
    with open_traces(kept) as old, open_traces(path) as new:
        assert new.recordings()[0].header.kind == "replay"
        assert new.n_episodes == old.n_episodes == 3
        for table in ("decisions", "steps"):
            was, now = getattr(old, table)(), getattr(new, table)()
            for name in set(was) - {"file", "policy_ms"}:
                np.testing.assert_array_equal(now[name], was[name], err_msg=f"{table}/{name}")
        for site in old.sites():
            np.testing.assert_array_equal(
                np.asarray(new.activation(site.name)), np.asarray(old.activation(site.name))
            )
        was, now = old.objects(), new.objects()
        np.testing.assert_array_equal(now["pos"], was["pos"])


def test_a_policy_with_other_denoising_steps_takes_those_of_the_recording(kept, loaded, tmp_path):
    loaded.policy.config.num_steps -= 1
    (path,) = rescore(kept, asked_like(kept, loaded), tmp_path, "fewer")
    with open_traces(kept) as old, open_traces(path) as new:
        np.testing.assert_array_equal(
            new.decisions("chain")["chain"], old.decisions("chain")["chain"]
        )


def test_a_steered_policy_says_something_else_about_the_same_states(kept, loaded, tmp_path):
    (path,) = rescore(kept, asked_like(kept, loaded, STEER), tmp_path, "steered")
    with open_traces(kept) as old, open_traces(path) as new:
        was, now = old.steps(), new.steps()
        np.testing.assert_array_equal(now["action"], was["action"])
        np.testing.assert_array_equal(now["ee_pos"], was["ee_pos"])
        assert now["intervened"].all()
        assert not np.array_equal(now["action_policy"], was["action_policy"])


def test_a_picture_that_is_not_the_recorded_one_is_refused(kept, loaded, tmp_path):
    """Two equally long pictures of one camera, exchanged: the hash of the input tells."""
    for path in kept.parent.glob("*.h5"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    copy = tmp_path / kept.name
    with h5py.File(copy, "r+") as file:
        frames = file["frames/image"]
        for name in ("offset", "length"):
            values = frames[name][:]
            values[[0, -1]] = values[[-1, 0]]
            frames[name][:] = values
    with pytest.raises(UserError):
        rescore(copy, asked_like(copy, loaded), tmp_path / "out", "bad")
    assert not list((tmp_path / "out").glob("*.h5"))


def test_without_frames_the_way_to_get_them_is_said(loaded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (path,) = record(RecordConfig(episodes=1, replan=5), loaded, [BASELINE], "bare")
    with pytest.raises(UserError, match="record with: vla-trace record --keep frames"):
        rescore(path, asked_like(path, loaded), tmp_path / "out", "none")

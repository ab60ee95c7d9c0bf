"""Real recordings, run again."""

import os
import shutil
from pathlib import Path

import h5py
import pytest

from engine.config import RecordConfig
from engine.policies.smolvla import load_policy
from engine.record import record
from engine.replay import replay
from traces.condition import BASELINE, Condition
from traces.errors import UserError
from traces.intervention import Intervention, Site
from traces.reader import TraceReader

STEER = Intervention("fast", "overwrite", (Site("vlm", 1, (3, 50, 200)),), 8.0)


@pytest.fixture(scope="module")
def steered(loaded, tmp_path_factory):
    """Two episodes of a steered condition, a shard each."""
    folder, before = tmp_path_factory.mktemp("replayed"), Path.cwd()
    os.chdir(folder)
    try:
        config = RecordConfig(episodes=2, replan=5, shard_episodes=1)
        paths = record(config, loaded, [Condition(STEER)], "one")
    finally:
        os.chdir(before)
    assert len(paths) == 2
    return [folder / path for path in paths]


@pytest.fixture
def copy(steered, tmp_path):
    """The same files, free to be changed; the path of the first shard."""
    for path in steered:
        shutil.copy(path, tmp_path)
    return tmp_path / steered[0].name


def test_a_recording_comes_out_the_same(steered):
    """All shards, steering included, whatever the number of workers."""
    heard = []
    result = replay(steered[0], workers=1, progress=lambda *counts: heard.append(counts))
    assert (result.episodes, result.equal, result.notes) == (2, 2, ())
    assert heard == [(2, 2)]


def test_denoising_steps_are_those_of_the_recording(tmp_path, monkeypatch):
    """Not the policy's own: `record --steps`."""
    monkeypatch.chdir(tmp_path)
    config = RecordConfig(episodes=1, replan=10, steps=3, workers=1)
    (path,) = record(config, load_policy(config.policy, config.steps), [BASELINE], "three")
    with TraceReader(path) as trace:
        assert trace.header.K == 3
    assert replay(path, workers=1).equal == 1


def test_one_changed_bit_of_one_action_is_found(copy):
    with h5py.File(copy, "r+") as file:
        action = file["steps/action"][:]
        action[4, 1] += 1e-6
        file["steps/action"][:] = action
        uid = file["episodes/uid"].asstr()[0]
    (difference,) = replay(copy).differences
    assert (difference.uid, difference.column, difference.step) == (uid, "steps/action", 4)
    assert 0 < difference.largest < 1e-5


def test_other_versions_are_said(copy):
    with h5py.File(copy, "r+") as file:
        file.attrs["versions"] = file.attrs["versions"].replace('"torch": "', '"torch": "1.')
    (note,) = replay(copy).notes
    assert note.startswith("torch was 1.")


def test_other_weights_are_refused(copy):
    for path in copy.parent.glob("*.h5"):
        with h5py.File(path, "r+") as file:
            file["policies/sha256"][0] = b"0" * 64
    with pytest.raises(UserError, match=r"recorded with the weights 00000000, but .*--policy"):
        replay(copy)


def test_other_kinds_are_refused(copy):
    with h5py.File(copy, "r+") as file:
        file.attrs["kind"] = "grpo"
    with pytest.raises(UserError, match="kind 'grpo' cannot be replayed"):
        replay(copy)

import shutil

import pytest

from engine.actor import Actor
from engine.config import RecordConfig
from engine.cost import checked_cost
from engine.likelihoods.flow_sde import FlowSDE
from engine.record import record
from traces.condition import BASELINE
from traces.errors import DiskFull


@pytest.mark.parametrize(
    ("capture", "keep"), [(("standard",), ()), (("full",), ()), (("light",), ("frames", "sim"))]
)
def test_a_recording_takes_no_more_than_was_said(loaded, tmp_path, monkeypatch, capture, keep):
    """Said: every episode at full length. Got: shorter episodes, with HDF5's own overhead."""
    monkeypatch.chdir(tmp_path)
    config = RecordConfig(episodes=2, replan=2, capture=capture, keep=keep)
    actor = Actor(loaded, FlowSDE(loaded.policy.config.num_steps), 2, None, capture)
    cost = checked_cost(config, [actor])
    (path,) = record(config, loaded, [BASELINE], "one")
    values = sum(site.shape[0] for site in actor.capture.sites) if capture[0] == "standard" else 0
    if values:
        assert cost.activations_per_decision == sum(
            2 * site.shape[0] + 8 for site in actor.capture.sites
        )
    overhead = 3e6  # empty chunks of some hundred columns
    assert path.stat().st_size < cost.total + overhead


def test_simulator_states_are_counted(loaded, tmp_path):
    """A state of 50 numbers before each of 70 steps and at the end, with 24 bytes of index."""
    actor = Actor(loaded, FlowSDE(loaded.policy.config.num_steps), 1, None, ("light",))
    without, kept = (
        checked_cost(RecordConfig(episodes=1, out=str(tmp_path), keep=keep), [actor])
        for keep in ((), ("sim",))
    )
    assert kept.per_episode - without.per_episode == 71 * 50 * 8 + 70 * 24


def test_what_cannot_fit_is_refused_before_the_first_episode(loaded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    small = usage._replace(free=200_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: small)
    with pytest.raises(DiskFull, match=r"MB needed, 200 MB free"):
        record(RecordConfig(episodes=900, capture=("full",)), loaded, [BASELINE], "big")
    assert not list(tmp_path.iterdir())

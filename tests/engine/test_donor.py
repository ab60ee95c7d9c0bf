"""Activations of one recording put into another."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.actor import Actor
from engine.config import RecordConfig
from engine.likelihoods.flow_sde import FlowSDE
from engine.record import record
from traces.condition import BASELINE, Condition
from traces.errors import UserError
from traces.intervention import Donor, Intervention, Site
from traces.reader import TraceReader

CAPTURE = (
    "vlm.1.ffn_act:keep=each,dtype=float32",
    "vlm.2.resid_post:keep=each,dtype=float32",
    "expert.3.ffn_act:tokens=chunk,keep=each,dtype=float32",
)
SHORT = {"episodes": 2, "replan": 10, "workers": 1}
SITES = (
    Site("vlm", 1),
    Site("vlm", 2, kind="resid_post"),
    Site("expert", 3, (0, 5, 9)),
)


@pytest.fixture(scope="module")
def donor(loaded, tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("donor"), Path.cwd()
    os.chdir(folder)
    try:
        (path,) = record(RecordConfig(**SHORT, capture=CAPTURE), loaded, [BASELINE], "donor")
    finally:
        os.chdir(before)
    return folder / path


def patch(donor, sites=SITES, episodes=None, **options):
    source = Donor(str(donor), episodes or {})
    return Intervention("patch", "patch", tuple(sites), 1.0, donor=source, **options)


def uids(path):
    with TraceReader(path) as trace:
        return trace.episodes("uid")["uid"].tolist()


def test_a_policy_patched_with_its_own_activations_does_the_same(
    loaded, donor, tmp_path, monkeypatch
):
    """Bit for bit, at FFNs of both towers and at the residual stream together."""
    monkeypatch.chdir(tmp_path)
    config = RecordConfig(**SHORT, capture=("light",))
    (again,) = record(config, loaded, [Condition(patch(donor))], "again")
    with TraceReader(donor) as old, TraceReader(again) as new:
        for name in ("chain", "obs_hash"):
            np.testing.assert_array_equal(new.decisions(name)[name], old.decisions(name)[name])
        assert new.steps("intervened")["intervened"].all()


def test_another_episodes_activations_change_the_action_until_it_ends(
    loaded, donor, tmp_path, monkeypatch
):
    """Episode 0 gets those of episode 1; the mapping names no other."""
    monkeypatch.chdir(tmp_path)
    config = RecordConfig(**SHORT, capture=("light",))
    other = patch(donor, SITES[1:2], {"0": uids(donor)[1]})
    (path,) = record(config, loaded, [Condition(other)], "other")
    with TraceReader(donor) as old, TraceReader(path) as new:
        first = [r.decisions("chain", episode=0)["chain"][0] for r in (old, new)]
        np.testing.assert_array_equal(first[0][0], first[1][0])
        assert np.abs(first[0][-1] - first[1][-1]).max() > 1e-3
        second = [r.decisions("chain", episode=1)["chain"] for r in (old, new)]
        np.testing.assert_array_equal(*second)
        donated = old.episodes("n_decisions")["n_decisions"][1]
        steps = new.steps("t", "intervened", episode=0)
        np.testing.assert_array_equal(steps["intervened"], steps["t"] < 10 * donated)


def test_the_residual_of_the_donor_is_what_the_next_layer_reads(loaded, donor, requests):
    """All prefix tokens that are valid in both; what comes after layer 2 is then the donor's."""
    uid = uids(donor)[1]
    actor = Actor(
        loaded,
        FlowSDE(loaded.policy.config.num_steps),
        10,
        patch(donor, SITES[1:2], {"*": uid}),
        CAPTURE,
    )
    rows = [replace(r, scene=(i, i)) for i, r in enumerate(requests)]
    decisions = actor.decide(rows)
    with TraceReader(donor) as trace:
        given = trace.activation("vlm.2.resid_post.each", episode=1)[0]
    for decision in decisions:
        got = decision.activations["vlm.2.resid_post.each"]
        both = np.isfinite(got) & np.isfinite(given)
        assert both.sum() >= 38 * 128  # both cameras, five words, the state
        np.testing.assert_allclose(got[both], given[both], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sites": (Site("vlm", 3),)}, r"did not record vlm.3.ffn_act.each; .*vlm.3.ffn_act:keep"),
        ({"sites": (Site("expert", 1),)}, "--capture expert.1.ffn_act:tokens=chunk,keep=each"),
        ({"episodes": {"*": "nobody"}}, "has no episode 'nobody'; it has the scene seeds"),
    ],
)
def test_a_donor_that_cannot_give_is_refused_in_one_line(loaded, donor, changes, message):
    sampler = FlowSDE(loaded.policy.config.num_steps)
    with pytest.raises(UserError, match=message) as caught:
        Actor(loaded, sampler, 10, patch(donor, **changes)).expect([(0, 0)])
    assert "\n" not in str(caught.value)


def test_a_donor_lacks_scenes_and_was_asked_at_other_steps(loaded, donor):
    sampler = FlowSDE(loaded.policy.config.num_steps)
    with pytest.raises(UserError, match=r"scene seed 7 and initial state 7; .*\[0, 1\]"):
        Actor(loaded, sampler, 10, patch(donor)).expect([(0, 0), (7, 7)])
    with pytest.raises(UserError, match="recorded with --replan 10, this is --replan 5"):
        Actor(loaded, sampler, 5, patch(donor))

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine import sites
from engine.actor import BATCH, Actor, action_statistics
from engine.likelihoods.flow_sde import FlowSDE, log_prob
from traces.intervention import Intervention, Site

NEURONS = (3, 50, 200)


def sde(loaded, level=0.5):
    return FlowSDE(loaded.policy.config.num_steps, level)


def overwrite(alpha=8.0, layer=1, **options):
    return Intervention("test", "overwrite", (Site("vlm", layer, NEURONS),), alpha, **options)


@pytest.fixture(scope="module")
def baseline(loaded, requests):
    return Actor(loaded, sde(loaded)).decide(requests)


def test_decisions_have_the_shapes_of_the_trace(loaded, baseline):
    decision = baseline[0]
    k, h, z = loaded.policy.config.num_steps, 10, 8
    assert decision.action.shape == (1, 7)
    assert decision.chain.shape == (k + 1, h, z)
    assert decision.log_prob.dtype == np.float64
    assert np.isfinite(decision.log_prob).all()
    np.testing.assert_array_equal(decision.log_prob, decision.log_prob_base)


def test_a_row_does_not_depend_on_its_neighbours(loaded, requests, baseline):
    alone = Actor(loaded, sde(loaded)).decide([requests[0]] + [None] * (BATCH - 1))
    assert alone[1:] == [None] * (BATCH - 1)
    np.testing.assert_array_equal(alone[0].chain, baseline[0].chain)
    np.testing.assert_array_equal(alone[0].log_prob, baseline[0].log_prob)


def test_the_same_request_gives_the_same_bytes(loaded, requests, baseline):
    again = Actor(loaded, sde(loaded)).decide(requests)
    for one, other in zip(baseline, again, strict=True):
        np.testing.assert_array_equal(one.chain, other.chain)
        assert one.obs_hash == other.obs_hash


def test_deterministic_equals_lerobots_own_call(loaded, requests):
    """The whole path, processors included, against `predict_action_chunk`."""
    actor = Actor(loaded, sde(loaded, 0.0), n_executed=10)
    decisions = actor.decide(requests)
    initial, _ = actor._noise(requests)
    chunk = loaded.policy.predict_action_chunk(actor._batch(requests), noise=initial)
    expected = loaded.postprocess(chunk).numpy()
    for i, decision in enumerate(decisions):
        np.testing.assert_array_equal(decision.action, expected[i])
        assert np.isnan(decision.log_prob).all()


def test_log_prob_covers_only_entries_that_reach_the_environment(loaded):
    """The hand does not rotate: those entries have no spread in the data and stay out."""
    actor = Actor(loaded, sde(loaded))
    std = action_statistics(loaded)["std"]
    assert actor.likelihood_dims == [0, 1, 2, 6]
    assert all(std[i] < 1e-6 for i in (3, 4, 5))


def test_steering_changes_the_action_and_its_log_prob(loaded, requests, baseline):
    actor = Actor(loaded, sde(loaded), intervention=overwrite(), base_log_prob=True)
    for one, other in zip(baseline, actor.decide(requests), strict=True):
        np.testing.assert_array_equal(one.chain[0], other.chain[0])  # the same noise
        assert np.abs(one.action - other.action).max() > 1e-4
        assert not np.array_equal(other.log_prob, other.log_prob_base)


def test_base_log_prob_is_that_of_the_unsteered_policy(loaded, requests):
    actor = Actor(loaded, sde(loaded), intervention=overwrite(), base_log_prob=True)
    decisions = actor.decide(requests)
    chains = torch.from_numpy(np.stack([d.chain for d in decisions]))
    with torch.no_grad():
        velocity = Actor(loaded, sde(loaded))._velocity(actor._batch(requests))
        rows = log_prob(actor.sampler, velocity, chains, actor.likelihood_dims)[:, 0].numpy()
    np.testing.assert_allclose([d.log_prob_base[0] for d in decisions], rows, rtol=0, atol=1e-9)
    assert not actor.why_base_nan


def test_base_log_prob_is_unknown_where_steered_unless_asked_for(loaded, requests):
    """The second pass doubles the cost of a call; rows that nothing acted on need none."""
    actor = Actor(loaded, sde(loaded), intervention=overwrite(step_window=(0, 1)))
    assert "--keep base-log-prob" in actor.why_base_nan
    decisions = actor.decide([replace(r, step=i % 2) for i, r in enumerate(requests)])
    for i, decision in enumerate(decisions):
        assert decision.intervened == (i % 2 == 0)
        assert np.isnan(decision.log_prob_base).all() == decision.intervened
        if not decision.intervened:
            np.testing.assert_array_equal(decision.log_prob, decision.log_prob_base)


def test_steering_shows_in_what_is_captured(loaded, requests, baseline):
    actor = Actor(loaded, sde(loaded), intervention=overwrite(5.0))
    steered = actor.decide(requests)[0]
    mean = steered.activations["vlm.1.ffn_act"]
    np.testing.assert_allclose(mean[list(NEURONS)], 5.0, rtol=1e-6)
    per_token = steered.activations["vlm.1.ffn_act.steered"]
    assert per_token.shape[1] == len(NEURONS)
    mask = sites.prefix_mask(loaded.policy, actor._batch(requests))[0].numpy()
    np.testing.assert_array_equal(per_token[mask], 5.0)
    assert not (per_token[~mask] == 5.0).any()  # padding is left alone
    np.testing.assert_array_equal(  # what lies before it is untouched
        steered.activations["vlm.0.ffn_act"], baseline[0].activations["vlm.0.ffn_act"]
    )


def test_steered_expert_neurons_are_captured_step_by_step(loaded, requests):
    site = Site("expert", 2, NEURONS)
    chosen = Intervention("e", "overwrite", (site,), 5.0, denoise_window=(1, 3))
    steered = Actor(loaded, sde(loaded), intervention=chosen).decide(requests)[0]
    values = steered.activations["exp.2.ffn_act.steered"]  # (K, H, N)
    assert values.shape == (5, 10, len(NEURONS))
    assert [(step == 5.0).all() for step in values] == [False, True, True, False, False]


def test_observations_are_hashed_as_the_policy_sees_them(requests, baseline):
    hashes = [d.obs_hash for d in baseline]
    assert len(set(hashes)) == len(requests)
    assert all(len(h) == 64 for h in hashes)


def test_every_batch_has_eight_rows(loaded, requests):
    with pytest.raises(ValueError, match="8 rows"):
        Actor(loaded, sde(loaded)).decide(requests[:3])

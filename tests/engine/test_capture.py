import numpy as np
import pytest
import torch

from engine import sites
from engine.actor import Actor
from engine.capture import Capture
from engine.likelihoods.flow_sde import FlowSDE


def test_standard_preset_names_every_layer_of_both_towers(loaded):
    names = [site.name for site in Capture(loaded.policy, 1).sites]
    expected = [f"{s}.{i}.{k}" for s, k in SITES for i in range(6)]
    assert sorted(names) == sorted(expected)


SITES = (("vlm", "ffn_act"), ("vlm", "resid_post"), ("exp", "ffn_act"))


def test_values_equal_a_plain_recomputation(loaded, requests):
    """FFN mean and residual of layer 2, gathered by hand with padding left out."""
    actor = Actor(loaded, FlowSDE(loaded.policy.config.num_steps, 0.5))
    inputs, residual = [], []
    layers = sites.layers(loaded.policy, "vlm")
    handles = [
        layers[2].mlp.down_proj.register_forward_pre_hook(lambda _, a: inputs.append(a[0].clone())),
        layers[3].input_layernorm.register_forward_pre_hook(
            lambda _, a: residual.append(a[0].clone())
        ),
    ]
    try:
        decisions = actor.decide(requests)
    finally:
        for handle in handles:
            handle.remove()
    mask = sites.prefix_mask(loaded.policy, actor._batch(requests))
    assert int((~mask).sum()) > 0  # some instructions are padded
    for row, decision in enumerate(decisions):
        for captured, name in ((inputs, "vlm.2.ffn_act"), (residual, "vlm.2.resid_post")):
            by_hand = captured[0][row][mask[row]].mean(0).numpy()
            np.testing.assert_allclose(decision.activations[name], by_hand, rtol=1e-4, atol=1e-5)


def test_expert_values_average_denoising_steps_and_executed_rows(loaded, requests):
    actor = Actor(loaded, FlowSDE(loaded.policy.config.num_steps, 0.5), n_executed=4)
    seen = []
    module = sites.ffn_input(loaded.policy, "expert", 3)
    handle = module.register_forward_pre_hook(lambda _, a: seen.append(a[0].clone()))
    try:
        decision = actor.decide(requests)[0]
    finally:
        handle.remove()
    assert len(seen) == loaded.policy.config.num_steps
    by_hand = torch.stack(seen)[:, 0, :4].mean((0, 1)).numpy()
    np.testing.assert_allclose(decision.activations["exp.3.ffn_act"], by_hand, rtol=1e-4, atol=1e-6)


def test_capturing_changes_nothing(loaded, requests):
    """Chains with every hook installed equal those of a bare sampler."""
    from engine.likelihoods import flow_sde

    actor = Actor(loaded, FlowSDE(loaded.policy.config.num_steps, 0.5))
    hooked = np.stack([d.chain for d in actor.decide(requests)])
    initial, noise = actor._noise(requests)
    with torch.no_grad():
        velocity = actor._velocity(actor._batch(requests))
        bare, _ = flow_sde.sample(actor.sampler, velocity, initial, noise, actor.likelihood_dims)
    np.testing.assert_array_equal(hooked, bare.numpy())


def test_a_module_that_did_not_run_is_an_error(loaded):
    capture = Capture(loaded.policy, 1)
    mask = torch.ones(8, 49, dtype=torch.bool)
    raises = pytest.raises(RuntimeError, match="ran 0 times in a decision")
    with capture.recording(mask) as values, raises:
        values()


def test_units_are_in_natural_size(loaded, requests):
    """`calibrate`: over prefix tokens a hidden unit's root mean square is about 1."""
    inputs = []
    actor = Actor(loaded, FlowSDE(loaded.policy.config.num_steps, 0.5))
    module = sites.ffn_input(loaded.policy, "vlm", 1)
    handle = module.register_forward_pre_hook(lambda _, a: inputs.append(a[0].clone()))
    try:
        actor.decide(requests)
    finally:
        handle.remove()
    mask = sites.prefix_mask(loaded.policy, actor._batch(requests))
    rms = inputs[0][mask].square().mean(0).sqrt()
    assert 0.5 < float(rms.median()) < 1.5


def test_groups_and_single_tokens_equal_a_plain_recomputation(loaded, requests):
    """A token group's mean, every token, a window of denoising steps, both towers' residual."""
    wanted = (
        "vlm.2.ffn_act:tokens=language",
        "vlm.2.ffn_act:tokens=language,keep=each",
        "vlm.2.ffn_act:tokens=state",
        "expert.1.ffn_act:tokens=chunk,keep=each,denoise=1-3",
        "expert.5.resid_post",
    )
    actor = Actor(loaded, FlowSDE(loaded.policy.config.num_steps, 0.5), 2, wanted=wanted)
    vlm, expert, norm = [], [], []
    handles = [
        module.register_forward_pre_hook(lambda _, a, kept=kept: kept.append(a[0].clone()))
        for module, kept in (
            (sites.ffn_input(loaded.policy, "vlm", 2), vlm),
            (sites.ffn_input(loaded.policy, "expert", 1), expert),
            (loaded.policy.model.vlm_with_expert.lm_expert.norm, norm),
        )
    ]
    try:
        decisions = actor.decide(requests)
    finally:
        for handle in handles:
            handle.remove()
    start, stop = sites.prefix_groups(loaded.policy)["language"]
    mask = sites.prefix_mask(loaded.policy, actor._batch(requests))[:, start:stop]
    for row, decision in enumerate(decisions):
        got = decision.activations
        language = vlm[0][row, start:stop]
        np.testing.assert_allclose(
            got["vlm.2.ffn_act.language"], language[mask[row]].mean(0), rtol=1e-4, atol=1e-5
        )
        each = got["vlm.2.ffn_act.language.each"]
        np.testing.assert_array_equal(each[mask[row]], language[mask[row]])
        assert np.isnan(each[~mask[row]]).all()
        np.testing.assert_array_equal(got["vlm.2.ffn_act.state"], vlm[0][row, stop])
        np.testing.assert_array_equal(
            got["exp.1.ffn_act.chunk.each.denoise1-3"], torch.stack(expert)[1:3, row]
        )
        by_hand = torch.stack(norm)[:, row, :2].mean((0, 1))
        np.testing.assert_allclose(got["exp.5.resid_post"], by_hand, rtol=1e-4, atol=1e-5)
    shapes = {site.name: site.shape for site in actor.capture.sites}
    assert shapes == {name: value.shape for name, value in decisions[0].activations.items()}

import numpy as np
import pytest
import torch

from engine import sites
from engine.actor import Actor
from engine.hooks import edited, tapped
from engine.likelihoods.flow_sde import FlowSDE
from engine.steering import OPERATORS, check, steered
from traces.errors import UserError
from traces.intervention import Intervention, Site


def intervention(layer=1, operator="overwrite", neurons=(3, 50), alpha=8.0, **options):
    site = Site(options.pop("tower", "vlm"), layer, neurons, options.pop("vector", ()))
    return Intervention("test", operator, (site,), alpha, **options)


def act(loaded, requests, chosen):
    sampler = FlowSDE(loaded.policy.config.num_steps, 0.0)
    decisions = Actor(loaded, sampler, intervention=chosen).decide(requests)
    return np.stack([d.action for d in decisions])


def test_the_last_ffn_is_dead_bit_for_bit(loaded, requests):
    """Its layer is refused; forced past the check, it changes nothing at all."""
    last = len(sites.layers(loaded.policy, "vlm")) - 1
    assert not sites.reaches_action(loaded.policy, "vlm", last)
    sampler = FlowSDE(loaded.policy.config.num_steps, 0.0)
    actor = Actor(loaded, sampler)
    natural = np.stack([d.action for d in actor.decide(requests)])
    with steered(loaded.policy, intervention(last, alpha=50.0)):
        forced = np.stack([d.action for d in actor.decide(requests)])
    np.testing.assert_array_equal(natural, forced)


def test_every_live_ffn_moves_the_action(loaded, requests):
    natural = act(loaded, requests, None)
    for layer in range(len(sites.layers(loaded.policy, "vlm")) - 1):
        assert sites.reaches_action(loaded.policy, "vlm", layer)
        assert np.abs(act(loaded, requests, intervention(layer)) - natural).max() > 0


def test_adding_nothing_changes_nothing(loaded, requests):
    natural = act(loaded, requests, None)
    np.testing.assert_array_equal(
        natural, act(loaded, requests, intervention(operator="add", alpha=0.0))
    )
    np.testing.assert_array_equal(
        natural, act(loaded, requests, intervention(operator="scale", alpha=1.0))
    )


def test_token_groups_split_the_effect(loaded, requests):
    natural = act(loaded, requests, None)
    groups = sites.prefix_groups(loaded.policy)
    assert groups["image"][0] == 0
    assert groups["image"][1] == groups["language"][0]
    assert groups["language"][1] == groups["state"][0]
    effects = [
        np.abs(act(loaded, requests, intervention(token_groups=(name,))) - natural).max()
        for name in groups
    ]
    assert all(effect > 0 for effect in effects)
    assert len(set(effects)) == 3


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_follow_their_formula(name):
    h, v, c = torch.tensor([[-3.0, 0.5]]), torch.tensor([2.0, 1.0]), 0.75
    expected = {
        "overwrite": [1.5, 0.75],
        "add": [-1.5, 1.25],
        "scale": [-2.25, 0.375],
        "zero_ablation": [0.0, 0.0],
        "mean_ablation": [2.0, 1.0],
        "clamp": [-1.5, 0.5],
    }[name]
    assert OPERATORS[name](h, c, v).tolist() == [expected]


def test_hooks_are_gone_after_an_exception(loaded, requests):
    natural = act(loaded, requests, None)
    with pytest.raises(RuntimeError, match="stop"), steered(loaded.policy, intervention()):
        raise RuntimeError("stop")
    np.testing.assert_array_equal(natural, act(loaded, requests, None))


def test_a_hook_that_never_fires_is_an_error(loaded):
    """Nothing runs inside the block, as if lerobot had stopped calling the module."""
    block = steered(loaded.policy, intervention())
    block.__enter__()
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.down_proj never fired"):
        block.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (intervention(layer=5), r"layer 5 cannot change the action; layers that can: \[0, 1, 2"),
        (intervention(layer=17), "layer 17 does not exist"),
        (intervention(neurons=(9999,)), "neuron 9999 of layer 1 does not exist; 0 to 383"),
        (intervention(tower="expert"), "steers the vlm only"),
        (
            Intervention("d", "add_direction", (Site("vlm", 1, (), (1.0, 2.0)),), 1.0),
            "add_direction",
        ),
    ],
)
def test_what_cannot_act_is_refused_in_one_line(loaded, chosen, message):
    with pytest.raises(UserError, match=message) as caught:
        check(loaded.policy, chosen)
    assert "\n" not in str(caught.value)


def test_edits_get_a_copy_and_taps_count():
    layer = torch.nn.Linear(2, 2)
    x = torch.ones(1, 2)
    seen = []
    with edited(layer, lambda h: h.mul_(5)) as edits, tapped(layer, seen.append) as taps:
        layer(x)
        layer(x)
    layer(x)
    assert torch.equal(x, torch.ones(1, 2))
    assert (edits.count, taps.count, len(seen)) == (2, 2, 2)
    assert torch.equal(seen[0], torch.full((1, 2), 5.0))  # taps read what acts

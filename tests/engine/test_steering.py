from dataclasses import replace

import numpy as np
import pytest
import torch

from engine import sites
from engine.actor import BATCH, Actor
from engine.hooks import edited, rewritten, tapped
from engine.likelihoods.flow_sde import FlowSDE
from engine.steering import OPERATORS, RESIDUAL_OPERATORS, Steer, check, steered
from traces.errors import UserError
from traces.intervention import Intervention, Site

LAST = 5  # of six layers; nothing reads what its FFN writes


def intervention(layer=1, operator="overwrite", neurons=(3, 50), alpha=8.0, **options):
    site = Site(options.pop("tower", "vlm"), layer, neurons, options.pop("vector", ()))
    return Intervention("test", operator, (site,), alpha, **options)


def direction(operator="add_direction", tower="vlm", layer=2, alpha=5.0, width=128, **options):
    vector = np.random.default_rng(3).normal(size=width)
    site = Site(tower, layer, (), tuple(vector / np.linalg.norm(vector)))
    return Intervention("direction", operator, (site,), alpha, **options)


def act(loaded, requests, chosen=None, **options):
    sampler = FlowSDE(loaded.policy.config.num_steps, 0.0)
    decisions = Actor(loaded, sampler, 10, chosen, **options).decide(requests)
    return np.stack([d.action for d in decisions])


def whole_batch(loaded, requests):
    """The padding mask of a batch, and a function that steers all of it."""
    actor = Actor(loaded, FlowSDE(loaded.policy.config.num_steps, 0.0))
    mask = sites.prefix_mask(loaded.policy, actor._batch(requests))
    return mask, lambda *chosen: steered(
        loaded.policy, [Steer(one, tuple(range(BATCH))) for one in chosen], mask
    )


@pytest.fixture(scope="module")
def natural(loaded, requests):
    return act(loaded, requests)


def test_the_last_ffn_is_dead_bit_for_bit(loaded, requests, natural):
    """Refused, unless it is declared a null control; then it changes nothing at all."""
    assert not sites.reaches_action(loaded.policy, "vlm", LAST)
    for chosen in (
        intervention(LAST, alpha=50.0),
        replace(direction(layer=LAST), coefficient=50.0),
    ):
        with pytest.raises(UserError, match="layer 5 cannot change the action"):
            act(loaded, requests, chosen)
        null = replace(chosen, provenance={"control": "null"})
        np.testing.assert_array_equal(act(loaded, requests, null), natural)


def test_a_null_control_where_it_could_act_is_refused(loaded):
    live = intervention(1, provenance={"control": "null"})
    with pytest.raises(UserError, match=r"null control at vlm layer 1.*cannot: \[5\]"):
        check(loaded.policy, live, null_control=live.is_null_control)


def test_every_live_ffn_moves_the_action(loaded, requests, natural):
    for tower, layers in (("vlm", range(LAST)), ("expert", range(LAST + 1))):
        for layer in layers:
            assert sites.reaches_action(loaded.policy, tower, layer)
            chosen = intervention(layer, tower=tower)
            assert np.abs(act(loaded, requests, chosen) - natural).max() > 0


@pytest.mark.parametrize("tower", sites.TOWERS)
def test_what_changes_nothing_is_bit_equal(loaded, requests, natural, tower):
    width = 128 if tower == "vlm" else 96
    for chosen in (
        intervention(operator="add", alpha=0.0, tower=tower),
        intervention(operator="scale", alpha=1.0, tower=tower),
        intervention(operator="scale", neurons=(), alpha=1.0, tower=tower),
        intervention(operator="clamp_min", alpha=-1e9, tower=tower),
        direction(tower=tower, alpha=0.0, width=width),
        direction("project_out", tower=tower, alpha=0.0, width=width),
    ):
        np.testing.assert_array_equal(act(loaded, requests, chosen), natural)


def test_token_groups_split_the_effect(loaded, requests, natural):
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


def test_only_the_tokens_addressed_are_changed_and_padding_never(loaded, requests):
    mask, steering = whole_batch(loaded, requests)
    start, stop = sites.prefix_groups(loaded.policy)["language"]
    assert not mask[:, start:stop].all()
    for chosen in (intervention(token_groups=("language",)), direction(token_groups=("language",))):
        place = sites.place(
            loaded.policy, "vlm", chosen.sites[0].layer, chosen.kind(chosen.sites[0])
        )
        seen = []
        with tapped(
            loaded.policy.get_submodule(place.path), lambda h, seen=seen: seen.append(h.clone())
        ):
            act(loaded, requests)
        with (
            steering(chosen),
            tapped(
                loaded.policy.get_submodule(place.path), lambda h, seen=seen: seen.append(h.clone())
            ),
        ):
            act(loaded, requests)
        changed = (seen[0] != seen[1]).any(-1)
        expected = torch.zeros_like(mask)
        expected[:, start:stop] = mask[:, start:stop]
        assert torch.equal(changed, expected)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_follow_their_formula(name):
    h, c = torch.tensor([[-3.0, 0.5]]), 0.75
    v, m = torch.tensor([2.0, 1.0]), torch.tensor([0.5, 0.0])
    expected = {
        "overwrite": [2.0, 0.75],
        "add": [-1.5, 1.25],
        "scale": [-2.25, 0.375],
        "zero_ablation": [0.0, 0.0],
        "mean_ablation": [2.0, 1.0],
        "clamp": [-1.0, 0.5],
        "clamp_min": [2.0, 0.75],
        "clamp_max": [-3.0, 0.5],
        "patch": [2.0, 1.0],
    }[name]
    assert OPERATORS[name](h, c, v, m).tolist() == [expected]


@pytest.mark.parametrize("name", RESIDUAL_OPERATORS)
def test_residual_operators_follow_their_formula(name):
    x, d = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([3.0, 4.0])
    along = torch.tensor([[11 / 5], [-4 / 5]]) * d / 5  # (u . x) u
    expected = {
        "add_direction": 0.5 * d.expand(2, 2),
        "project_out": -0.5 * along,
        "patch": d - x,
    }[name]
    torch.testing.assert_close(RESIDUAL_OPERATORS[name](x, 0.5, d), expected)


@pytest.mark.parametrize("tower", sites.TOWERS)
def test_the_residual_stream_itself_is_written(loaded, requests, tower):
    """Read where the next layer reads it: x + c d after adding, then nothing along d."""
    width, layer = (128, 2) if tower == "vlm" else (96, 3)
    mask, steering = whole_batch(loaded, requests)
    module, _ = sites.residual_reader(loaded.policy, layer, tower)

    def residual(*chosen):
        seen = []
        with steering(*chosen), tapped(module, lambda x: seen.append(x.clone())):
            act(loaded, requests)
        return seen[0][mask] if tower == "vlm" else seen[0].flatten(0, 1)

    add = direction("add_direction", tower, layer, width=width)
    d = torch.tensor(add.sites[0].vector)
    before = residual()
    torch.testing.assert_close(residual(add), before + 5.0 * d, rtol=1e-4, atol=1e-4)
    out = direction("project_out", tower, layer, alpha=1.0, width=width)
    assert float((before @ d).abs().max()) > 0.1
    assert float((residual(out) @ d).abs().max()) < 1e-4


def test_hooks_compose_in_the_order_given(loaded, requests):
    mask, steering = whole_batch(loaded, requests)
    module, seen = sites.ffn_input(loaded.policy, "vlm", 1), []
    one, two = intervention(alpha=8.0), intervention(operator="add", alpha=1.0)
    for order in ((one, two), (two, one)):
        with steering(*order), tapped(module, lambda h: seen.append(h[mask][:, [3, 50]])):
            act(loaded, requests)
    assert (seen[0] == 9.0).all()
    assert (seen[1] == 8.0).all()


def test_the_denoise_window_counts_the_experts_calls(loaded, requests, natural):
    _, steering = whole_batch(loaded, requests)
    chosen = intervention(2, tower="expert", denoise_window=(1, 3))
    seen = []
    module = sites.ffn_input(loaded.policy, "expert", 2)
    with steering(chosen), tapped(module, lambda h: seen.append(bool((h[..., 3] == 8.0).all()))):
        act(loaded, requests)
        act(loaded, requests)
    assert seen == [False, True, True, False, False] * 2
    effects = {
        window: np.abs(
            act(loaded, requests, replace(chosen, denoise_window=window)) - natural
        ).max()
        for window in ((0, 1), (1, 3), None)
    }
    assert len(set(effects.values())) == 3


def test_rows_of_one_call_have_their_own_interventions(loaded, requests, natural):
    """Each row equals that row of a batch steered alike throughout, or not at all."""
    sampler = FlowSDE(loaded.policy.config.num_steps, 0.0)
    a, b, c = intervention(1), direction(), intervention(3, tower="expert")
    given = [(), (a,), (b,), (a, b), (c,), None, (a,), (b, c)]
    rows = [replace(r, interventions=g) for r, g in zip(requests, given, strict=True)]
    decisions = Actor(loaded, sampler, 10).decide(rows)
    assert [d.intervened for d in decisions] == [bool(g) for g in given]
    for row, chosen in enumerate(given):
        everywhere = [replace(r, interventions=chosen) for r in requests]
        alone = Actor(loaded, sampler, 10).decide(everywhere)[row]
        np.testing.assert_array_equal(decisions[row].chain, alone.chain)
    np.testing.assert_array_equal(decisions[0].action, natural[0])
    assert not np.array_equal(decisions[1].action, natural[1])


def test_a_window_acts_in_its_decisions_only(loaded, requests, natural):
    chosen = intervention(step_window=(4, 12), every=2)
    sampler = FlowSDE(loaded.policy.config.num_steps, 0.0)
    actor = Actor(loaded, sampler, 4, chosen)
    rows = [replace(r, step=4 * i, decision=i) for i, r in enumerate(requests)]
    assert [d.intervened for d in actor.decide(rows)] == [False, False, True] + [False] * 5
    with pytest.raises(UserError, match=r"steps 5 to 6 hold no decision.*every 4 steps"):
        Actor(loaded, sampler, 4, replace(chosen, step_window=(5, 7)))
    with pytest.raises(UserError, match="hold no decision"):
        Actor(loaded, sampler, 4, replace(chosen, step_window=(4, 8)))


def test_hooks_are_gone_after_an_exception(loaded, requests, natural):
    _, steering = whole_batch(loaded, requests)
    with pytest.raises(RuntimeError, match="stop"), steering(intervention(), direction()):
        raise RuntimeError("stop")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in loaded.policy.modules())
    np.testing.assert_array_equal(natural, act(loaded, requests))


def test_a_hook_that_never_fires_is_an_error(loaded, requests):
    """Nothing runs inside the block, as if lerobot had stopped calling the module."""
    _, steering = whole_batch(loaded, requests)
    for chosen, module in ((intervention(), "mlp.down_proj"), (direction(layer=1), "mlp")):
        block = steering(chosen)
        block.__enter__()
        with pytest.raises(UserError, match=rf"layers\.1\.{module} never fired"):
            block.__exit__(None, None, None)


def test_a_module_that_runs_too_often_is_an_error(loaded, requests):
    _, steering = whole_batch(loaded, requests)
    module = sites.ffn_input(loaded.policy, "expert", 2)
    block = steering(intervention(2, tower="expert"))
    block.__enter__()
    with torch.inference_mode():
        module(torch.zeros(BATCH, 10, module.in_features))
    with pytest.raises(RuntimeError, match="ran 1 times, expected 5 a decision"):
        block.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (intervention(layer=5), r"layer 5 cannot change the action; layers that can: \[0, 1, 2"),
        (intervention(layer=17), "layer 17 does not exist"),
        (intervention(neurons=(9999,)), "neuron 9999 of layer 1 does not exist; 0 to 383"),
        (intervention(tower="text"), "unknown tower 'text'"),
        (direction(width=96), "a direction of 96 numbers; the residual stream of the vlm has 128"),
        (intervention(denoise_window=(0, 2)), "needs a site in the expert"),
        (intervention(tower="expert", denoise_window=(0, 9)), "this policy has 5 steps"),
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
    plain = layer(x)
    with edited(layer, lambda h: h.mul_(5)) as edits, tapped(layer, seen.append) as taps:
        layer(x)
        layer(x)
    with rewritten(layer, lambda h: h.mul_(2)) as written:
        doubled = layer(x)
    layer(x)
    assert torch.equal(x, torch.ones(1, 2))
    assert (edits.count, taps.count, written.count, len(seen)) == (2, 2, 1, 2)
    assert torch.equal(seen[0], torch.full((1, 2), 5.0))  # taps read what acts
    assert torch.equal(doubled, 2 * plain)

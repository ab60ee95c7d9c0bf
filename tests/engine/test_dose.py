"""The size of an intervention against a plain recomputation from what a tap sees."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine import sites
from engine.actor import Actor
from engine.dose import measure
from engine.hooks import tapped
from engine.likelihoods.flow_sde import FlowSDE
from traces.intervention import Intervention, Site

NEURONS = (3, 50, 200)


def actor_of(loaded, intervention):
    return Actor(loaded, FlowSDE(loaded.policy.config.num_steps, 0.0), 10, intervention)


@pytest.fixture(scope="module")
def natural(loaded, requests):
    """Valid tokens of FFN 1 and the residual stream after it, and expert FFN 2, all rows."""
    actor = actor_of(loaded, None)
    modules = {
        "ffn": sites.ffn_input(loaded.policy, "vlm", 1),
        "resid": sites.residual_reader(loaded.policy, 1)[0],
        "expert": sites.ffn_input(loaded.policy, "expert", 2),
    }
    seen = {name: [] for name in modules}
    with (
        tapped(modules["ffn"], lambda h: seen["ffn"].append(h.clone())),
        tapped(modules["resid"], lambda h: seen["resid"].append(h.clone())),
        tapped(modules["expert"], lambda h: seen["expert"].append(h.clone())),
    ):
        mask = actor.unsteered(requests)
    return seen["ffn"][0][mask], seen["resid"][0][mask], torch.stack(seen["expert"])


def test_an_overwrite_is_told_in_sigma_and_as_relative_change(loaded, requests, natural):
    h, x, _ = natural
    chosen = Intervention("o", "overwrite", (Site("vlm", 1, NEURONS),), 8.0)
    dose = measure(actor_of(loaded, chosen), requests)
    part = h[:, list(NEURONS)].double()
    sigma = (8.0 - part.mean(0)) / part.std(0, correction=0)
    expected = (sigma.min(), sigma.median(), sigma.max())
    np.testing.assert_allclose(dose.sigma, [float(s) for s in expected], rtol=1e-4)
    weight = sites.ffn_input(loaded.policy, "vlm", 1).weight
    shift = (8.0 - part.float()) @ weight[:, list(NEURONS)].T
    ffn = shift.norm(dim=1) / (h @ weight.T).norm(dim=1)
    assert dose.ffn_change == pytest.approx(float(ffn.median()), rel=1e-4)
    assert dose.resid_change == pytest.approx(
        float((shift.norm(dim=1) / x.norm(dim=1)).median()), rel=1e-4
    )
    assert (dose.tokens, dose.neurons, dose.silent) == (len(h), 3, 0)
    assert "σ" in str(dose)
    assert dose.to_dict()["text"] == str(dose)


def test_a_direction_is_told_along_itself(loaded, requests, natural):
    _, x, _ = natural
    vector = np.random.default_rng(0).normal(size=128)
    chosen = Intervention("d", "add_direction", (Site("vlm", 1, (), tuple(vector)),), 0.5)
    dose = measure(actor_of(loaded, chosen), requests)
    d = torch.tensor(vector, dtype=torch.float32)
    spread = float((x @ (d / d.norm())).double().std(correction=0))
    assert dose.sigma[1] == pytest.approx(0.5 * float(d.norm()) / spread, rel=1e-3)
    assert dose.resid_change == pytest.approx(
        float((0.5 * d.norm() / x.norm(dim=1)).median()), rel=1e-4
    )
    assert dose.ffn_change is None


def test_the_expert_counts_the_steps_of_its_window(loaded, requests, natural):
    _, _, h = natural  # (K, B, H, N)
    site = Site("expert", 2, NEURONS)
    chosen = Intervention("e", "overwrite", (site,), 2.0, denoise_window=(1, 3))
    dose = measure(actor_of(loaded, chosen), requests)
    part = h[1:3].flatten(0, 2)[:, list(NEURONS)].double()
    sigma = (2.0 - part.mean(0)) / part.std(0, correction=0)
    np.testing.assert_allclose(dose.sigma[1], float(sigma.median()), rtol=1e-4)
    assert dose.tokens == 2 * 8 * 10


def test_a_window_has_the_dose_that_it_would_have_now(loaded, requests):
    assert measure(actor_of(loaded, None), requests) is None
    late = Intervention("o", "overwrite", (Site("vlm", 1, NEURONS),), 8.0, step_window=(10, 20))
    always = replace(late, step_window=None)
    assert measure(actor_of(loaded, late), requests) == measure(actor_of(loaded, always), requests)
    same = replace(late, operator="scale", coefficient=1.0)
    dose = measure(actor_of(loaded, same), requests)
    assert (dose.sigma[1], dose.resid_change) == (0.0, 0.0)

"""The squashed Gaussian head against numerical integration and the study's defects."""

import math

import pytest
import torch

from engine.likelihoods import gaussian
from engine.likelihoods.gaussian import Gaussian

DIMS = [0, 1]
MEAN, STD = [0.1, -0.2], [0.4, 1.5]


def velocity(x, t):
    return torch.sin(x) + t[:, None, None] * 0.5


def draw(settings, b=4, h=3, z=3):
    torch.manual_seed(0)
    initial, noise = torch.randn(b, h, z), torch.randn(settings.draws, b, h, z)
    return initial, noise


@pytest.mark.parametrize("euler_noise", [0.0, 0.2])
def test_scoring_a_stored_chunk_gives_its_log_prob_back(euler_noise):
    settings = Gaussian(3, MEAN, STD, euler_noise=euler_noise)
    initial, noise = draw(settings)
    kept = initial.clone(), noise.clone()
    chain, logp = gaussian.sample(settings, velocity, initial, noise, DIMS)
    again = gaussian.log_prob(settings, velocity, chain, DIMS, noise)
    torch.testing.assert_close(again, logp, rtol=0, atol=1e-9)
    assert logp.shape == (4, 3)
    assert torch.equal(initial, kept[0])
    assert torch.equal(noise, kept[1])


def test_new_noise_in_the_loss_breaks_the_ratio():
    """The study's second defect: the same weights, another initial noise, ratios far from 1."""
    settings = Gaussian(3, MEAN, STD)
    initial, noise = draw(settings)
    chain, logp = gaussian.sample(settings, velocity, initial, noise, DIMS)
    redrawn = chain.clone()
    redrawn[:, 0] = torch.randn_like(redrawn[:, 0])
    other = gaussian.log_prob(settings, velocity, redrawn, DIMS, noise)
    assert (other - logp).abs().mean() > 1


def test_the_density_of_the_action_integrates_to_one():
    """One dimension, over the whole interval (-1, 1) that tanh reaches."""
    settings = Gaussian(1, [0.1], [0.4], log_std=-1.0)
    a = torch.linspace(-0.9999, 0.9999, 40_001, dtype=torch.float64)
    u = (torch.atanh(a) - 0.1) / 0.4
    chain = torch.zeros(len(a), 2, 1, 1, dtype=torch.float64)
    chain[:, 1, 0, 0] = u
    noise = torch.zeros(2, len(a), 1, 1)
    density = gaussian.log_prob(settings, velocity, chain.float(), [0], noise)[:, 0].exp()
    assert float(torch.trapezoid(density.detach(), a)) == pytest.approx(1, abs=2e-3)


def test_the_correction_is_stable_far_out():
    settings = Gaussian(1, [0.0], [1.0])
    u = torch.tensor([[[-40.0]], [[0.0]], [[40.0]]])
    volume = settings.volume(u, [0])[:, 0]
    assert torch.isfinite(volume).all()
    assert float(volume[1]) == pytest.approx(0, abs=1e-12)
    assert float(volume[2]) == pytest.approx(2 * (math.log(2) - 40), abs=1e-9)


def test_gradients_reach_the_flow_and_the_spread():
    theta = torch.tensor(0.3, requires_grad=True)
    settings = Gaussian(3, MEAN, STD)

    def field(x, t):
        return theta * x + t[:, None, None]

    initial, noise = draw(settings)
    with torch.no_grad():
        chain, _ = gaussian.sample(settings, field, initial, noise, DIMS)
    gaussian.log_prob(settings, field, chain, DIMS, noise).sum().backward()
    assert theta.grad.abs() > 0
    assert settings.log_std.grad.abs().sum() > 0

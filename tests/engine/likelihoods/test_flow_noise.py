"""Flow-Noise against torch's own densities."""

import pytest
import torch

from engine.likelihoods import flow_noise
from engine.likelihoods.flow_noise import FlowNoise

DIMS = [0, 2]


class Velocity:
    """A smooth field with something like an expert's last hidden state."""

    def __call__(self, x, t):
        self.hidden = torch.cat([x.sin(), x.cos()], dim=-1)
        return torch.sin(x) + t[:, None, None] * 0.5


def draw(settings, b=4, h=3, z=4):
    torch.manual_seed(0)
    initial, noise = torch.randn(b, h, z), torch.randn(settings.draws, b, h, z)
    chain, logp = flow_noise.sample(settings, Velocity(), initial, noise, DIMS)
    return initial, noise, chain, logp


def learned(steps=3, low=0.1, high=0.4):
    settings = FlowNoise(steps, 8, 4, low, high)
    torch.nn.init.normal_(settings.net[-1].weight)
    return settings


def test_density_is_the_sum_over_steps():
    settings = learned()
    _, _, chain, logp = draw(settings)
    total = 0
    for x, mean, std in flow_noise.transitions(settings, Velocity(), chain):
        total = total + torch.distributions.Normal(mean, std).log_prob(x)[..., DIMS].sum(-1)
    torch.testing.assert_close(total.double(), logp, rtol=1e-5, atol=1e-4)
    again = flow_noise.log_prob(settings, Velocity(), chain, DIMS)
    assert torch.equal(again, logp)
    assert logp.dtype == torch.float64


def test_noise_stays_in_its_range_and_begins_in_the_middle():
    fresh, trained = FlowNoise(2, 8, 4, 0.1, 0.4), learned(2)
    hidden = 100 * torch.randn(50, 3, 8)
    torch.testing.assert_close(fresh.std(hidden), torch.full((50, 3, 4), 0.2))
    std = trained.std(hidden)
    assert std.min() >= 0.1 - 1e-6
    assert std.max() <= 0.4 + 1e-6
    assert std.std() > 0.05


def test_nothing_that_was_given_is_changed():
    settings = learned()
    initial, noise, _, _ = draw(settings)
    torch.manual_seed(0)
    assert torch.equal(initial, torch.randn_like(initial))
    assert torch.equal(noise, torch.randn_like(noise))


def test_the_net_learns():
    settings = learned()
    _, _, chain, _ = draw(settings)
    flow_noise.log_prob(settings, Velocity(), chain, DIMS).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in settings.parameters())


def test_settings_are_checked():
    with pytest.raises(ValueError, match="at least 1"):
        FlowNoise(0, 8, 4)
    with pytest.raises(ValueError, match="noise range"):
        FlowNoise(2, 8, 4, 0.5, 0.1)

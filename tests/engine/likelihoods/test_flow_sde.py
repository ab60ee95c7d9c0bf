"""The formulas of the flow-SDE, in float64 where they are compared."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lerobot.policies.common.flow_matching import euler_integrate

from engine.likelihoods.flow_sde import FlowSDE, log_prob, sample

DIMS = [0, 1, 2]


def velocity(x, t):
    """A smooth field that depends on x and t."""
    return torch.sin(x) + t[:, None, None] * 0.5


def draw(steps, b=4, h=3, z=5, seed=0):
    torch.manual_seed(seed)
    return torch.randn(b, h, z), torch.randn(steps, b, h, z)


@pytest.mark.parametrize("steps", [1, 4, 5, 10])
def test_without_noise_it_is_lerobots_sampler(steps):
    initial, noise = draw(steps)
    chain, logp = sample(FlowSDE(steps, 0.0), velocity, initial, noise, DIMS)
    expected = euler_integrate(velocity, initial, steps)
    assert torch.equal(chain[:, -1], expected)
    assert logp.isnan().all()


@given(st.integers(1, 12), st.floats(0.05, 1.5))
def test_scoring_a_stored_chain_gives_its_log_prob_back(steps, level):
    initial, noise = draw(steps)
    settings = FlowSDE(steps, level)
    chain, logp = sample(settings, velocity, initial, noise, DIMS)
    again = log_prob(settings, velocity, chain, DIMS)
    assert logp.dtype == torch.float64
    assert torch.equal(logp, again)


@given(st.integers(2, 8), st.integers(1, 8), st.integers(0, 20), st.floats(0.0, 0.8))
def test_chosen_steps_alone_are_stochastic(steps, chosen, seed, rho):
    """The others are Euler steps; the states after the first noise tell which were drawn."""
    settings = FlowSDE(steps, 0.7, rho, min(chosen, steps))
    initial, noise = draw(settings.draws, b=6, seed=seed)
    chain, logp = sample(settings, velocity, initial, noise, DIMS)
    kept = noise if settings.replays_noise else None
    again = log_prob(settings, velocity, chain, DIMS, kept)
    torch.testing.assert_close(logp, again, atol=1e-12, rtol=0)
    first = settings.first_stochastic(noise) if settings.chooses else torch.zeros(6, dtype=int)
    for i, t in enumerate(settings.times()):
        x = chain[:, i]
        euler = x - velocity(x, torch.full((6,), t)) / steps
        drawn = (first <= i) & (i < first + settings.stochastic_steps)
        assert torch.equal((chain[:, i + 1] != euler).any((1, 2)), drawn)


def test_each_choice_of_steps_is_equally_likely():
    settings = FlowSDE(4, 0.7, stochastic_steps=2)
    _, noise = draw(settings.draws, b=30_000)
    counts = np.bincount(settings.first_stochastic(noise), minlength=3)
    assert len(counts) == 3
    np.testing.assert_allclose(counts / 30_000, 1 / 3, atol=0.01)


def test_a_chosen_step_is_scored_with_one_call_of_the_policy():
    settings, calls = FlowSDE(4, 0.7, stochastic_steps=1), []
    initial, noise = draw(settings.draws)

    def counted(x, t):
        calls.append(t)
        return velocity(x, t)

    chain, _ = sample(settings, velocity, initial, noise, DIMS)
    log_prob(settings, counted, chain, DIMS, noise)
    assert len(calls) == 1


def test_published_standard_deviations():
    """pi_RL's table for a = 0.5 (K = 4)."""
    np.testing.assert_allclose(FlowSDE(4, 0.5).stds(), [0.5, 0.433, 0.25, 0.144], atol=5e-4)
    ten = [0.5, 0.474, 0.316, 0.242, 0.194, 0.158, 0.129, 0.104, 0.079, 0.053]
    np.testing.assert_allclose(FlowSDE(10, 0.5).stds(), ten, atol=6e-4)


def test_density_by_hand():
    """One step, one row, one dimension, written out."""
    settings = FlowSDE(1, 0.7)
    x, xi = torch.tensor([[[0.3]]]), torch.tensor([[[[0.5]]]])
    _, logp = sample(settings, velocity, x, xi, [0])
    std = settings.stds()[0]
    assert std == pytest.approx(0.7)
    expected = -0.5 * 0.5**2 - math.log(std) - 0.5 * math.log(2 * math.pi)
    assert float(logp[0, 0]) == pytest.approx(expected, abs=1e-6)


def test_density_matches_monte_carlo():
    """The closed form against a histogram of many transitions."""
    settings, n = FlowSDE(2, 0.6), 200_000
    torch.manual_seed(1)
    start = torch.full((n, 1, 1), 0.4)
    chain, logp = sample(settings, velocity, start, torch.randn(2, n, 1, 1), [0])
    first = chain[:, 1, 0, 0]
    low, high = 0.2, 0.3
    share = float(((first > low) & (first < high)).double().mean())
    std = settings.stds()[0]
    v = velocity(start[:1], torch.ones(1))
    mean = float(settings.mean(v, start[:1], 1.0))
    cdf = [0.5 * (1 + math.erf((edge - mean) / std / math.sqrt(2))) for edge in (low, high)]
    assert share == pytest.approx(cdf[1] - cdf[0], abs=4 * math.sqrt(share / n))
    assert torch.isfinite(logp).all()


def test_expected_score_is_zero():
    """E[d log p / d theta] = 0 under the policy that sampled."""
    theta, n = torch.tensor(0.3, requires_grad=True), 50_000
    settings = FlowSDE(3, 0.8)

    def field(x, t):
        return theta * x + t[:, None, None]

    torch.manual_seed(2)
    with torch.no_grad():
        chain, _ = sample(settings, field, torch.randn(n, 1, 1), torch.randn(3, n, 1, 1), [0])
    rows = log_prob(settings, field, chain, [0])
    total = rows.sum()
    (score,) = torch.autograd.grad(total, theta)
    per_row = []
    for part in chain[:200].split(1):
        (g,) = torch.autograd.grad(log_prob(settings, field, part, [0]).sum(), theta)
        per_row.append(float(g))
    assert abs(float(score) / n) < 5 * np.std(per_row) / math.sqrt(n)


def test_rows_and_padding_are_kept_apart():
    """Only the named entries count, and each chunk row has its own density."""
    initial, noise = draw(4)
    settings = FlowSDE(4, 0.5)
    chain, logp = sample(settings, velocity, initial, noise, DIMS)
    assert logp.shape == (4, 3)
    changed = chain.clone()
    changed[..., 4] += 10  # a dimension that is not scored (the field is elementwise)
    assert torch.equal(log_prob(settings, velocity, changed, DIMS), logp)
    changed = chain.clone()
    changed[:, -1, 2, 0] += 1
    rescored = log_prob(settings, velocity, changed, DIMS)
    assert torch.equal(rescored[:, :2], logp[:, :2])
    assert not torch.equal(rescored[:, 2], logp[:, 2])


def test_stored_noise_is_not_touched():
    initial, noise = draw(4)
    kept = initial.clone(), noise.clone()
    sample(FlowSDE(4, 0.5), velocity, initial, noise, DIMS)
    assert torch.equal(initial, kept[0])
    assert torch.equal(noise, kept[1])


def test_marginals_are_those_of_the_ode():
    """For x_0 ~ N(m, s^2) the exact field is known; the SDE must arrive at the same law."""
    m, s, n, steps = 0.7, 0.4, 40_000, 100

    def exact(x, t):
        t = t[:, None, None]
        var = t**2 + (1 - t) ** 2 * s**2
        x0 = m + (1 - t) * s**2 / var * (x - (1 - t) * m)
        noise = t / var * (x - (1 - t) * m)
        return noise - x0

    torch.manual_seed(3)
    chain, _ = sample(
        FlowSDE(steps, 0.5), exact, torch.randn(n, 1, 1), torch.randn(steps, n, 1, 1), [0]
    )
    assert float(chain[:, -1].mean()) == pytest.approx(m, abs=0.02)
    assert float(chain[:, -1].std()) == pytest.approx(s, abs=0.02)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="at least 1"):
        FlowSDE(0)
    with pytest.raises(ValueError, match="noise_level"):
        FlowSDE(4, -1.0)


@pytest.mark.parametrize("rho", [0.3, 0.9])
def test_correlated_noise_has_the_covariance_that_was_asked_for(rho):
    settings = FlowSDE(2, 0.5, rho)
    torch.manual_seed(4)
    white = torch.randn(60_000, 5, 1)
    rows = settings.correlated(white)[..., 0]
    expected = rho ** np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    np.testing.assert_allclose(np.cov(rows.T), expected, atol=0.03)
    torch.testing.assert_close(settings.whitened(settings.correlated(white)), white)


def test_density_of_correlated_rows_is_the_multivariate_normals():
    """Rows one by one against torch's joint density; any prefix of the rows is a marginal."""
    settings, rho = FlowSDE(1, 0.7, 0.8), 0.8
    initial, noise = draw(1, b=3, h=4, z=2)
    chain, logp = sample(settings, velocity, initial, noise, [0, 1])
    mean = settings.mean(velocity(initial, torch.ones(3)), initial, 1.0).double()
    place = torch.arange(4)
    cov = settings.stds()[0] ** 2 * rho ** (place[:, None] - place).abs().double()
    for n in (1, 2, 4):
        normal = torch.distributions.MultivariateNormal(torch.zeros(n).double(), cov[:n, :n])
        off = (chain[:, 1].double() - mean)[:, :n]
        expected = normal.log_prob(off.transpose(1, 2)).sum(1)
        torch.testing.assert_close(logp[:, :n].sum(1), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(log_prob(settings, velocity, chain, [0, 1]), logp)


def test_without_correlation_nothing_changes():
    initial, noise = draw(4)
    one = sample(FlowSDE(4, 0.5), velocity, initial, noise, DIMS)
    other = sample(FlowSDE(4, 0.5, 0.0), velocity, initial, noise, DIMS)
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


def test_correlated_marginals_are_those_of_the_ode():
    """Rows with the law N(m, s^2) each: the SDE must arrive there, whatever the correlation."""
    m, s, n, steps = 0.7, 0.4, 20_000, 200

    def exact(x, t):
        t = t[:, None, None]
        var = t**2 + (1 - t) ** 2 * s**2
        x0 = m + (1 - t) * s**2 / var * (x - (1 - t) * m)
        return t / var * (x - (1 - t) * m) - x0

    torch.manual_seed(5)
    settings = FlowSDE(steps, 0.5, 0.7)
    chain, _ = sample(settings, exact, torch.randn(n, 3, 1), torch.randn(steps, n, 3, 1), [0])
    last = chain[:, -1, :, 0]
    np.testing.assert_allclose(last.mean(0), m, atol=0.02)
    np.testing.assert_allclose(np.cov(last.T), s**2 * np.eye(3), atol=0.01)

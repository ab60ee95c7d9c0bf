"""Advantages, the clipped loss and its diagnostics, by hand and as properties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.grpo import Clip, advantages, diagnostics, gaussian_kl, surrogate

CLIP = Clip(0.2, 0.28, 3.0)


def loss(log_ratio, advantage):
    one = torch.tensor([float(log_ratio)], dtype=torch.float64, requires_grad=True)
    value = surrogate(one, torch.tensor([float(advantage)], dtype=torch.float64), CLIP)[0]
    value.backward()
    return value.item(), one.grad.item()


def test_group_advantages_by_hand():
    """Three of four succeed: mean 3/4, std (ddof 1) 1/2."""
    np.testing.assert_allclose(
        advantages(np.array([1, 1, 1, 0.0]), "group"), [0.5, 0.5, 0.5, -1.5], atol=1e-5
    )
    np.testing.assert_allclose(
        advantages(np.array([1, 1, 1, 0.0]), "rloo"), [1 / 3, 1 / 3, 1 / 3, -1]
    )
    np.testing.assert_allclose(
        advantages(np.array([1, 1, 1, 0.0]), "state", 0.25), [0.75, 0.75, 0.75, -0.25]
    )


@given(st.lists(st.integers(0, 1), min_size=2, max_size=16))
def test_rloo_is_the_return_minus_the_mean_of_the_others(returns):
    returns = np.array(returns, float)
    others = (returns.sum() - returns) / (len(returns) - 1)
    np.testing.assert_allclose(advantages(returns, "rloo"), returns - others, atol=1e-12)


@given(st.integers(2, 16), st.floats(-2, 2), st.sampled_from(["group", "rloo", "state"]))
def test_a_group_of_equal_returns_teaches_nothing(size, value, kind):
    np.testing.assert_allclose(advantages(np.full(size, value), kind), 0, atol=1e-8)


def test_a_group_of_one_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        advantages(np.array([1.0]), "group")


def test_clip_higher_and_dual_clip_by_hand():
    assert loss(0, 1) == pytest.approx((-1, -1))
    assert loss(math.log(1.1), 2) == pytest.approx((-2.2, -2.2))
    assert loss(math.log(1.27), 1) == pytest.approx((-1.27, -1.27))  # above 1.2, below 1.28
    assert loss(math.log(1.5), 1) == pytest.approx((-1.28, 0))
    assert loss(math.log(0.5), 1) == pytest.approx((-0.5, -0.5))  # pessimistic: not clipped
    assert loss(math.log(0.5), -1) == pytest.approx((0.8, 0))
    assert loss(math.log(2), -1) == pytest.approx((2, 2))
    assert loss(math.log(5), -1) == pytest.approx((3, 0))  # dual clip


@pytest.mark.parametrize("log_ratio", [-1e6, 1e6])
@pytest.mark.parametrize("advantage", [-1, 1])
def test_no_ratio_makes_the_loss_infinite(log_ratio, advantage):
    value, gradient = loss(log_ratio, advantage)
    assert math.isfinite(value)
    assert math.isfinite(gradient)


def test_n_samples_have_n_losses():
    rows = torch.zeros(5), torch.ones(5)
    assert surrogate(*rows, CLIP).shape == (5,)


def test_kl_of_gaussians_against_torch():
    rng = np.random.default_rng(0)
    m, n = (torch.from_numpy(rng.normal(size=50)) for _ in range(2))
    s, t = (torch.from_numpy(rng.uniform(0.1, 2, 50)) for _ in range(2))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(m, s), normal(n, t))
    torch.testing.assert_close(gaussian_kl(m, s, n, t), expected)


def test_diagnostics_of_an_unchanged_policy():
    found = diagnostics(np.zeros(4), np.array([1, -1, 1, -1.0]), CLIP)
    assert found["ratio"] == found["ess"] == 1
    assert found["approx_kl"] == found["clip_fraction"] == 0


def test_diagnostics_count_what_is_clipped():
    log_ratio = np.log([1.5, 0.5, 1.5, 5.0])
    found = diagnostics(log_ratio, np.array([1, -1, -1, -1.0]), CLIP)
    assert found["clip_fraction_high"] == found["clip_fraction_low"] == 0.25
    assert found["dual_clip_fraction"] == 0.25
    assert found["ratio_max"] == pytest.approx(5)


def test_kl_estimators_converge_on_the_divergence():
    """Samples from the old Gaussian, ratios to one whose mean moved by 0.3: KL = 0.045."""
    x = np.random.default_rng(1).normal(size=400_000)
    log_ratio = -((x - 0.3) ** 2) / 2 + x**2 / 2
    found = diagnostics(log_ratio, np.zeros(len(x)), CLIP)
    assert found["approx_kl"] == pytest.approx(0.045, abs=1e-3)
    assert found["approx_kl_k1"] == pytest.approx(0.045, abs=3e-3)

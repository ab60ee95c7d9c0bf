"""How a flow policy samples a chunk and scores it; `sample` returns all that scoring needs.

A likelihood is a module with `sample(settings, velocity, initial, noise, dims)`, which returns the
chain and its log-probability, `log_prob(settings, velocity, chain, dims, noise)`, which gives it
again, and `transitions(settings, velocity, chain, noise)`, which yields the Gaussian steps of a
stored chain. The settings name their module.
"""

import math

import torch
from torch import Tensor


def sample(settings, velocity, initial: Tensor, noise: Tensor, dims: list[int]):
    """Run the chain of any likelihood: (B, K+1, H, Z), and log_prob (B, H) float64."""
    return settings.module.sample(settings, velocity, initial, noise, dims)


def log_prob(settings, velocity, chain: Tensor, dims: list[int], noise: Tensor | None = None):
    """(B, H) float64 log-probability of each action row of a stored chain under `velocity`.

    Args:
        settings: of any likelihood.
        velocity: the policy.
        chain: as `sample` returned it.
        dims: entries of Z that count.
        noise: as `sample` was given it, where `settings.replays_noise`.
    """
    return settings.module.log_prob(settings, velocity, chain, dims, noise)


def scored(settings, velocity, chain: Tensor, dims: list[int], noise: Tensor | None = None):
    """`log_prob` of a likelihood whose transitions are independent in every entry."""
    total = chain.new_zeros((len(chain), chain.shape[2]), dtype=torch.float64)
    for x, mean, std in settings.module.transitions(settings, velocity, chain, noise):
        total += log_density(x, mean, std, dims)
    return total


def log_density(x: Tensor, mean: Tensor, std: Tensor | float, dims: list[int]) -> Tensor:
    """Sum over `dims` of log N(x; mean, std^2), reduced in float64, (B, H).

    Args:
        x: (B, H, Z).
        mean: (B, H, Z).
        std: a number, or a tensor that broadcasts to (B, H, Z).
        dims: entries of Z.
    """
    if isinstance(std, Tensor):
        std = std.expand_as(mean)[..., dims].double()
        log_std = std.log()
    else:
        log_std = math.log(std)
    z = (x[..., dims].double() - mean[..., dims].double()) / std
    return (-0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

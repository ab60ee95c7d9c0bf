"""The study's head: a Gaussian around the flow's own action, squashed by tanh.

    mu    = s x_K(x_0, xi; theta) + m       the action the flow arrives at, un-normalised
    u     = mu + sigma xi',   a = tanh(u)   sigma = exp(log_std), one learned number a dimension
    log p = log N(u; mu, sigma^2) - log(1 - tanh(u)^2),   log(1 - tanh(u)^2)
          = 2 (log 2 - u - softplus(-2 u))

s and m un-normalise actions. With `euler_noise` e the walk is x <- x - delta (v + e xi). Initial
noise x_0, Euler noise xi and u are stored (xi by its key) and replayed when the chunk is scored
again, so that both densities are conditioned on the same noise and the ratio is exact; the study
drew new noise in its loss. The squash depends on u alone and cancels in the ratio. Scoring
differentiates through all K steps.
"""

import math
import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.likelihoods import log_density, scored


class Gaussian(nn.Module):
    """Settings of the head and its learned standard deviations.

    Args:
        steps: K.
        mean: (A,) and
        std: (A,), what un-normalises actions.
        log_std: where every dimension begins; the study's is -2, so sigma = 0.135.
        euler_noise: e; the study's is 0.1 to 0.2 (which its code never used).
    """

    module = sys.modules[__name__]
    name = "gaussian"
    replays_noise = True
    deterministic = False

    def __init__(
        self,
        steps: int,
        mean: list[float],
        std: list[float],
        log_std: float = -2.0,
        euler_noise: float = 0.0,
    ):
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        self.steps, self.euler_noise = steps, euler_noise
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(std, dtype=torch.float32))
        self.log_std = nn.Parameter(torch.full((len(mean),), log_std))

    @property
    def draws(self) -> int:
        """Arrays of transition noise that a decision takes: K Euler steps and the head."""
        return self.steps + 1

    def times(self) -> list[float]:
        """t_0 .. t_{K-1}."""
        return [1.0 - i / self.steps for i in range(self.steps)]

    def stds(self) -> list[float]:
        """Noise of each step as the trace has it: only the last one has a density."""
        return [0.0] * (self.steps - 1) + [float(self.log_std.detach().exp().mean())]

    def normalised_std(self, width: int) -> Tensor:
        """(Z,) sigma in units of the normalised action; 1 where there is no action."""
        std = self.log_std.exp() / self.scale.clamp_min(1e-6)
        return torch.cat([std, std.new_ones(width - len(std))])

    def squash(self, action: Tensor) -> Tensor:
        """From u to the action."""
        return action.tanh()

    def volume(self, u: Tensor, dims: list[int]) -> Tensor:
        """(B, H) float64: log of how much un-normalising and tanh stretch a volume at u."""
        scale = self.scale[dims].double()
        real = u[..., dims].double() * scale + self.mean[dims].double()
        return (2 * (math.log(2) - real - F.softplus(-2 * real)) + scale.log()).sum(-1)


def sample(
    settings: Gaussian, velocity, initial: Tensor, noise: Tensor, dims: list[int]
) -> tuple[Tensor, Tensor]:
    """Run the flow, then draw around its end.

    Args:
        settings: the head.
        velocity: the policy.
        initial: (B, H, Z) standard normal; not modified.
        noise: (K + 1, B, H, Z) standard normal, K for the Euler steps and one for the head.
        dims: entries of Z that enter the log-probability, each one an action dimension.

    Returns:
        chain (B, K+1, H, Z) float32, whose last state is u, normalised as actions are, and
        log_prob (B, H) float64.
    """
    chain = _flow(settings, velocity, initial, noise)
    mean, std = chain[-1], settings.normalised_std(initial.shape[-1])
    chain[-1] = mean + std * noise[-1]
    log_prob = log_density(chain[-1], mean, std, dims) - settings.volume(chain[-1], dims)
    return torch.stack(chain, dim=1), log_prob


def log_prob(settings: Gaussian, velocity, chain: Tensor, dims: list[int], noise: Tensor) -> Tensor:
    """(B, H) float64 log-probability of each stored action row under `velocity`."""
    rows = scored(settings, velocity, chain, dims, noise)
    return rows - settings.volume(chain[:, -1], dims)


def transitions(
    settings: Gaussian, velocity, chain: Tensor, noise: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The one Gaussian step: u, its mean under `velocity` from the stored noise, and its spread."""
    mean = _flow(settings, velocity, chain[:, 0], noise)[-1]
    yield chain[:, -1], mean, settings.normalised_std(chain.shape[-1])


def _flow(settings: Gaussian, velocity, initial: Tensor, noise: Tensor) -> list[Tensor]:
    """The states of the walk, K + 1."""
    states, delta = [initial], 1.0 / settings.steps
    for i, t in enumerate(settings.times()):
        x = states[-1]
        v = velocity(x, torch.full((len(x),), t, dtype=torch.float32))
        if settings.euler_noise:
            v = v + settings.euler_noise * noise[i]
        states.append(x + (-delta) * v)
    return states

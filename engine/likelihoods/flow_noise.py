"""Flow-Noise: Euler steps of the flow with a learned noise, and the density of the whole chain.

    mean_i  = x_i - delta v(x_i, t_i)
    std_i   = exp(lv_i / 2),   lv_i = l_min + (l_max - l_min) (tanh(net(h_i)) + 1) / 2
    x_{i+1} = mean_i + std_i xi,   xi ~ N(0, I)
    log p   = sum_i log N(x_{i+1}; mean_i, std_i^2)

h_i is what the action expert hands to its last projection, l_min and l_max the logs of the smallest
and largest variance (ReinFlow, arXiv:2505.22094; pi_RL, arXiv:2510.25889). The density of x_0 ~
N(0, I) has no parameter and cancels. The net trains with the policy and is thrown away afterwards:
the checkpoint acts without noise.

Where we depart from them: log p is the sum over steps (pi_RL takes the mean over K + 1 terms, so
its ratio is a root of the ratio), and sampling and scoring use the same times (ReinFlow's differ).
The net starts at zero, so that training begins with the middle of the range everywhere. The range
is as narrow as theirs, a factor of two, and twice as high (0.16 to 0.32 instead of 0.08 to 0.16):
the less noise, the smaller the step that the clip allows; the wider the range, the more training
success comes from having less noise, which the policy that acts without any does not gain from.
"""

import math
import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from engine.likelihoods import log_density, scored


class FlowNoise(nn.Module):
    """Settings of the sampler and its noise net.

    Args:
        steps: K.
        hidden: width of the action expert.
        width: Z.
        low: smallest standard deviation, in units of the normalised action.
        high: largest one.
    """

    module = sys.modules[__name__]
    name = "flow-noise"
    replays_noise = False
    deterministic = False

    def __init__(self, steps: int, hidden: int, width: int, low: float = 0.16, high: float = 0.32):
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if not 0 < low <= high:
            raise ValueError(f"the noise range must satisfy 0 < low <= high, got {low}, {high}")
        self.steps, self.low, self.high = steps, low, high
        self.net = nn.Sequential(
            nn.Linear(hidden, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, width)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for layer in self.net[::2]:
                nn.init.orthogonal_(layer.weight)
                nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.net[-1].weight)

    @property
    def draws(self) -> int:
        """Arrays of transition noise that a decision takes."""
        return self.steps

    def times(self) -> list[float]:
        """t_0 .. t_{K-1}."""
        return [1.0 - i / self.steps for i in range(self.steps)]

    def stds(self) -> list[float]:
        """What the trace says of each step: the middle of the range, where training begins."""
        return [math.sqrt(self.low * self.high)] * self.steps

    def std(self, hidden: Tensor) -> Tensor:
        """(B, H, Z) from what the expert hands to its last projection, (B, H, width)."""
        share = (self.net(hidden).tanh() + 1) / 2
        low, high = math.log(self.low), math.log(self.high)
        return (low + (high - low) * share).exp()


def sample(
    settings: FlowNoise, velocity, initial: Tensor, noise: Tensor, dims: list[int]
) -> tuple[Tensor, Tensor]:
    """Run the chain.

    Args:
        settings: steps and noise net.
        velocity: the policy; its `hidden` is read after each call.
        initial: (B, H, Z) standard normal; not modified.
        noise: (K, B, H, Z) standard normal.
        dims: entries of Z that enter the log-probability.

    Returns:
        chain (B, K+1, H, Z) float32 and log_prob (B, H) float64.
    """
    x, chain = initial, [initial]
    log_prob = initial.new_zeros(initial.shape[:2], dtype=torch.float64)
    for i, t in enumerate(settings.times()):
        mean, std = _transition(settings, velocity, x, t)
        x = mean + std * noise[i]
        log_prob += log_density(x, mean, std, dims)
        chain.append(x)
    return torch.stack(chain, dim=1), log_prob


log_prob = scored


def transitions(
    settings: FlowNoise, velocity, chain: Tensor, noise: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """State, mean and standard deviation of each step of a stored chain, (B, H, Z) each."""
    for i, t in enumerate(settings.times()):
        mean, std = _transition(settings, velocity, chain[:, i], t)
        yield chain[:, i + 1], mean, std


def _transition(settings: FlowNoise, velocity, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
    v = velocity(x, torch.full((len(x),), t, dtype=torch.float32))
    return x - v / settings.steps, settings.std(velocity.hidden)

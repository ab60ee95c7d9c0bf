"""Flow-SDE: the flow as a chain of Gaussian transitions, each with a closed-form density.

Time runs from 1 (noise) to 0 (action), t_i = 1 - i/K, delta = 1/K. With the velocity v(x, t) and
noise level a, a transition is (Flow-GRPO, arXiv:2505.05470, in pi_RL's discretisation,
arXiv:2510.25889):

    sigma_i = a sqrt(t_i / (1 - t_i)),  with t_1 in place of t_0 = 1 in the denominator
    mean_i  = x - delta v - sigma_i^2 delta / (2 t_i) (x + (1 - t_i) v)
    std_i   = sigma_i sqrt(delta)
    x_{i+1} = mean_i + std_i xi,   xi ~ N(0, I)

which has the marginals of the ODE x' = v. With a = 0 it is lerobot's Euler sampler, step for step.

All steps are stochastic, or only `stochastic_steps` neighbouring ones, and the others are Euler
steps: one is pi_RL's choice, a window that of MixGRPO (arXiv:2507.21802). Which ones is drawn for
each decision from its own noise (pi_RL draws one for the whole batch), and only these are scored:
the states before them count as given, so an update asks the policy once for each of them.

Where we depart from pi_RL: every step is stochastic by default, so that each recorded action row
has the density of its whole chain; and the noise of neighbouring rows may be correlated,
xi ~ N(0, C) with C_ij = rho^|i-j|. White noise over the rows of a chunk averages out in the hand's
path; correlated noise moves the whole path, so that episodes of a group differ in what they try.
The marginals stay those of the ODE when the score term is multiplied by C too, and the density
factors row by row, each given the rows before it:

    log p = sum_j log N(x_j; mean_j + rho (x_{j-1} - mean_{j-1}), std^2 (1 - rho^2))

with the first row as it is without correlation.
"""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.likelihoods import log_density

Velocity = Callable[[Tensor, Tensor], Tensor]  # x (B, H, Z), t (B,) -> v (B, H, Z)


@dataclass(frozen=True)
class FlowSDE:
    """Settings of the sampler."""

    steps: int
    """K, denoising steps"""
    noise_level: float = 0.5
    """a; 0 is the deterministic ODE, which has no density"""

    correlation: float = 0.0
    """rho, of the noise of neighbouring action rows"""

    stochastic_steps: int = 0
    """how many neighbouring steps of a decision are stochastic; 0: all"""

    module = sys.modules[__name__]

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if not 0 <= self.noise_level <= 2:
            raise ValueError(f"noise_level must lie in [0, 2], got {self.noise_level}")
        if not 0 <= self.correlation < 1:
            raise ValueError(f"correlation must lie in [0, 1), got {self.correlation}")
        if not 0 <= self.stochastic_steps <= self.steps:
            raise ValueError(
                f"stochastic_steps must lie in 0 to {self.steps}, got {self.stochastic_steps}"
            )

    @property
    def name(self) -> str:
        """As the trace calls it."""
        return "ode" if self.deterministic else "flow-sde"

    @property
    def deterministic(self) -> bool:
        """Whether the chain has no noise, and so no log-probability."""
        return self.noise_level == 0

    @property
    def chooses(self) -> bool:
        """Whether it is drawn which steps are stochastic."""
        return 0 < self.stochastic_steps < self.steps and not self.deterministic

    @property
    def replays_noise(self) -> bool:
        """Whether scoring needs the noise: it says which steps were stochastic."""
        return self.chooses

    @property
    def draws(self) -> int:
        """Arrays of transition noise that a decision takes, the last one for the choice."""
        return self.steps + self.chooses

    def first_stochastic(self, noise: Tensor) -> Tensor:
        """(B,) the first stochastic step of each decision, all possible ones equally likely."""
        choices = self.steps - self.stochastic_steps + 1
        uniform = torch.special.ndtr(noise[-1, :, 0, 0].double())
        return (uniform * choices).long().clamp(max=choices - 1)

    def times(self) -> list[float]:
        """t_0 .. t_{K-1}."""
        return [1.0 - i / self.steps for i in range(self.steps)]

    def stds(self) -> list[float]:
        """std_0 .. std_{K-1}, in units of the normalised action."""
        delta = 1.0 / self.steps
        return [self._sigma(t) * math.sqrt(delta) for t in self.times()]

    def _sigma(self, t: float) -> float:
        return self.noise_level * math.sqrt(t / (1.0 - min(t, 1.0 - 1.0 / self.steps)))

    def mean(self, velocity: Tensor, x: Tensor, t: float) -> Tensor:
        """Mean of the transition from x at time t, (B, H, Z)."""
        delta = 1.0 / self.steps
        if self.deterministic:
            return x + (-delta) * velocity
        drift = self._sigma(t) ** 2 * delta / (2 * t)
        return x - delta * velocity - drift * self._mixed(x + (1 - t) * velocity)

    def _mixed(self, rows: Tensor) -> Tensor:
        """C times the rows of a chunk, (B, H, Z)."""
        if self.correlation == 0:
            return rows
        place = torch.arange(rows.shape[1])
        return self.correlation ** (place[:, None] - place).abs() @ rows

    def correlated(self, noise: Tensor) -> Tensor:
        """White noise (B, H, Z) to noise with covariance C over the rows."""
        rho = self.correlation
        if rho == 0:
            return noise
        rows = [noise[:, 0]]
        for row in noise[:, 1:].unbind(1):
            rows.append(rho * rows[-1] + math.sqrt(1 - rho**2) * row)
        return torch.stack(rows, dim=1)

    def whitened(self, deviation: Tensor) -> Tensor:
        """The inverse of `correlated`: of each row what the rows before it do not say."""
        rho = self.correlation
        if rho == 0:
            return deviation
        fresh = (deviation[:, 1:] - rho * deviation[:, :-1]) / math.sqrt(1 - rho**2)
        return torch.cat([deviation[:, :1], fresh], dim=1)

    def stretch(self, rows: int) -> Tensor:
        """(H,) log of the factor by which `correlated` scales each row, float64."""
        logs = torch.full((rows,), 0.5 * math.log(1 - self.correlation**2), dtype=torch.float64)
        logs[0] = 0.0
        return logs


def sample(
    settings: FlowSDE, velocity: Velocity, initial: Tensor, noise: Tensor, dims: list[int]
) -> tuple[Tensor, Tensor]:
    """Run the chain.

    Args:
        settings: number of steps and noise level.
        velocity: the policy.
        initial: (B, H, Z) standard normal; not modified.
        noise: (K, B, H, Z) standard normal.
        dims: entries of Z that enter the log-probability.

    Returns:
        chain (B, K+1, H, Z) float32, whose last state is the normalised action chunk; and
        log_prob (B, H) float64 per action row, NaN when deterministic.
    """
    x, chain = initial, [initial]
    log_prob = initial.new_zeros(initial.shape[:2], dtype=torch.float64)
    first = settings.first_stochastic(noise) if settings.chooses else None
    for i, (t, std) in enumerate(zip(settings.times(), settings.stds(), strict=True)):
        v = velocity(x, torch.full((len(x),), t, dtype=torch.float32))
        mean = settings.mean(v, x, t)
        moved = mean if settings.deterministic else mean + std * settings.correlated(noise[i])
        density = _log_density(settings, moved, mean, std, dims)
        if first is not None:
            drawn = (first <= i) & (i < first + settings.stochastic_steps)
            moved = torch.where(drawn[:, None, None], moved, x - v / settings.steps)
            density = torch.where(drawn[:, None], density, 0.0)
        x = moved
        log_prob += density
        chain.append(x)
    return torch.stack(chain, dim=1), log_prob


def log_prob(
    settings: FlowSDE,
    velocity: Velocity,
    chain: Tensor,
    dims: list[int],
    noise: Tensor | None = None,
) -> Tensor:
    """(B, H) float64 log-probability of each action row of a stored chain under `velocity`."""
    total = chain.new_zeros((len(chain), chain.shape[2]), dtype=torch.float64)
    for x, mean, std in transitions(settings, velocity, chain, noise):
        total += _log_density(settings, x, mean, std, dims)
    return total


def transitions(
    settings: FlowSDE, velocity: Velocity, chain: Tensor, noise: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor, float | Tensor]]:
    """State and mean (B, H, Z), and standard deviation, of each stochastic step of a chain.

    Args:
        settings: how the chain was drawn.
        velocity: the policy.
        chain: (B, K+1, H, Z).
        noise: as `sample` was given it, where `settings.replays_noise`.
    """
    if settings.chooses:
        yield from _chosen_transitions(settings, velocity, chain, noise)
        return
    for i, (t, std) in enumerate(zip(settings.times(), settings.stds(), strict=True)):
        v = velocity(chain[:, i], torch.full((len(chain),), t, dtype=torch.float32))
        yield chain[:, i + 1], settings.mean(v, chain[:, i], t), std


def _chosen_transitions(
    settings: FlowSDE, velocity: Velocity, chain: Tensor, noise: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """As `transitions`, where the rows of a batch have different steps."""
    times = torch.tensor(settings.times())
    stds = torch.tensor(settings.stds(), dtype=torch.float64)
    rows, first = torch.arange(len(chain)), settings.first_stochastic(noise)
    for step in range(settings.stochastic_steps):
        i = first + step  # (B,)
        x, v = chain[rows, i], velocity(chain[rows, i], times[i])
        mean = torch.empty_like(x)
        for k, t in enumerate(settings.times()):  # the very numbers of `sample`
            here = i == k
            mean[here] = settings.mean(v[here], x[here], t)
        yield chain[rows, i + 1], mean, stds[i][:, None, None]


def _log_density(
    settings: FlowSDE, x: Tensor, mean: Tensor, std: float | Tensor, dims: list[int]
) -> Tensor:
    """(B, H) float64 log-density of each row given those before it; NaN where there is no noise."""
    if settings.deterministic:
        return x.new_full(x.shape[:2], math.nan, dtype=torch.float64)
    if settings.correlation == 0:
        return log_density(x, mean, std, dims)
    white = settings.whitened(x.double() - mean.double())
    plain = log_density(white, torch.zeros_like(white), std, dims)
    return plain - len(dims) * settings.stretch(x.shape[1])

"""Group-relative policy optimisation as pure functions: advantages, the clipped loss, diagnostics.

Shapes: G members of a group, N decisions. A decision's ratio is that of the whole stochastic part
of its chain, over the action rows that were executed (pi_RL's chunk level, arXiv:2510.25889).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0  # before exp; float32 overflows at 88


def advantages(returns: np.ndarray, kind: str, state_mean: float | None = None) -> np.ndarray:
    """Advantage of each member of one group.

    - `group`: (R - mean) / (std + 1e-6), std with ddof 1 (GRPO, arXiv:2402.03300);
    - `rloo`: R - mean of the others = G / (G - 1) (R - mean) (arXiv:2402.14740);
    - `state`: R - `state_mean`, the running mean of earlier visits of the same scene; the group's
      own mean where there was none.

    Args:
        returns: (G,) of one group, G >= 2.
        kind: which of the three.
        state_mean: baseline of `state`.
    """
    if len(returns) < 2:
        raise ValueError(f"a group has at least 2 members, got {len(returns)}")
    centred = returns - returns.mean()
    if kind == "group":
        return centred / (returns.std(ddof=1) + 1e-6)
    if kind == "rloo":
        return len(returns) / (len(returns) - 1) * centred
    if kind == "state":
        return centred if state_mean is None else returns - state_mean
    raise ValueError(f"unknown advantage {kind!r}")


@dataclass(frozen=True)
class Clip:
    """Bounds of the trust region."""

    low: float = 0.2
    high: float = 0.28
    """clip-higher (DAPO, arXiv:2503.14476)"""
    dual: float = 3.0
    """bound c of the loss where the advantage is negative (arXiv:1912.09729)"""


def surrogate(log_ratio: Tensor, advantage: Tensor, clip: Clip) -> Tensor:
    """Loss of each decision, (N,).

        max(-A r, -A clamp(r, 1 - low, 1 + high)),   and min(that, c |A|) where A < 0

    Args:
        log_ratio: (N,) log of new over old likelihood; clamped to +-20 before exp.
        advantage: (N,).
        clip: bounds.
    """
    ratio = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip.low, 1 + clip.high))
    return torch.where(advantage < 0, torch.minimum(loss, -clip.dual * advantage), loss)


def gaussian_kl(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(other_mean, other_std^2)), element by element.

    log(s'/s) + (s^2 + (m - m')^2) / (2 s'^2) - 1/2
    """
    return (
        (other_std / std).log()
        + (std.square() + (mean - other_mean).square()) / (2 * other_std.square())
        - 0.5
    )


def diagnostics(log_ratio: np.ndarray, advantage: np.ndarray, clip: Clip) -> dict[str, float]:
    """What a minibatch did to its ratios, by the metric names of docs/grpo.md.

    k1 = -log r and k3 = r - 1 - log r estimate KL(old || new) (Schulman, "Approximating KL
    divergence", 2020); ESS = (sum r)^2 / (N sum r^2).
    """
    log_ratio = np.clip(log_ratio, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = np.exp(log_ratio)
    above = (advantage > 0) & (ratio > 1 + clip.high)
    below = (advantage < 0) & (ratio < 1 - clip.low)
    return {
        "ratio": float(ratio.mean()),
        "ratio_min": float(ratio.min()),
        "ratio_max": float(ratio.max()),
        "ratio_abs": float(np.abs(ratio - 1).mean()),
        "approx_kl": float((ratio - 1 - log_ratio).mean()),
        "approx_kl_k1": float(-log_ratio.mean()),
        "clip_fraction": float((above | below).mean()),
        "clip_fraction_low": float(below.mean()),
        "clip_fraction_high": float(above.mean()),
        "dual_clip_fraction": float(((advantage < 0) & (ratio > clip.dual)).mean()),
        "ess": float(ratio.sum() ** 2 / (len(ratio) * np.square(ratio).sum())),
    }

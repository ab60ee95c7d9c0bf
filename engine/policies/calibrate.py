"""Rescale FFN units so that a dose has a unit, without changing the function.

A gated FFN computes down(silu(gate x) * up x). Dividing row i of `up` by s_i and multiplying
column i of `down` by s_i leaves the output as it was; with s_i the unit's root mean square on
natural inputs, an activation of 1 is then the unit's natural size, and so is an alpha of 1.
"""

from collections.abc import Callable
from contextlib import ExitStack

import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import Tensor

from engine import sites
from engine.hooks import tapped

FLOOR = 1e-4  # a unit weaker than this is dead and keeps its scale


@torch.no_grad()
def calibrate(policy: SmolVLAPolicy, batches: list[dict[str, Tensor]]) -> None:
    """Set the root mean square over valid prefix tokens of every VLM FFN unit to 1."""
    squares = ffn_mean_squares(policy, batches)
    for layer, mean_square in zip(sites.layers(policy, "vlm"), squares, strict=True):
        rms = mean_square.sqrt()
        scale = torch.where(rms > FLOOR, rms, torch.ones_like(rms)).float()
        layer.mlp.up_proj.weight.div_(scale[:, None])
        layer.mlp.down_proj.weight.mul_(scale[None, :])


@torch.no_grad()
def ffn_mean_squares(policy: SmolVLAPolicy, batches: list[dict[str, Tensor]]) -> list[Tensor]:
    """Per layer (N,) float64: mean square of each unit over all rows and valid prefix tokens."""
    widths = [
        sites.ffn_input(policy, "vlm", i).in_features
        for i in range(len(sites.layers(policy, "vlm")))
    ]
    sums = [torch.zeros(width, dtype=torch.float64) for width in widths]
    mask = torch.empty(0)

    def adder(total: Tensor) -> Callable[[Tensor], None]:
        def add(h: Tensor) -> None:  # (B, P, N)
            total.add_(h[mask].double().square().sum(0))

        return add

    count = 0
    with ExitStack() as stack:
        for i, total in enumerate(sums):
            stack.enter_context(tapped(sites.ffn_input(policy, "vlm", i), adder(total)))
        for batch in batches:
            mask = sites.prefix_mask(policy, batch)
            count += int(mask.sum())
            policy.predict_action_chunk(dict(batch))
    return [total / count for total in sums]

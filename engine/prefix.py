"""What the VLM leaves for the action expert: keys and values of every layer, one row a decision.

With a frozen VLM they never change, so the rollout keeps them and the update reads them: the VLM
runs once a decision, however many epochs and denoising steps follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import Tensor
from transformers import DynamicCache

from engine.hooks import tapped
from engine.policies.smolvla import prefix_cache


@dataclass(frozen=True)
class Prefix:
    """Keys and values of one decision, or of a batch of them."""

    keys_values: Tensor
    """(L, 2, heads, P, dim) float32; in a batch (L, 2, B, heads, P, dim)"""
    pad_mask: Tensor
    """(P,) or (B, P) bool, False where the prefix is padding"""

    @classmethod
    def computed(cls, policy: SmolVLAPolicy, batch: dict[str, Tensor]) -> "Prefix":
        """Run the VLM on a batch."""
        cache, pad_mask = prefix_cache(policy, batch)
        layers = [torch.stack([layer.keys, layer.values]) for layer in cache.layers]
        return cls(torch.stack(layers), pad_mask)

    @classmethod
    def stacked(cls, rows: "Sequence[Prefix]") -> "Prefix":
        """Put decisions into one batch."""
        return cls(
            torch.stack([row.keys_values for row in rows], dim=2),
            torch.stack([row.pad_mask for row in rows]),
        )

    def rows(self) -> "list[Prefix]":
        """Take a batch apart, as tensors that may enter a backward pass."""
        keys_values, pad_mask = self.keys_values.clone(), self.pad_mask.clone()
        return [Prefix(keys_values[:, :, i], pad_mask[i]) for i in range(len(pad_mask))]

    def cache(self) -> DynamicCache:
        """As lerobot's expert reads it."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self.keys_values):
            cache.update(keys, values, layer)
        return cache


class Field:
    """The velocity field v(x, t) of a policy on a batch of observations."""

    hidden: Tensor
    """(B, H, width) of the last call: what the expert hands to its last projection"""

    def __init__(self, policy: SmolVLAPolicy, prefix: Prefix):
        self._model, self._prefix = policy.model, prefix

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """(B, H, Z) at time t (B,)."""
        with tapped(self._model.action_out_proj, self._keep):
            return self._model.denoise_step(
                x_t=x,
                prefix_pad_masks=self._prefix.pad_mask,
                past_key_values=self._prefix.cache(),
                timestep=t,
            )

    def _keep(self, hidden: Tensor) -> None:
        self.hidden = hidden

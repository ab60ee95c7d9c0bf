"""Rescale FFN units so that a dose has a unit, without changing the function.

A gated FFN computes down(silu(gate x) * up x). Dividing row i of `up` by s_i and multiplying
column i of `down` by s_i leaves the output as it was; with s_i the unit's root mean square on
natural inputs, an activation of 1 is then the unit's natural size, and so is an alpha of 1.
"""

import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import Tensor

FLOOR = 1e-4  # a unit weaker than this is dead and keeps its scale


@torch.no_grad()
def calibrate(policy: SmolVLAPolicy, batches: list[dict[str, Tensor]]) -> None:
    """Set the root mean square over valid prefix tokens of every VLM FFN unit to 1."""
    layers = policy.model.vlm_with_expert.vlm.model.text_model.layers
    squares = ffn_mean_squares(policy, batches)
    for layer, mean_square in zip(layers, squares, strict=True):
        rms = mean_square.sqrt()
        scale = torch.where(rms > FLOOR, rms, torch.ones_like(rms)).float()
        layer.mlp.up_proj.weight.div_(scale[:, None])
        layer.mlp.down_proj.weight.mul_(scale[None, :])


@torch.no_grad()
def ffn_mean_squares(policy: SmolVLAPolicy, batches: list[dict[str, Tensor]]) -> list[Tensor]:
    """Per layer (N,) float64: mean square of each unit over all rows and valid prefix tokens."""
    layers = policy.model.vlm_with_expert.vlm.model.text_model.layers
    sums = [torch.zeros(layer.mlp.down_proj.in_features, dtype=torch.float64) for layer in layers]
    count, mask = 0, torch.empty(0)

    def add(index: int):
        def hook(_, args):
            valid = args[0][mask].double()  # (tokens, N)
            sums[index] += valid.square().sum(0)

        return hook

    handles = [
        layer.mlp.down_proj.register_forward_pre_hook(add(i)) for i, layer in enumerate(layers)
    ]
    try:
        for batch in batches:
            images, _ = policy.prepare_images(batch)
            n_image = len(images) * _image_tokens(policy)
            language = batch["observation.language.attention_mask"].bool()
            rows = len(language)
            images_and_state = [torch.ones(rows, n, dtype=torch.bool) for n in (n_image, 1)]
            mask = torch.cat([images_and_state[0], language, images_and_state[1]], dim=1)
            count += int(mask.sum())
            policy.predict_action_chunk(dict(batch))
    finally:
        for handle in handles:
            handle.remove()
    return [total / count for total in sums]


def _image_tokens(policy: SmolVLAPolicy) -> int:
    config = policy.model.vlm_with_expert.config
    side = config.vision_config.image_size // config.vision_config.patch_size
    return side**2 // config.scale_factor**2

"""Where a SmolVLA can be read and changed, and which of these places can move an action.

lerobot calls sub-modules of a layer, never the layer itself, so only some modules ever fire:
`input_layernorm`, the attention projections, `post_attention_layernorm`, `mlp` and what is in it,
and the final `norm`. VLM modules fire once a decision, expert modules once a denoising step.
"""

import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import Tensor, nn

TOWERS = ("vlm", "expert")
GROUPS = ("image", "language", "state")


def layers(policy: SmolVLAPolicy, tower: str) -> nn.ModuleList:
    """Decoder layers of a tower."""
    model = policy.model.vlm_with_expert
    return model.lm_expert.layers if tower == "expert" else model.vlm.model.text_model.layers


def module_path(tower: str, layer: int, leaf: str) -> str:
    """Path of a module of one layer, as `policy.get_submodule` takes it."""
    stem = "lm_expert" if tower == "expert" else "vlm.model.text_model"
    return f"model.vlm_with_expert.{stem}.layers.{layer}.{leaf}"


def ffn_input(policy: SmolVLAPolicy, tower: str, layer: int) -> nn.Module:
    """The module whose input is the layer's FFN activations, (B, tokens, N)."""
    return layers(policy, tower)[layer].mlp.down_proj


def residual_reader(policy: SmolVLAPolicy, layer: int, tower: str = "vlm") -> tuple[nn.Module, str]:
    """Module whose input is a tower's residual stream after a layer, and its path."""
    model = policy.model.vlm_with_expert
    tower_layers = layers(policy, tower)
    if layer + 1 < len(tower_layers):
        path = module_path(tower, layer + 1, "input_layernorm")
        return tower_layers[layer + 1].input_layernorm, path
    if tower == "expert":
        return model.lm_expert.norm, "model.vlm_with_expert.lm_expert.norm"
    return model.vlm.model.text_model.norm, "model.vlm_with_expert.vlm.model.text_model.norm"


def reaches_action(policy: SmolVLAPolicy, tower: str, layer: int) -> bool:
    """Whether what the FFN of a layer writes can change the action.

    The expert reads the VLM through each layer's keys and values, which precede that layer's FFN:
    so FFN l acts only through a later layer that the expert still reads. Everything in the expert
    acts.
    """
    if tower == "expert":
        return True
    model = policy.model.vlm_with_expert
    stride = model.num_vlm_layers // model.num_expert_layers
    last_read = (model.num_expert_layers - 1) * stride
    return layer < last_read


def prefix_groups(policy: SmolVLAPolicy) -> dict[str, tuple[int, int]]:
    """Token group -> [start, stop) in the prefix: both cameras, language, state."""
    config = policy.model.vlm_with_expert.config
    side = config.vision_config.image_size // config.vision_config.patch_size
    images = len(policy.config.image_features) * side**2 // config.scale_factor**2
    language = images + policy.config.tokenizer_max_length
    return {
        "image": (0, images),
        "language": (images, language),
        "state": (language, language + 1),
    }


def prefix_mask(policy: SmolVLAPolicy, batch: dict[str, Tensor]) -> Tensor:
    """(B, P) bool: images and state are always there, language may be padded."""
    language = batch["observation.language.attention_mask"].bool()
    groups = prefix_groups(policy)
    mask = torch.ones(len(language), groups["state"][1], dtype=torch.bool)
    mask[:, slice(*groups["language"])] = language
    return mask

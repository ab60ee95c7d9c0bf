"""Where a policy can be read and changed, and which of these places can move an action.

A policy is two towers of decoder layers: the VLM runs once a decision over the prefix (images,
language, state), the action expert once a denoising step over the action tokens. lerobot calls
sub-modules of a layer, never the layer itself, so only some modules ever fire: `input_layernorm`,
the attention projections, `post_attention_layernorm`, `mlp` and what is in it, and the final
`norm`. What differs between policy families is in `FAMILIES`; all else in this project asks here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor, nn

from traces.errors import UnknownName

TOWERS = ("vlm", "expert")
SHORT = {"vlm": "vlm", "expert": "exp"}
GROUPS = ("image", "language", "state")


@dataclass(frozen=True)
class Family:
    """What is particular to one kind of policy."""

    towers: dict[str, str]
    """tower to the path of the module that has its `layers` and its final `norm`"""
    denoise_steps: str
    """the setting that says how often the expert runs in a decision"""
    last_read: Callable[[PreTrainedPolicy], int]
    """the last VLM layer whose keys and values the expert attends to"""
    image_tokens: Callable[[PreTrainedPolicy], int]
    """prefix tokens of all cameras together"""


def _smolvla_last_read(policy: PreTrainedPolicy) -> int:
    model = policy.model.vlm_with_expert
    return (model.num_expert_layers - 1) * (model.num_vlm_layers // model.num_expert_layers)


def _smolvla_image_tokens(policy: PreTrainedPolicy) -> int:
    config = policy.model.vlm_with_expert.config
    side = config.vision_config.image_size // config.vision_config.patch_size
    return len(policy.config.image_features) * side**2 // config.scale_factor**2


FAMILIES = {
    "smolvla": Family(
        towers={
            "vlm": "model.vlm_with_expert.vlm.model.text_model",
            "expert": "model.vlm_with_expert.lm_expert",
        },
        denoise_steps="num_steps",
        last_read=_smolvla_last_read,
        image_tokens=_smolvla_image_tokens,
    )
}


@dataclass(frozen=True)
class Place:
    """One place: FFN activations of a layer, or the residual stream after it."""

    name: str
    """such as "vlm.3.ffn_act" or "exp.3.resid_post" """
    tower: str
    layer: int
    kind: str
    """ffn_act or resid_post"""
    path: str
    """of the module whose input it is"""
    tokens: int
    """prefix tokens of the VLM, action tokens of the expert"""
    width: int
    calls: int
    """a decision"""
    reaches_action: bool


def places(policy: PreTrainedPolicy) -> list[Place]:
    """Every place of both towers, in the order in which they run."""
    return [
        place(policy, tower, layer, kind)
        for tower in TOWERS
        for layer in range(len(layers(policy, tower)))
        for kind in ("ffn_act", "resid_post")
    ]


def place(policy: PreTrainedPolicy, tower: str, layer: int, kind: str) -> Place:
    """One place of a policy."""
    if kind == "resid_post":
        module, path = residual_reader(policy, layer, tower)
    else:
        module, path = ffn_input(policy, tower, layer), _path(policy, tower, layer, FFN_INPUT)
    vlm = tower == "vlm"
    return Place(
        name=f"{SHORT[tower]}.{layer}.{kind}",
        tower=tower,
        layer=layer,
        kind=kind,
        path=path,
        tokens=prefix_groups(policy)["state"][1] if vlm else policy.config.chunk_size,
        width=getattr(module, "in_features", None) or module.weight.shape[0],
        calls=1 if vlm else denoise_steps(policy),
        reaches_action=reaches_action(policy, tower, layer),
    )


FFN_INPUT = "mlp.down_proj"
NAMED = ("connector", "lm_head")
"""Modules with parameters somewhere inside that belong to no tower."""


def ffn_input(policy: PreTrainedPolicy, tower: str, layer: int) -> nn.Module:
    """The module whose input is the layer's FFN activations, (B, tokens, N)."""
    return layers(policy, tower)[layer].get_submodule(FFN_INPUT)


def residual_reader(
    policy: PreTrainedPolicy, layer: int, tower: str = "vlm"
) -> tuple[nn.Module, str]:
    """Module whose input is a tower's residual stream after a layer, and its path."""
    if layer + 1 < len(layers(policy, tower)):
        path = _path(policy, tower, layer + 1, "input_layernorm")
    else:
        path = f"{_family(policy).towers[tower]}.norm"
    return policy.get_submodule(path), path


def residual_writer(
    policy: PreTrainedPolicy, tower: str, layer: int
) -> tuple[nn.Module, nn.Module, str]:
    """How the residual stream x after a layer is written: x = FFN's output + its norm's input.

    A change of x belongs into the FFN's output: changing the input of the next layer's norm would
    miss the residual itself.

    Returns:
        The FFN, the norm before it, and the path of the FFN.
    """
    block = layers(policy, tower)[layer]
    return block.mlp, block.post_attention_layernorm, _path(policy, tower, layer, "mlp")


def layers(policy: PreTrainedPolicy, tower: str) -> nn.ModuleList:
    """Decoder layers of a tower."""
    return policy.get_submodule(_family(policy).towers[tower]).layers


def denoise_steps(policy: PreTrainedPolicy) -> int:
    """K: how often the expert runs in a decision."""
    return getattr(policy.config, _family(policy).denoise_steps)


def reaches_action(policy: PreTrainedPolicy, tower: str, layer: int) -> bool:
    """Whether what the FFN of a layer writes can change the action, by how the towers are wired.

    The expert reads the VLM through each layer's keys and values, which precede that layer's FFN:
    so FFN l acts only through a later layer that the expert still reads. Everything in the expert
    acts.
    """
    return tower == "expert" or layer < _family(policy).last_read(policy)


def dead_layers(policy: PreTrainedPolicy, tower: str) -> list[int]:
    """Layers of a tower whose FFN cannot change the action."""
    return [i for i in range(len(layers(policy, tower))) if not reaches_action(policy, tower, i)]


def prefix_groups(policy: PreTrainedPolicy) -> dict[str, tuple[int, int]]:
    """Token group -> [start, stop) in the prefix: all cameras, language, state."""
    images = _family(policy).image_tokens(policy)
    language = images + policy.config.tokenizer_max_length
    return {
        "image": (0, images),
        "language": (images, language),
        "state": (language, language + 1),
    }


def prefix_mask(policy: PreTrainedPolicy, batch: dict[str, Tensor]) -> Tensor:
    """(B, P) bool: images and state are always there, language may be padded."""
    language = batch["observation.language.attention_mask"].bool()
    groups = prefix_groups(policy)
    mask = torch.ones(len(language), groups["state"][1], dtype=torch.bool)
    mask[:, slice(*groups["language"])] = language
    return mask


def tower_of(policy: PreTrainedPolicy, parameter: str) -> tuple[str, int | None]:
    """Where a parameter is: tower and layer, `vision`, or the module that holds it."""
    for tower, path in _family(policy).towers.items():
        if parameter.startswith(f"{path}."):
            layer = parameter.removeprefix(f"{path}.layers.").partition(".")[0]
            return tower, int(layer) if layer.isdecimal() else None
    parts = parameter.split(".")
    if "vision_model" in parts:
        return "vision", None
    return next((part for part in parts if part in NAMED), parts[-2]), None


def _path(policy: PreTrainedPolicy, tower: str, layer: int, leaf: str) -> str:
    """Path of a module of one layer, as `policy.get_submodule` takes it."""
    return f"{_family(policy).towers[tower]}.layers.{layer}.{leaf}"


def _family(policy: PreTrainedPolicy) -> Family:
    if policy.config.type not in FAMILIES:
        raise UnknownName("policy family", policy.config.type, FAMILIES)
    return FAMILIES[policy.config.type]

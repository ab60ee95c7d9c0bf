"""LoRA (arXiv:2106.09685) through peft: low-rank additions to the linear layers of both towers.

While training the additions stay apart; a checkpoint holds the policy they amount to, so that it
loads anywhere, and beside it the additions themselves, from which training goes on exactly.
"""

import copy

import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from traces.errors import UserError

SCALE = 2  # lora_alpha / r
SEED = 0  # of the random half of the additions; the other half begins as zeros


def add_adapters(policy: SmolVLAPolicy, rank: int, dead: tuple[str, ...]) -> None:
    """Give every linear layer of vision tower, VLM and expert an addition of some rank.

    Args:
        policy: changed in place; acts as before until something is learned.
        rank: r.
        dead: parts of names of weights that no action depends on.
    """
    towers = "model.vlm_with_expert."
    names = [
        name
        for name, module in policy.named_modules()
        if name.startswith(towers) and isinstance(module, nn.Linear)
        if not any(part in f"{name}." for part in dead)
    ]
    if not names:
        raise UserError("this policy has no linear layers in its towers; train expert or full")
    smallest = min(min(policy.get_submodule(name).weight.shape) for name in names)
    if rank > smallest:
        raise UserError(f"lora_rank must be at most {smallest} for this policy, got {rank}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        adapters = LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=names)
        inject_adapter_in_model(adapters, policy)


def merged(policy: SmolVLAPolicy) -> SmolVLAPolicy:
    """Return a copy of the policy with its additions added in."""
    plain = copy.deepcopy(policy)
    layers = [(n, m) for n, m in plain.named_modules() if isinstance(m, LoraLayer)]
    for name, layer in layers:
        layer.merge()
        parent, _, last = name.rpartition(".")
        setattr(plain.get_submodule(parent), last, layer.get_base_layer())
    return plain

"""Checkpoints: a lerobot policy folder, and beside it what training needs to go on exactly.

    checkpoints/000012/pretrained_model/   config, weights, processors and `vlm/`: loads anywhere
                       training_state/     optimizer, head, adapters (.safetensors), state.json

A checkpoint is written under another name, forced to disk and renamed, so that every folder with a
number is whole. Nothing in it is a pickle.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.policies.smolvla import WEIGHTS, LoadedPolicy
from traces.errors import UserError

POLICY, STATE = "pretrained_model", "training_state"
UNFINISHED = ".new"
COPIED = ("policy_preprocessor*", "policy_postprocessor*")


@dataclass(frozen=True)
class Restored:
    """What training goes on from, policy weights aside."""

    optimizer: dict[str, Tensor]
    head: dict[str, Tensor]
    adapters: dict[str, Tensor]
    """low-rank additions and what learned beside them, by name; empty without"""
    state: dict
    """JSON: `update` and whatever else the trainer put there"""


def save_policy(loaded: LoadedPolicy, policy: SmolVLAPolicy, folder: Path) -> None:
    """Write the policy as it is now, with processors and VLM folder, as lerobot loads it.

    Args:
        loaded: where processors and VLM folder come from.
        policy: the weights.
        folder: is made.
    """
    folder.mkdir(parents=True)
    vlm, policy.config.vlm_model_name = policy.config.vlm_model_name, "vlm"
    try:
        policy.save_pretrained(folder)
    finally:
        policy.config.vlm_model_name = vlm
    (folder / "README.md").unlink(missing_ok=True)
    for pattern in COPIED:
        for file in loaded.path.glob(pattern):
            shutil.copy2(file, folder)
    shutil.copytree(loaded.path / "vlm", folder / "vlm")


def save(
    folder: Path,
    loaded: LoadedPolicy,
    optimizer: torch.optim.Optimizer,
    head: nn.Module | None,
    adapters: dict[str, Tensor],
    state: dict,
) -> Path:
    """Write `folder` whole or not at all; `state` must be JSON.

    Args:
        folder: the checkpoint.
        loaded: the policy; with adapters, it is written as what it amounts to.
        optimizer: whose moments are kept.
        head: the learned part of the likelihood.
        adapters: low-rank additions and what learned beside them, by name.
        state: whatever else the trainer needs.
    """
    new = folder.with_name(UNFINISHED + folder.name)
    shutil.rmtree(new, ignore_errors=True)
    save_policy(loaded, _plain(loaded.policy, adapters), new / POLICY)
    (new / STATE).mkdir()
    save_file(_flat(optimizer), new / STATE / "optimizer.safetensors")
    if head is not None:
        save_file(head.state_dict(), new / STATE / "head.safetensors")
    if adapters:
        save_file(_contiguous(adapters), new / STATE / "adapters.safetensors")
    digest = hashlib.sha256((new / POLICY / WEIGHTS).read_bytes()).hexdigest()
    (new / STATE / "state.json").write_text(json.dumps(state | {"sha256": digest}, indent=1))
    for path in sorted(new.rglob("*")):
        _sync(path)
    new.rename(folder)
    _sync(folder.parent)
    return folder


def latest(run: Path) -> Path | None:
    """The newest whole checkpoint of a run; what a kill left unfinished is removed."""
    checkpoints = run / "checkpoints"
    for unfinished in checkpoints.glob(f"{UNFINISHED}*"):
        shutil.rmtree(unfinished)
    return max((p for p in checkpoints.glob("[0-9]*") if p.is_dir()), default=None)


def restore(checkpoint: Path) -> Restored:
    """Read the training state of a checkpoint.

    Raises:
        UserError: it has none, or a weight file that is not safetensors.
    """
    folder = checkpoint / STATE
    try:
        state = json.loads((folder / "state.json").read_text())
        return Restored(
            optimizer=load_file(folder / "optimizer.safetensors"),
            head=_optional(folder / "head.safetensors"),
            adapters=_optional(folder / "adapters.safetensors"),
            state=state,
        )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{str(checkpoint)!r} is no checkpoint to go on from ({error}); "
            f"expected {STATE}/ with state.json and optimizer.safetensors"
        ) from error


def load_optimizer(optimizer: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    """Put the moments back; parameters are numbered in the order of the optimizer's groups."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        number, _, name = key.partition(".")
        moments.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def load_weights(policy: SmolVLAPolicy, checkpoint: Path, restored: Restored) -> None:
    """Put a checkpoint's weights into the policy that training began with.

    With adapters only these: what they are added to has not changed.
    """
    if restored.adapters:
        policy.load_state_dict(restored.adapters, strict=False)
    else:
        policy.load_state_dict(load_file(checkpoint / POLICY / WEIGHTS))


def _plain(policy: SmolVLAPolicy, adapters: dict[str, Tensor]) -> SmolVLAPolicy:
    if not adapters:
        return policy
    from engine.adapters import merged

    return merged(policy)


def _optional(path: Path) -> dict[str, Tensor]:
    return load_file(path) if path.exists() else {}


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _flat(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{number}.{name}": tensor.contiguous()
        for number, moments in optimizer.state_dict()["state"].items()
        for name, tensor in moments.items()
    }


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

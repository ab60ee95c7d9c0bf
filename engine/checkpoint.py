"""Checkpoints: a lerobot policy folder, and beside it what training needs to go on exactly.

    checkpoints/000012/pretrained_model/   config, weights, processors and `vlm/`: loads anywhere
                       training_state/     weights, average, optimizer, head, state.json

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
    weights: dict[str, Tensor]
    """what learns, by name, as the last update left it"""
    average: dict[str, Tensor]
    """the running average of these, which the policy beside it has"""
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
    weights: dict[str, Tensor],
    average: dict[str, Tensor],
    state: dict,
) -> Path:
    """Write `folder` whole or not at all; `state` must be JSON.

    Args:
        folder: the checkpoint.
        loaded: the policy as it is to be saved; low-rank additions are added in.
        optimizer: whose moments are kept.
        head: the learned part of the likelihood.
        weights: what learns, by name, as the last update left it.
        average: the running average of these.
        state: whatever else the trainer needs.
    """
    new = folder.with_name(UNFINISHED + folder.name)
    shutil.rmtree(new, ignore_errors=True)
    save_policy(loaded, _plain(loaded.policy), new / POLICY)
    (new / STATE).mkdir()
    save_file(_flat(optimizer), new / STATE / "optimizer.safetensors")
    if head is not None:
        save_file(head.state_dict(), new / STATE / "head.safetensors")
    save_file(_contiguous(weights), new / STATE / "weights.safetensors")
    save_file(_contiguous(average), new / STATE / "average.safetensors")
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
        head = folder / "head.safetensors"
        return Restored(
            optimizer=load_file(folder / "optimizer.safetensors"),
            head=load_file(head) if head.exists() else {},
            weights=load_file(folder / "weights.safetensors"),
            average=load_file(folder / "average.safetensors"),
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


def _plain(policy: SmolVLAPolicy) -> SmolVLAPolicy:
    if not any(".lora_" in name for name, _ in policy.named_parameters()):
        return policy
    from engine.adapters import merged  # peft takes a second to import

    return merged(policy)


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

"""Loading a SmolVLA policy folder, and turning observations into its batches."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.common.vla_utils import make_att_2d_masks
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.processor import PolicyProcessorPipeline
from lerobot.processor.converters import (
    batch_to_transition,
    policy_action_to_transition,
    transition_to_batch,
    transition_to_policy_action,
)
from safetensors.torch import load_file
from torch import Tensor

from engine.policies.folder import (
    EMBEDDED,
    EMBEDDED_FOLDER,
    WEIGHTS,
    policy_folder,
    weights_sha256,
)
from traces.errors import UserError

ORGANISM = "organism"
FEATURES = {"observation.images.image", "observation.images.image2", "observation.state", "action"}


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy with its processors and the hash that names its weights."""

    name: str
    path: Path
    sha256: str
    policy: SmolVLAPolicy
    preprocess: PolicyProcessorPipeline
    postprocess: PolicyProcessorPipeline


def load_policy(name: str, steps: int = 0) -> LoadedPolicy:
    """Load the embedded policy or the organism by name, or any SmolVLA policy folder by its path.

    Args:
        name: which.
        steps: K, denoising steps that it acts with; 0: its own.

    Raises:
        UserError: no such folder, or the folder is no SmolVLA checkpoint, or a weight is missing.
    """
    if name == ORGANISM:
        from engine.policies.organism import organism  # which needs this module

        return organism(steps)
    folder = policy_folder(name)
    for file in ("config.json", WEIGHTS):
        if not (folder / file).is_file():
            raise UserError(
                f"policy {name!r}: no {file} in {str(folder)!r}; "
                f"give {EMBEDDED!r}, {ORGANISM!r} or a lerobot policy folder"
            )
    config = _config(name, folder)
    if (folder / "vlm").is_dir():  # a folder that carries its VLM still loads after being moved
        config.vlm_model_name = str(folder / "vlm")
    config.device = "cpu"
    config.pad_language_to = "max_length"  # one language length for every call; masks hide the rest
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # lerobot prints as it builds
            policy = SmolVLAPolicy(config)
    except OSError as error:
        raise UserError(
            f"policy {name!r}: its VLM {config.vlm_model_name!r} cannot be loaded; put its config "
            f"and processor into {str(folder / 'vlm')!r}"
        ) from error
    missing, unexpected = policy.load_state_dict(load_file(folder / WEIGHTS), strict=False)
    if missing or unexpected:
        raise UserError(
            f"policy {name!r}: weights do not fit the architecture "
            f"(missing {list(missing)[:3]}, unexpected {list(unexpected)[:3]})"
        )
    policy.eval().requires_grad_(False)
    policy.config.num_steps = steps or config.num_steps
    return LoadedPolicy(
        name=EMBEDDED if folder == EMBEDDED_FOLDER else folder.name,
        path=folder,
        sha256=weights_sha256(folder),
        policy=policy,
        **load_processors(folder, config.vlm_model_name),
    )


def _config(name: str, folder: Path) -> SmolVLAConfig:
    """The configuration, if it is SmolVLA's and takes LIBERO's observations and actions."""
    kind = json.loads((folder / "config.json").read_text()).get("type")
    if kind != "smolvla":
        raise UserError(f"policy {name!r} is of type {kind!r}; supported: smolvla")
    config = SmolVLAConfig.from_pretrained(folder)
    found = {*config.input_features, *config.output_features}
    if found != FEATURES:
        raise UserError(
            f"policy {name!r} has the features {sorted(found)}; the suite gives {sorted(FEATURES)}"
        )
    return config


def load_processors(folder: Path, vlm_folder: str) -> dict[str, PolicyProcessorPipeline]:
    """Lerobot's own pre- and post-processor of a checkpoint, tokenizing with its own `vlm/`."""
    return {
        "preprocess": PolicyProcessorPipeline.from_pretrained(
            folder,
            config_filename="policy_preprocessor.json",
            overrides={
                "tokenizer_processor": {"tokenizer_name": vlm_folder, "padding": "max_length"}
            },
            to_transition=batch_to_transition,
            to_output=transition_to_batch,
        ),
        "postprocess": PolicyProcessorPipeline.from_pretrained(
            folder,
            config_filename="policy_postprocessor.json",
            to_transition=policy_action_to_transition,
            to_output=transition_to_policy_action,
        ),
    }


def policy_state(robot_state: dict[str, Any]) -> np.ndarray:
    """(8,) float32: grip position (m, world), its axis-angle (rad), finger joints (m).

    The same vector as lerobot's LIBERO processor builds.
    """
    x, y, z, w = robot_state["eef"]["quat"]
    w = np.clip(w, -1.0, 1.0)
    norm = np.sqrt(max(1.0 - w * w, 1e-12))
    axis_angle = 2.0 * np.arccos(w) / norm * np.array([x, y, z])
    return np.concatenate(
        [robot_state["eef"]["pos"], axis_angle, robot_state["gripper"]["qpos"]]
    ).astype(np.float32)


def image_batch(frames: np.ndarray) -> torch.Tensor:
    """(B, 64, 64, 3) uint8 -> (B, 3, 64, 64) float32 in [0, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float().div_(255.0)


def prefix_cache(policy: SmolVLAPolicy, batch: dict[str, Tensor]) -> tuple:
    """Run the VLM over images, language and state once.

    Returns:
        Keys and values of every layer, which `denoise_step` attends to, and the (B, P) padding
        mask of the prefix. The same calls as at the start of lerobot's `sample_actions`.
    """
    model = policy.model
    images, image_masks = policy.prepare_images(batch)
    embeddings, pad_masks, attention = model.embed_prefix(
        images,
        image_masks,
        batch["observation.language.tokens"],
        batch["observation.language.attention_mask"].bool(),
        state=policy.prepare_state(batch),
    )
    _, cache = model.vlm_with_expert.forward(
        attention_mask=make_att_2d_masks(pad_masks, attention),
        position_ids=torch.cumsum(pad_masks, dim=1) - 1,
        past_key_values=None,
        inputs_embeds=[embeddings, None],
        use_cache=True,
    )
    return cache, pad_masks

"""The architecture of `smolvla-tabletop`: lerobot's SmolVLA over a SmolVLM of 2 M parameters."""

import contextlib
import io
from pathlib import Path

import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from transformers import SmolVLMConfig, SmolVLMImageProcessor, SmolVLMProcessor
from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

from engine.policies.words import build_tokenizer

CHUNK = 10
DENOISE_STEPS = 5
LANGUAGE_LENGTH = 16  # tokens, fixed: batch shape alone moves float32 results
SCALE = 2  # patches that become one token, each way
ACTION_WIDTH = 8  # max_action_dim: 7 entries and one of padding, as a real checkpoint has


TEXT = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
VISION = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 8,
}


def save_vlm_folder(folder: Path, text: dict = TEXT, vision: dict = VISION) -> None:
    """Write config and processor (image, video and text parts) where lerobot will look for them.

    Args:
        folder: where to.
        text: sizes of the language model.
        vision: sizes of the vision tower.
    """
    tokenizer = build_tokenizer()
    tokens = (vision["image_size"] // vision["patch_size"] // SCALE) ** 2  # of an image
    config = SmolVLMConfig(
        text_config=text
        | {
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 256,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
            "eos_token_id": None,
            "tie_word_embeddings": False,
        },
        vision_config=dict(vision),
        scale_factor=SCALE,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,  # lerobot refuses tied heads when it trains the VLM
    )
    size = {"longest_edge": 64}
    image_processor = SmolVLMImageProcessor(
        size=size, max_image_size=size, do_image_splitting=False
    )
    video_processor = SmolVLMVideoProcessor(size=size, max_image_size=size)
    config.save_pretrained(folder)
    processor = SmolVLMProcessor(image_processor, tokenizer, video_processor, image_seq_len=tokens)
    processor.save_pretrained(folder)


def tiny_config(vlm_folder: Path, layers: int = TEXT["num_hidden_layers"]) -> SmolVLAConfig:
    """The SmolVLA configuration, LIBERO's features at 64x64."""
    image = PolicyFeature(FeatureType.VISUAL, (3, 64, 64))
    return SmolVLAConfig(
        input_features={
            "observation.images.image": image,
            "observation.images.image2": image,
            "observation.state": PolicyFeature(FeatureType.STATE, (8,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (7,))},
        chunk_size=CHUNK,
        n_action_steps=CHUNK,
        max_state_dim=8,
        max_action_dim=ACTION_WIDTH,
        resize_imgs_with_padding=(64, 64),
        tokenizer_max_length=LANGUAGE_LENGTH,
        pad_language_to="max_length",
        num_steps=DENOISE_STEPS,
        freeze_vision_encoder=False,
        train_expert_only=False,
        vlm_model_name=str(vlm_folder),
        num_vlm_layers=layers,
        expert_width_multiplier=0.75,
        device="cpu",
        push_to_hub=False,
    )


def new_policy(
    vlm_folder: Path, seed: int, layers: int = TEXT["num_hidden_layers"]
) -> SmolVLAPolicy:
    """An untrained policy; the seed decides its weights."""
    torch.manual_seed(seed)
    with contextlib.redirect_stdout(io.StringIO()):  # lerobot prints as it builds
        return SmolVLAPolicy(tiny_config(vlm_folder, layers))

"""A SmolVLA whose mechanism is known, because it was planted by hand: `--policy organism`.

Real lerobot classes, 4 + 4 layers of width 64, random weights, no training. Orthonormal directions
of the VLM's residual stream are freed of everything else (no embedding, attention or neuron writes
them, nothing reads them but what is said here), and in them lies all there is to find:

    fast, slow  their neurons' value vectors spell fast and slow words, and they move the hand
                forward and back; a word of theirs in the instruction excites them
    decoy       spells words of "up", and moves nothing: semantic, not causal
    dark        moves the hand forward and spells nothing related: causal, not semantic
    null        fast's value vector once more, in the last layer, which nothing reads

The reader: VLM layer 3's first value channel is fast - slow + dark; in the expert's layer 3 one
head attends evenly to the whole prefix and hands the mean of this channel to one residual channel
of the expert, which the output layer subtracts from the velocity of x. So with weight c, natural
state h and every token overwritten with alpha, RMSNorm makes the channel per token

    s(alpha) = sqrt(d) alpha c / sqrt(|h|^2 + alpha^2 c^2)

monotone and saturating, and the action's first entry grows with its mean over tokens. Value vectors
have a small random part beside the planted direction, as trained ones have: without it all other
words would tie, and the dark neuron would spell rounding errors.
"""

import hashlib
import tempfile
from functools import cache
from pathlib import Path

import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors
from safetensors.torch import save
from torch import Tensor

from engine import sites
from engine.actor import THREADS
from engine.policies.smolvla import ORGANISM, LoadedPolicy
from engine.policies.tiny import new_policy, save_vlm_folder
from engine.policies.words import MOTION_WORDS, SPEED_WORDS

SEED = 0
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 16,
}
FAST, SLOW, DECOY, DARK = (1, 10), (1, 20), (1, 30), (1, 40)  # layer, neuron
COPIES = ((0, 11), (1, 12), (1, 13), (2, 14), (2, 15))
"""Near-copies of the fast neuron."""
NULL = (3, 10)
READER = 3  # layer of the VLM and of the expert; odd, so the expert cross-attends there
CHANNEL = 47  # of the expert's residual stream
SCALE = 0.16  # c, norm of a planted value vector: about that of a random one
WORD = 0.1  # of an embedding along its class's flag
GAIN = 0.1  # of the reader, low enough for the expert's last RMSNorm not to saturate first
STD = (0.02, 0.02, 0.02, 0.0, 0.0, 0.0, 0.02)  # of actions, and so of what noise does to them
MEAN = (0.06, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)  # the hand drifts forward: slow has something to slow


@cache
def organism(steps: int = 0) -> LoadedPolicy:
    """Build it, the same each time; `steps` as in `load_policy`."""
    torch.set_num_threads(THREADS)  # their number moves the last bits of a matrix product
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        save_vlm_folder(Path(folder), TEXT, VISION)
        policy = new_policy(Path(folder), SEED, TEXT["num_hidden_layers"])
        _plant(policy)
        policy.eval().requires_grad_(False)
        policy.config.num_steps = steps or policy.config.num_steps
        stats = {
            "observation.state": {"mean": torch.zeros(8), "std": torch.ones(8)},
            "action": {"mean": torch.tensor(MEAN), "std": torch.tensor(STD)},
        }
        preprocess, postprocess = make_smolvla_pre_post_processors(policy.config, stats)
    weights = {name: value.contiguous() for name, value in policy.state_dict().items()}
    sha256 = hashlib.sha256(save(weights)).hexdigest()
    return LoadedPolicy(ORGANISM, Path(ORGANISM), sha256, policy, preprocess, postprocess)


@torch.no_grad()
def _plant(policy: SmolVLAPolicy) -> None:
    model = policy.model.vlm_with_expert
    vlm = model.vlm.model
    basis = torch.linalg.qr(torch.randn(TEXT["hidden_size"], TEXT["hidden_size"]))[0]
    fast, slow, decoy, dark, hears_fast, hears_slow = reserved = basis[:6]  # rows, orthonormal
    free = torch.eye(len(basis)) - reserved.T @ reserved

    words = vlm.text_model.get_input_embeddings().weight
    words.copy_(words @ free)
    for written in (vlm.connector.modality_projection.proj.weight, policy.model.state_proj.weight):
        written.copy_(free @ written)
    policy.model.state_proj.bias.copy_(free @ policy.model.state_proj.bias)
    for layer in sites.layers(policy, "vlm"):
        for writer in (layer.self_attn.o_proj, layer.mlp.down_proj):
            writer.weight.copy_(free @ writer.weight)
        attention, ffn = layer.self_attn, layer.mlp
        for reader in (
            attention.q_proj,
            attention.k_proj,
            attention.v_proj,
            ffn.gate_proj,
            ffn.up_proj,
        ):
            reader.weight.copy_(reader.weight @ free)

    tokenizer = model.processor.tokenizer
    unembedding = model.vlm.lm_head.weight
    unembedding.copy_(torch.nn.functional.normalize(unembedding @ free, dim=1))
    concepts = (
        (SPEED_WORDS["fast"], fast, hears_fast),
        (SPEED_WORDS["slow"], slow, hears_slow),
        (MOTION_WORDS["up"], decoy, None),
    )
    for spelled, direction, heard in concepts:
        ids = tokenizer.convert_tokens_to_ids([f"Ġ{word}" for word in spelled])
        unembedding[ids] = direction + 0.3 * unembedding[ids]
        if heard is not None:
            words[ids] += WORD * heard

    def nearly(direction: Tensor, part: float = 0.1) -> Tensor:
        aside = free @ torch.randn(len(free))
        return direction + part * aside / aside.norm()

    spelled_fast = nearly(fast)
    _write(policy, FAST, spelled_fast, hears_fast)
    _write(policy, NULL, spelled_fast)
    _write(policy, SLOW, nearly(slow), hears_slow)
    _write(policy, DECOY, nearly(decoy))
    _write(policy, DARK, nearly(dark))
    for place in COPIES:
        _write(policy, place, 0.9 * nearly(fast, 0.2))
    _read(policy, fast - slow + dark)


def _write(
    policy: SmolVLAPolicy, place: tuple[int, int], value: Tensor, heard: Tensor | None = None
) -> None:
    """Give a neuron its value vector, and what excites it."""
    layer, neuron = place
    ffn = sites.layers(policy, "vlm")[layer].mlp
    ffn.down_proj.weight[:, neuron] = SCALE * value
    if heard is not None:
        ffn.gate_proj.weight[neuron] += 0.5 * heard
        ffn.up_proj.weight[neuron] += 0.5 * heard


def _read(policy: SmolVLAPolicy, direction: Tensor) -> None:
    """Lead a direction of the VLM's residual stream to the first entry of the action."""
    expert = sites.layers(policy, "expert")
    sites.layers(policy, "vlm")[READER].self_attn.v_proj.weight[0] = direction
    suffix = policy.model.action_time_mlp_out
    suffix.weight[CHANNEL] = suffix.bias[CHANNEL] = 0.0
    for layer in expert:  # nothing else writes the channel
        layer.self_attn.o_proj.weight[CHANNEL] = 0.0
        layer.mlp.down_proj.weight[CHANNEL] = 0.0
    attention, ffn = expert[READER].self_attn, expert[READER].mlp
    size = TEXT["head_dim"]
    attention.v_proj.weight[:, 0] = 0.0  # nothing else reads the value channel
    attention.v_proj.weight[0] = 0.0
    attention.v_proj.weight[0, 0] = 1.0
    attention.q_proj.weight[:size] = 0.0  # head 0 attends evenly
    attention.o_proj.weight[:, [0, size]] = 0.0  # heads 0 and 1 share the value channel
    attention.o_proj.weight[CHANNEL, 0] = GAIN
    ffn.gate_proj.weight[:, CHANNEL] = ffn.up_proj.weight[:, CHANNEL] = 0.0
    out = policy.model.action_out_proj
    out.weight[:, CHANNEL] = 0.0
    out.weight[0, CHANNEL] = -1.0  # x0 = noise - mean of v

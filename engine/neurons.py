"""The neuron table of a checkpoint: what each FFN unit of the VLM writes, in words.

Value vector v_i = column i of `down_proj`; its token logits are z = U v_i with U = `lm_head`
(Geva et al., arXiv:2203.14680; Haon et al., arXiv:2509.00328). The semantic embedding is
e_i = sum_j softmax(z)_j U_j / |U_j| over the top tokens, L2-normalised. (Over these, a softmax of
all logits and one of the top logits differ by a factor only, which the length takes away.)

The published programs differ in whether tokens are normalised there: `Variant` has both. We depart
from them in that everything is float32, whatever the type of the checkpoint.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from engine import sites
from engine.neuron_cache import USUAL, NeuronTable, Variant, cached, stored
from engine.policies.folder import WEIGHTS
from engine.policies.smolvla import LoadedPolicy
from traces.errors import UserError

TOP, BOTTOM = 30, 10
BATCH = 512
"""Neurons at a time: their logits are all that is ever held of the whole vocabulary."""

RANDOM_DIRECTIONS = 512
LM_HEAD = "model.vlm_with_expert.vlm.lm_head.weight"

Progress = Callable[[int, int], None]
"""Called with layers done, layers in all."""


@dataclass(frozen=True)
class Readout:
    """The weights that a table is made of, and the words of the vocabulary."""

    values: Sequence[Tensor]
    """Per layer (d, N): column i is what neuron i adds to the residual stream."""
    unembedding: Tensor
    """(V, d)"""
    final_norm: Tensor
    """(d,) weight of the norm before the unembedding."""
    reach: Sequence[bool]
    """Per layer: can its feed-forward block move an action."""
    words: Sequence[str]
    pieces: Sequence[str]


def neuron_table(loaded: LoadedPolicy, variant: Variant = USUAL) -> pl.DataFrame:
    """One row a (layer, neuron), from the cache if these weights were read before.

    Columns: layer, neuron, flat (layer * N + neuron), hook_id, reach (can this FFN move an action),
    v_norm, entropy (of the softmax over the vocabulary, nats), weight_entropy (over the top
    tokens), top_ids, top_tokens (decoded), top_pieces (raw), top_logits (30 each, largest first),
    bottom_ids, bottom_tokens, bottom_pieces, bottom_logits (10 each, smallest first), embedding
    (d, unit length).
    """
    return table_of(loaded, variant).rows.collect()


def table_of(
    loaded: LoadedPolicy, variant: Variant = USUAL, progress: Progress | None = None
) -> NeuronTable:
    """The same, unread, with the facts about it."""
    found = cached(loaded.sha256, variant)
    if found is not None:
        return found
    checks = lm_head_checks(loaded)
    weights = readout(loaded)
    rows = compute(weights, variant, progress)
    facts = {
        "policy": loaded.name,
        "layers": len(weights.values),
        "neurons": weights.values[0].shape[1],
        "vocabulary": len(weights.unembedding),
        "width": weights.unembedding.shape[1],
        "weight_entropy": rows.get_column("weight_entropy").mean(),
        "lm_head": checks,
        "random_tokens": random_tokens(weights, variant),
    }
    return stored(rows, loaded.sha256, variant, facts)


def readout(loaded: LoadedPolicy, tower: str = "vlm") -> Readout:
    """The weights of a policy that its table is made of.

    Raises:
        UserError: the tower is the expert, which `lm_head` does not read.
    """
    vlm = loaded.policy.model.vlm_with_expert.vlm
    layers = range(len(sites.layers(loaded.policy, tower)))
    values = [sites.ffn_input(loaded.policy, tower, layer).weight for layer in layers]
    if tower == "expert":
        raise UserError(
            f"the expert writes into a stream of its own (width {values[0].shape[0]}), which "
            f"lm_head (width {vlm.lm_head.weight.shape[1]}) never reads: its neurons spell no "
            "tokens; the vlm's do"
        )
    tokenizer = loaded.policy.model.vlm_with_expert.processor.tokenizer
    ids = list(range(len(vlm.lm_head.weight)))
    pieces = tokenizer.convert_ids_to_tokens(ids)
    return Readout(
        values=values,
        unembedding=vlm.lm_head.weight,
        final_norm=vlm.model.text_model.norm.weight,
        reach=[sites.reaches_action(loaded.policy, tower, layer) for layer in layers],
        words=tokenizer.batch_decode([[i] for i in ids]),
        pieces=[piece or f"<{i}>" for i, piece in zip(ids, pieces, strict=True)],
    )


@torch.no_grad()
def lm_head_checks(loaded: LoadedPolicy) -> dict:
    """Whether `lm_head` was really loaded: without it, neurons would spell random words.

    Returns:
        in_checkpoint (None for a policy that no file holds), tied (the embedding's own memory) and
        cosine, the mean over tokens t of cos(U_t, E_t).

    Raises:
        UserError: it is neither in the checkpoint nor tied, or holds no finite variation.
    """
    vlm = loaded.policy.model.vlm_with_expert.vlm
    unembedding, embedding = vlm.lm_head.weight, vlm.model.text_model.embed_tokens.weight
    tied = unembedding.data_ptr() == embedding.data_ptr()
    in_checkpoint = None
    if (loaded.path / WEIGHTS).is_file():
        with safe_open(loaded.path / WEIGHTS, "pt") as file:
            in_checkpoint = LM_HEAD in file.keys()  # noqa: SIM118 (not a dict)
        if not in_checkpoint and not tied:
            raise UserError(
                f"policy {loaded.name!r}: its checkpoint has no {LM_HEAD}, so lm_head is random "
                "and its neurons have no words"
            )
    if not 0 < float(unembedding.float().std()) < torch.inf:
        raise UserError(f"policy {loaded.name!r}: lm_head is empty, so neurons have no words")
    cosines = torch.cosine_similarity(unembedding.float(), embedding.float(), dim=1)
    known = unembedding.any(dim=1) & embedding.any(dim=1)  # padding has no direction
    return {"in_checkpoint": in_checkpoint, "tied": tied, "cosine": float(cosines[known].mean())}


@torch.no_grad()
def compute(
    weights: Readout, variant: Variant = USUAL, progress: Progress | None = None
) -> pl.DataFrame:
    """The table, computed from the weights; columns as in `neuron_table`."""
    project = _Projection(_unembedding(weights, variant), variant.token_norm)
    words, pieces = pl.Series(weights.words), pl.Series(weights.pieces)
    frames = []
    for layer, down_proj in enumerate(weights.values):
        found = [project(batch) for batch in down_proj.float().T.split(BATCH)]
        columns = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
        frames.append(_frame(layer, weights.reach[layer], columns, words, pieces))
        if progress:
            progress(layer + 1, len(weights.values))
    return pl.concat(frames)


@torch.no_grad()
def random_tokens(weights: Readout, variant: Variant = USUAL) -> list[list[str]]:
    """The top tokens of random directions: what a value vector spells by chance.

    A direction's top tokens do not depend on its length, so nothing is to be matched.
    """
    unembedding = _unembedding(weights, variant)
    generator = torch.Generator().manual_seed(0)
    shape = (RANDOM_DIRECTIONS, unembedding.shape[1])
    directions = torch.randn(shape, generator=generator)
    ids = (directions @ unembedding.T).topk(min(TOP, len(unembedding)), dim=1).indices
    return [[weights.words[i] for i in row] for row in ids.tolist()]


def _unembedding(weights: Readout, variant: Variant) -> Tensor:
    unembedding = weights.unembedding.float()
    return unembedding * weights.final_norm.float() if variant.fold_norm else unembedding


class _Projection:
    """What value vectors spell through an unembedding (V, d).

    Memory for the logits is taken once: fresh pages cost more than what is done with them.
    """

    def __init__(self, unembedding: Tensor, token_norm: str) -> None:
        self.unembedding = unembedding
        lengths = unembedding.norm(dim=1).clamp_min(1e-12)  # (V,)
        self.shares = lengths.reciprocal() if token_norm == "l2" else torch.ones_like(lengths)
        self.logits, self.odds = torch.empty(2, BATCH, len(unembedding))

    def __call__(self, values: Tensor) -> dict[str, np.ndarray]:
        """Columns of the table for some value vectors (B, d)."""
        logits, odds = self.logits[: len(values)], self.odds[: len(values)]
        torch.mm(values, self.unembedding.T, out=logits)
        top = logits.topk(min(TOP, logits.shape[1]), dim=1)
        bottom = logits.topk(min(BOTTOM, logits.shape[1]), dim=1, largest=False)
        weight = top.values.softmax(dim=1)
        embedding = embedding_bag(
            top.indices,
            self.unembedding,
            per_sample_weights=weight * self.shares[top.indices],
            mode="sum",
        )
        found = {
            "v_norm": values.norm(dim=1),
            "entropy": _entropy(logits.sub_(top.values[:, :1]), odds),
            "weight_entropy": torch.special.entr(weight).sum(dim=1),
            "top_ids": top.indices.int(),
            "top_logits": top.values,
            "bottom_ids": bottom.indices.int(),
            "bottom_logits": bottom.values,
            "embedding": normalize(embedding, dim=1),
        }
        return {name: tensor.numpy() for name, tensor in found.items()}


def _entropy(logits: Tensor, odds: Tensor) -> Tensor:
    """Entropy [nats] of the softmax of (B, V) logits z whose largest is 0; both are used up.

    H = ln sum e^z - (sum z e^z) / (sum e^z)
    """
    torch.exp(logits, out=odds)
    total = odds.sum(dim=1)
    return total.log() - logits.mul_(odds).sum(dim=1) / total


def _frame(
    layer: int, reach: bool, columns: dict[str, np.ndarray], words: pl.Series, pieces: pl.Series
) -> pl.DataFrame:
    """The rows of one layer."""
    n = len(columns["v_norm"])
    rows = pl.DataFrame({"neuron": np.arange(n, dtype=np.int32)} | columns)
    for side in ("top", "bottom"):
        ids = columns[f"{side}_ids"]
        for kind, names in (("tokens", words), ("pieces", pieces)):
            spelled = names.gather(ids.ravel()).reshape(ids.shape).alias(f"{side}_{kind}")
            rows = rows.with_columns(spelled)
    return rows.select(
        pl.lit(layer, pl.Int32).alias("layer"),
        "neuron",
        (pl.lit(layer * n, pl.Int32) + pl.col("neuron")).alias("flat"),
        pl.lit(f"vlm.{layer}.ffn_act").alias("hook_id"),
        pl.lit(reach).alias("reach"),
        "v_norm",
        "entropy",
        "weight_entropy",
        "top_ids",
        "top_tokens",
        "top_pieces",
        "top_logits",
        "bottom_ids",
        "bottom_tokens",
        "bottom_pieces",
        "bottom_logits",
        "embedding",
    )

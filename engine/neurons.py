"""The neuron table of a checkpoint: what each FFN unit of the VLM writes, in words.

Value vector v_i = column i of `down_proj`; its token logits are z = U v_i with U = `lm_head`
(Geva et al., arXiv:2203.14680; Haon et al., arXiv:2509.00328). The semantic embedding is
e_i = sum_j softmax(z)_j U_j / |U_j| over the top tokens, L2-normalised.
"""

import os
from pathlib import Path

import polars as pl
import torch

from engine import sites
from engine.policies.smolvla import LoadedPolicy
from traces.errors import UserError

TOP = 30


def neuron_table(loaded: LoadedPolicy) -> pl.DataFrame:
    """One row a (layer, neuron), from the cache if these weights were read before.

    Columns: layer, neuron, reach (can this FFN move an action), v_norm, top_ids, top_tokens
    (decoded), top_pieces (raw), top_logits (30 each), embedding (d, unit length).
    """
    cache = _cache_folder() / f"neurons-{loaded.sha256}.parquet"
    if cache.exists():
        return pl.read_parquet(cache)
    table = compute(loaded)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        scratch = cache.with_suffix(f".{os.getpid()}")
        table.write_parquet(scratch)
        scratch.replace(cache)
    except OSError:
        return table  # a read-only home only costs the time
    return table


@torch.no_grad()
def compute(loaded: LoadedPolicy) -> pl.DataFrame:
    """The table, computed from the weights."""
    vlm = loaded.policy.model.vlm_with_expert.vlm
    unembedding = vlm.lm_head.weight.float()  # (V, d)
    if not bool(unembedding.std() > 0):
        raise UserError(f"policy {loaded.name!r}: lm_head is empty, so neurons have no words")
    directions = torch.nn.functional.normalize(unembedding, dim=1)
    tokenizer = loaded.policy.model.vlm_with_expert.processor.tokenizer
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(unembedding))))
    words = [tokenizer.decode([i]) for i in range(len(unembedding))]
    frames = []
    for layer in range(len(sites.layers(loaded.policy, "vlm"))):
        values = sites.ffn_input(loaded.policy, "vlm", layer).weight.float().T  # (N, d)
        top = (values @ unembedding.T).topk(min(TOP, len(unembedding)), dim=1)  # (N, TOP)
        weight = top.values.softmax(dim=1)
        embedding = torch.einsum("nk,nkd->nd", weight, directions[top.indices])
        ids = top.indices.tolist()
        frames.append(
            pl.DataFrame(
                {
                    "layer": pl.Series([layer] * len(values), dtype=pl.Int32),
                    "neuron": pl.Series(range(len(values)), dtype=pl.Int32),
                    "reach": [sites.reaches_action(loaded.policy, "vlm", layer)] * len(values),
                    "v_norm": pl.Series(values.norm(dim=1).tolist(), dtype=pl.Float32),
                    "top_ids": pl.Series(ids, dtype=pl.List(pl.Int32)),
                    "top_tokens": [[words[i] for i in row] for row in ids],
                    "top_pieces": [[pieces[i] for i in row] for row in ids],
                    "top_logits": pl.Series(top.values.tolist(), dtype=pl.List(pl.Float32)),
                    "embedding": pl.Series(
                        torch.nn.functional.normalize(embedding, dim=1).tolist(),
                        dtype=pl.List(pl.Float32),
                    ),
                }
            )
        )
    return pl.concat(frames)


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "vla-trace"

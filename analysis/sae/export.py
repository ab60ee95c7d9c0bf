"""An autoencoder as dictionary_learning saves its AutoEncoderTopK: `ae.pt` and `config.json`.

    encoder.weight (m, d)   encoder.bias (m,)   decoder.weight (d, m)   b_dec (d,)   k   threshold

That library normalises nothing: rows are given to it as `config.json` says under `normalisation`.
"""

import json
from pathlib import Path

import torch

from traces.autoencoder import Autoencoder
from traces.errors import UserError


def write_dictionary(folder: Path, sae: Autoencoder) -> None:
    """Write both files.

    Args:
        folder: made if absent.
        sae: a topk autoencoder.

    Raises:
        UserError: another architecture.
    """
    if sae.architecture != "topk":
        raise UserError(
            f"a {sae.architecture} autoencoder: expected topk, the one that dictionary_learning's "
            "AutoEncoderTopK reads; train with --architecture topk"
        )
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "b_dec": sae.b_dec,
        "encoder.weight": sae.W_enc.T,
        "encoder.bias": sae.b_enc,
        "decoder.weight": sae.W_dec.T,
    }
    tensors = {name: torch.from_numpy(value.copy()) for name, value in state.items()}
    tensors |= {"k": torch.tensor(sae.k), "threshold": torch.tensor(-1.0)}
    torch.save(tensors, folder / "ae.pt")
    trainer = {
        "dict_class": "AutoEncoderTopK",
        "activation_dim": sae.width,
        "dict_size": sae.features,
        "k": sae.k,
    }
    about = {"trainer": trainer, "normalisation": sae.normalisation, "vla_trace": sae.metadata}
    (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

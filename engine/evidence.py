"""What is kept of an optimizer step that was not finite: enough to find out why."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.collect import Sample


def keep_evidence(
    path: Path,
    batch: Sequence[Sample],
    log_ratio: np.ndarray,
    parameters: Sequence[tuple[str, Tensor]],
) -> None:
    """Write the mini-batch and the names of what is not finite, as .npz without pickles.

    Arrays, N decisions: `noise_key` names each of them as events and traces do; `chain` (N, K+1, H,
    Z), `log_prob` (N, n) as recorded (NaN beyond `executed`), `advantage`, `state` (N, S); and of
    the step `log_ratio` of the rows that count, `bad_gradients` and `bad_weights`.

    Args:
        path: ends in .npz; its folder is made.
        batch: the decisions of the step.
        log_ratio: what the step computed.
        parameters: names and tensors that learn, gradients in place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    bad_gradients = [n for n, p in parameters if p.grad is not None and not _finite(p.grad)]
    np.savez_compressed(
        path,
        noise_key=np.array([f"{s.request.key}/{s.request.decision}" for s in batch]),
        chain=np.stack([sample.chain for sample in batch]),
        log_prob=np.stack([sample.log_prob for sample in batch]),
        executed=np.array([sample.executed for sample in batch]),
        advantage=np.array([sample.advantage for sample in batch]),
        state=np.stack([sample.request.state for sample in batch]),
        log_ratio=log_ratio,
        bad_gradients=np.array(bad_gradients, dtype=np.str_),
        bad_weights=np.array([n for n, p in parameters if not _finite(p)], dtype=np.str_),
    )


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())

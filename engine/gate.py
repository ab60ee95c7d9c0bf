"""The gate: before the first optimizer step of an update, recorded log-probabilities are checked.

A ratio is only a ratio if the same policy gives the same number twice. So they are computed again,
on the very batches of the rollout, and training stops where they differ.
"""

from collections.abc import Sequence

import torch

from engine.collect import Explorer, Sample, recorded
from traces.errors import UserError

GATE = {"cpu": 1e-5, "cuda": 1e-3}
"""largest |ratio - 1| before the first step, on the rollout's own batches"""
REPACKED = 1e-4
"""the same where decisions are packed into other batches, which moves float32 results"""


class RatioMismatch(UserError):
    """Recomputed log-probabilities differ from the recorded ones: the loss would be noise."""

    def __init__(self, deviation: float, limit: float, where: str):
        super().__init__(
            f"recomputed and recorded log-probabilities differ: max |ratio - 1| = {deviation:.3g} "
            f"on {where}, at most {limit:g} was expected; the policy that is trained is not the "
            "one that acted (weights, mode, precision or inputs changed in between)"
        )
        self.deviation = deviation


@torch.no_grad()
def check_gate(explorer: Explorer, calls: Sequence[Sequence[Sample | None]]) -> float:
    """Score whole calls of the rollout again, as they were batched.

    Returns:
        The largest |ratio - 1|.

    Raises:
        RatioMismatch: it is beyond the gate.
    """
    worst = 0.0
    for call in calls:
        log_ratio = explorer.log_probs(call) - recorded(call, explorer.n_executed)
        ratio = log_ratio.sum(1).exp()
        worst = max(worst, float((ratio - 1).abs().nan_to_num(float("inf")).max()))
    limit = GATE[next(explorer.loaded.policy.parameters()).device.type]
    if worst > limit:
        raise RatioMismatch(worst, limit, "the rollout's own batches")
    return worst

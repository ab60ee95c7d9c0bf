"""One update of the weights from collected samples: gate, epochs, mini-batches, micro-batches."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import nn

from engine import checkpoint
from engine.actor import BATCH
from engine.checkpoint import Restored
from engine.collect import Explorer, Sample, executed_rows, recorded
from engine.config import TrainConfig
from engine.evidence import keep_evidence
from engine.gate import REPACKED, RatioMismatch, check_gate
from engine.grpo import LOG_RATIO_LIMIT, Clip, diagnostics, surrogate

GATE_CALLS = 4  # of the rollout's policy calls that the gate scores again, spread evenly
MEMORY_ERRORS = (torch.OutOfMemoryError, MemoryError)

Alert = Callable[..., None]


class Learner:
    """The trained parameters, their optimizer and the policy they belong to."""

    def __init__(
        self,
        config: TrainConfig,
        explorer: Explorer,
        max_decisions: int,
        evidence: Path = Path("evidence"),
    ):
        self.config, self.explorer, self.evidence = config, explorer, evidence
        self.max_decisions = max_decisions
        """L_max, decisions of an episode that runs to the horizon"""
        self.head = explorer.sampler if isinstance(explorer.sampler, nn.Module) else None
        """learned part of the likelihood, which no checkpoint of the policy needs to act"""
        self.reference = copy.deepcopy(explorer.loaded.policy) if config.kl_beta else None
        """the policy that training began with, for the KL penalty"""
        self.trained = trained_parameters(explorer.loaded.policy, config.train, config.lora_rank)
        """by name, of the policy; the learned part of the likelihood aside"""
        self.parameters = [
            *self.trained.values(),
            *(self.head.parameters() if self.head else ()),
        ]
        self.optimizer = torch.optim.AdamW(
            self.parameters, config.lr, (0.9, 0.95), weight_decay=0.0
        )
        self.steps = 0
        """optimizer steps taken"""
        self.average = {name: p.detach().clone() for name, p in self.trained.items()}
        """of the trained weights, see `averaged`"""
        self.micro_batch = config.micro_batch
        self.clip = Clip(config.clip_low, config.clip_high, config.dual_clip)

    def update(
        self,
        update: int,
        calls: Sequence[Sequence[Sample | None]],
        samples: Sequence[Sample],
        n_episodes: int,
        alert: Alert,
        scored: Callable[[int], None] = lambda n: None,
    ) -> dict[str, float]:
        """Improve the policy on `samples`; returns metrics of the update.

        The loss of a sample is divided by the same number whatever the lengths of the episodes,
        n_episodes * L_max (Dr. GRPO, arXiv:2503.20783). `scored` is told, batch by batch, how many
        of the epochs * len(samples) decisions had their gradients taken.

        Raises:
            RatioMismatch: the gate is closed; no weight was changed.
        """
        chosen = calls[:: max(1, len(calls) // GATE_CALLS)][:GATE_CALLS]
        metrics = {"first_ratio_max_abs_dev": check_gate(self.explorer, chosen)}
        steps: list[dict[str, float]] = []
        done = 0
        before = [p.detach().clone() for p in self.parameters]
        for epoch in range(self.config.epochs):
            for batch in self._minibatches(samples, update, epoch):
                scale = self.config.minibatches / (n_episodes * self.max_decisions)
                where = f"update-{update:06d}-step-{len(steps):02d}"
                tell = partial(_add_to, done, scored)
                steps.append(self._step(batch, scale, where, not steps, alert, tell))
                done += len(batch)
        metrics |= {name: float(np.mean([s[name] for s in steps])) for name in steps[0]}
        metrics["ratio_max"] = max(s["ratio_max"] for s in steps)
        metrics["ratio_min"] = min(s["ratio_min"] for s in steps)
        moved = [
            (p.detach() - q).square().sum() for p, q in zip(self.parameters, before, strict=True)
        ]
        metrics["param_delta"] = math.sqrt(float(torch.stack(moved).sum()))
        metrics["lr"] = self.optimizer.param_groups[0]["lr"]
        self._take_into_average(update + 1)
        return metrics

    def _take_into_average(self, t: int) -> None:
        """Average the weights of updates 1 to t with weights that grow like t (t + 1).

        Polynomial-decay averaging (Shamir and Zhang, ICML 2013) with eta = 2: noise of single
        updates goes, and the beginning of training with it.
        """
        share = 3 / (t + 2) if self.config.average else 1.0
        for name, parameter in self.trained.items():
            self.average[name].lerp_(parameter.detach(), min(1.0, share))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the policy act with the average of its weights."""
        last = {name: p.detach().clone() for name, p in self.trained.items()}
        self._put(self.average)
        try:
            yield
        finally:
            self._put(last)

    @torch.no_grad()
    def _put(self, weights: dict[str, torch.Tensor]) -> None:
        for name, parameter in self.trained.items():
            parameter.copy_(weights[name])

    def resume(self, restored: Restored) -> None:
        """Go on from a checkpoint: weights, their average, moments, the likelihood's own part."""
        self._put(restored.weights)
        self.average = restored.average
        if self.head is not None:
            self.head.load_state_dict(restored.head)
        checkpoint.load_optimizer(self.optimizer, restored.optimizer)
        self.steps = restored.state["progress"]["steps"]

    def _minibatches(
        self, samples: Sequence[Sample], update: int, epoch: int
    ) -> Iterator[list[Sample]]:
        """Shuffle, and split into nearly equal parts; the order depends on the keys alone."""
        order = np.random.default_rng([self.config.seed, 3, update, epoch]).permutation(
            len(samples)
        )
        for part in np.array_split(order, min(self.config.minibatches, len(samples))):
            yield [samples[i] for i in part]

    def _step(
        self,
        batch: list[Sample],
        scale: float,
        where: str,
        first: bool,
        alert: Alert,
        scored: Callable[[int], None],
    ) -> dict[str, float]:
        """One optimizer step; out of memory, it is tried again with half the micro-batch.

        A step that is not finite is left out; what it was made of is kept as evidence.
        """
        while True:
            try:
                self.optimizer.zero_grad(set_to_none=True)
                log_ratio, advantage, loss = self._backward(batch, scale, first, scored)
                break
            except MEMORY_ERRORS:
                if self.micro_batch <= BATCH:
                    raise
                before = self.micro_batch
                self.micro_batch = max(BATCH, before // 2 // BATCH * BATCH)
                what = f"micro_batch {before} does not fit into memory; {self.micro_batch} is tried"
                alert("warn", "out_of_memory", before, self.micro_batch, what)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip))
        skipped = not (math.isfinite(norm) and math.isfinite(loss))
        if not skipped:
            self.steps += 1
            self.optimizer.param_groups[0]["lr"] = learning_rate(self.config, self.steps)
            self.optimizer.step()
        else:
            path = self.evidence / f"{where}.npz"
            keep_evidence(path, batch, log_ratio, list(self.trained.items()))
            what = f"optimizer step skipped: loss {loss:g}, gradient norm {norm:g}; see {path}"
            alert("error", "not_finite", norm, 0.0, what)
        return diagnostics(log_ratio, advantage, self.clip) | {
            "policy_loss": loss,
            "grad_norm": norm,
            "skipped": float(skipped),
        }

    def _backward(
        self,
        batch: list[Sample],
        scale: float,
        first: bool,
        scored: Callable[[int], None] = lambda n: None,
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Accumulate gradients over micro-batches; returns log-ratios, advantages and the loss."""
        log_ratios, advantages, total = [], [], 0.0
        for start in range(0, len(batch), self.micro_batch):
            part: list[Sample | None] = list(batch[start : start + self.micro_batch])
            part += [None] * (-len(part) % BATCH)
            n = self.explorer.n_executed
            log_ratio = self.explorer.log_probs(part) - recorded(part, n)  # (B, n)
            if first:
                self._check(log_ratio.detach().sum(1))
            advantage = torch.tensor([sample.advantage if sample else 0.0 for sample in part])
            used = executed_rows(part, n)
            if self.config.ratio == "chunk":
                log_ratio, used = log_ratio.sum(1, keepdim=True), used[:, :1]
            else:
                advantage = advantage / n
            advantage = advantage[:, None].expand_as(log_ratio)
            loss = scale * surrogate(log_ratio, advantage, self.clip)[used].sum()
            if self.reference is not None:
                divergence = self.explorer.divergences(part, self.reference).sum() / n
                loss = loss + self.config.kl_beta * scale * divergence
            loss.backward()
            log_ratios.append(log_ratio.detach()[used].numpy())
            advantages.append(advantage[used].numpy())
            total += float(loss.detach())
            scored(min(start + self.micro_batch, len(batch)))
        return np.concatenate(log_ratios), np.concatenate(advantages), total

    @staticmethod
    def _check(log_ratio: torch.Tensor) -> None:
        deviation = float((log_ratio.clamp(max=LOG_RATIO_LIMIT).exp() - 1).abs().max())
        if not deviation <= REPACKED:
            raise RatioMismatch(deviation, REPACKED, "the first mini-batch")


def _add_to(before: int, scored: Callable[[int], None], n: int) -> None:
    scored(before + n)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Of optimizer step 1, 2, ...: rises over the warm-up, falls in the second half."""
    total = config.updates * config.epochs * config.minibatches
    late = min(1.0, max(0.0, 2 * step / total - 1))  # 0 until half of the steps are done, 1 at last
    return config.lr * min(1.0, step / max(1, config.warmup)) * (1 - (1 - config.lr_end) * late)


def trained_parameters(
    policy: SmolVLAPolicy, part: str, lora_rank: int = 16
) -> dict[str, nn.Parameter]:
    """Switch gradients on for what learns, off for the rest; returns it by name.

    `expert`: the action expert with its projections, so that the prefix stays as it was; `full`:
    everything that reaches an action (lerobot freezes the head and the last VLM layer for good);
    `lora`: low-rank additions to all layers of both towers, and the projections as they are.
    """
    dead = dead_parameters(policy)
    policy.requires_grad_(False)
    if part == "lora":
        from engine.adapters import add_adapters  # peft takes a second to import

        add_adapters(policy, lora_rank, dead)
    chosen = {}
    for name, parameter in policy.named_parameters():
        in_prefix = "vlm_with_expert.vlm." in name or "state_proj" in name
        wanted = {
            "expert": not in_prefix,
            "full": True,
            "lora": ".lora_" in name or "vlm_with_expert" not in name,
        }[part]
        if wanted and not any(part in name for part in dead):
            chosen[name] = parameter
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    return chosen


def dead_parameters(policy: SmolVLAPolicy) -> tuple[str, ...]:
    """Parts of names of VLM weights that no action depends on."""
    last = policy.model.vlm_with_expert.num_vlm_layers - 1
    return (
        "lm_head",
        "text_model.norm.",
        *(f"text_model.layers.{last}.{part}" for part in DEAD_IN_LAST_LAYER),
    )


DEAD_IN_LAST_LAYER = ("mlp.", "post_attention_layernorm.", "self_attn.q_proj.", "self_attn.o_proj.")

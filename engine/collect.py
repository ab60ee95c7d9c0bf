"""Training rollouts: many episodes in lockstep, each slot taking the next one when it is free.

All slots act chunk by chunk: one policy call for those that run, then one message a worker to play
the chunks. A call has as many rows as there are running episodes, rounded up to a multiple of
`BATCH`; which episodes share a call follows from their outcomes alone, never from timing.
"""

import sys
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import Tensor

from engine import likelihoods
from engine.actor import BATCH, Actor, Decision, Request
from engine.envs.vector import VectorEnv
from engine.grpo import gaussian_kl
from engine.prefix import Field, Prefix
from engine.rollout import EpisodePlan, Running, episode_record, request_of, spools
from traces.spool import Spill
from traces.writer import EpisodeRecord


@dataclass
class Sample:
    """One decision with all that scoring it again needs."""

    request: Request
    chain: np.ndarray
    """(K+1, H, Z) float32"""
    log_prob: np.ndarray
    """(n_executed,) float64, of each action row under the policy that acted"""
    prefix: Prefix | None
    executed: int = 0
    """action rows that were sent before the episode ended"""
    advantage: float = 0.0


@dataclass
class Episode:
    """A finished training episode."""

    plan: EpisodePlan
    samples: list[Sample]
    record: EpisodeRecord

    @property
    def success(self) -> bool:
        """Whether the task was solved."""
        return bool(self.record.episode["success"])

    @property
    def n_steps(self) -> int:
        """Control steps it took."""
        return len(self.record.steps["t"])


class Explorer(Actor):
    """An actor that remembers its calls, row by row.

    With `keep_prefix` each decision also keeps its keys and values (frozen VLM).
    """

    def __init__(self, *args: object, keep_prefix: bool, **options: object):
        super().__init__(*args, wanted=(), **options)
        self.keep_prefix = keep_prefix
        self.calls: list[list[Sample | None]] = []
        self._prefix: Prefix | None = None

    def decide(self, requests: Sequence[Request | None]) -> list[Decision | None]:
        """As `Actor.decide`, and remember it."""
        decisions = super().decide(requests)
        prefixes = self._prefix.rows() if self.keep_prefix else [None] * len(requests)
        self.calls.append(
            [
                decision and Sample(request, decision.chain, decision.log_prob, prefix)
                for request, decision, prefix in zip(requests, decisions, prefixes, strict=True)
            ]
        )
        return decisions

    def log_probs(self, samples: Sequence[Sample | None]) -> Tensor:
        """(B, n) float64 log-probability of the action rows, as the policy is now.

        Rows that were not executed score 0, blank decisions too; n is the replanning interval.

        Args:
            samples: a multiple of BATCH; None is a blank decision.
        """
        chain, noise = self._replayed(samples)
        field = self._field(samples, self.loaded.policy)
        by_row = likelihoods.log_prob(self.sampler, field, chain, self.likelihood_dims, noise)
        return by_row[:, : self.n_executed] * executed_rows(samples, self.n_executed)

    def divergences(self, samples: Sequence[Sample | None], reference: SmolVLAPolicy) -> Tensor:
        """(B, n) KL(policy || reference) of the transitions, summed over steps and dimensions."""
        chain, noise = self._replayed(samples)
        mine, theirs = (
            self.sampler.module.transitions(
                self.sampler, self._field(samples, policy), chain, noise
            )
            for policy in (self.loaded.policy, reference)
        )
        total = chain.new_zeros(chain.shape[0], chain.shape[2], dtype=torch.float64)
        for (_, mean, std), (_, other, other_std) in zip(mine, theirs, strict=True):
            std, other_std = (torch.as_tensor(s).expand_as(mean).double() for s in (std, other_std))
            kl = gaussian_kl(mean.double(), std, other.double(), other_std)
            total += kl[..., self.likelihood_dims].sum(-1)
        return total[:, : self.n_executed] * executed_rows(samples, self.n_executed)

    def _replayed(self, samples: Sequence[Sample | None]) -> tuple[Tensor, Tensor | None]:
        """Stored chains (B, K+1, H, Z), and the noise again where the likelihood needs it."""
        some = next(sample for sample in samples if sample is not None)
        chain = torch.from_numpy(np.stack([(sample or some).chain for sample in samples]))
        if not self.sampler.replays_noise:
            return chain, None
        return chain, self._noise([sample and sample.request for sample in samples])[1]

    def _field(self, samples: Sequence[Sample | None], policy: SmolVLAPolicy) -> Field:
        """A policy's velocity on these observations; kept prefixes fit any copy with this VLM."""
        some = next(sample for sample in samples if sample is not None)
        if some.prefix is not None:
            return Field(policy, Prefix.stacked([(sample or some).prefix for sample in samples]))
        batch = self._batch([sample and sample.request for sample in samples])
        return Field(policy, Prefix.computed(policy, batch))

    def _velocity(self, batch: dict[str, Tensor]) -> Field:
        self._prefix = Prefix.computed(self.loaded.policy, batch)
        return Field(self.loaded.policy, self._prefix)


def executed_rows(samples: Sequence[Sample | None], n: int) -> Tensor:
    """(B, n) bool, which action rows of each decision were sent."""
    executed = torch.tensor([sample.executed if sample else 0 for sample in samples])
    return torch.arange(n) < executed[:, None]


def recorded(samples: Sequence[Sample | None], n: int) -> Tensor:
    """(B, n) float64 log-probability of the action rows when they acted; 0 as in `log_probs`."""
    rows = torch.zeros((len(samples), n), dtype=torch.float64)
    for i, sample in enumerate(samples):
        if sample is not None:
            rows[i, : sample.executed] = torch.from_numpy(sample.log_prob[: sample.executed])
    return rows


def play(
    env: VectorEnv,
    actor: Actor,
    plans: Sequence[EpisodePlan],
    n_slots: int,
    finished: Callable[[Episode], None] = lambda episode: None,
    keep: Collection[str] = (),
) -> list[Episode]:
    """Play episodes to their end; returns them in the order of the plans.

    Args:
        env: at least `n_slots` environments of the plans' task.
        actor: who acts; an `Explorer` leaves the samples of its calls in the episodes.
        plans: any number of them.
        n_slots: episodes that run at the same time.
        finished: is told of each episode as soon as it has ended.
        keep: what else goes into the records, as in `run_block`.
    """
    waiting = deque(enumerate(plans))
    running: dict[int, tuple[int, Running, list[Sample]]] = {}
    done: dict[int, Episode] = {}
    while waiting or running:
        free = [slot for slot in range(n_slots) if slot not in running]
        starting = {slot: waiting.popleft() for slot in free[: len(waiting)]}
        scenes = {s: (plan.scene_seed, plan.init_state) for s, (_, plan) in starting.items()}
        for slot, moment in env.reset(scenes, frames=False).items() if scenes else ():
            number, plan = starting[slot]
            kept = spools(actor, Spill(sys.maxsize))
            running[slot] = (number, Running(plan, slot, moment, kept), [])
        slots = sorted(running)
        _decide(actor, [running[slot] for slot in slots])
        chunks = {slot: _chunk(running[slot][1]) for slot in slots}
        for slot, moments in env.play(chunks, frames=False).items():
            number, episode, samples = running[slot]
            for moment in moments:
                episode.next_action()
                episode.moment = moment
            if samples:
                samples[-1].executed = len(moments)
            if moments[-1].terminated or moments[-1].truncated:
                del running[slot]
                record = episode_record(episode, actor, keep)
                done[number] = Episode(episode.plan, samples, record)
                finished(done[number])
    return [done[number] for number in range(len(plans))]


def _decide(actor: Actor, asking: list[tuple[int, Running, list[Sample]]]) -> None:
    """One policy call for all episodes, blank rows up to a multiple of BATCH."""
    requests: list[Request | None] = [None] * (-len(asking) % BATCH + len(asking))
    for row, (_, episode, _) in enumerate(asking):
        requests[row] = request_of(
            episode.plan, episode.moment, len(episode.decisions), len(episode.sent)
        )
    decisions = actor.decide(requests)[: len(asking)]
    for row, ((_, episode, samples), decision) in enumerate(zip(asking, decisions, strict=True)):
        episode.add(decision)
        if isinstance(actor, Explorer):
            samples.append(actor.calls[-1][row])


def _chunk(episode: Running) -> np.ndarray:
    """(n, A) actions of the last decision, clipped to what the environment takes."""
    return np.clip(episode.decisions[-1][1].action, -1.0, 1.0)

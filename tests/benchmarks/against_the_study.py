"""Our update against the study's, on the same policy, task and episodes: time and memory.

    python -P tests/benchmarks/against_the_study.py [GROUP_SIZE]

The study's way, from its formulas: one environment, a policy call of one row every control step, a
Gaussian around the end of ten Euler steps; in the update the prefix is computed anew for chunks of
five decisions, and gradients run back through all denoising steps. Ours: episodes in lockstep, a
call every ten steps, flow-SDE on stored chains with kept keys and values. Both train the expert
only and play the same scene. Asked: 20 times less wall time a group, and in the update 4 times less
memory, which is what autograd keeps for the largest micro-batch; ours depends on how many decisions
that holds and on how many denoising steps are stochastic, so there are several rows.
"""

import os
import platform
import sys
import time

import numpy as np
import torch

from engine import actor, collect
from engine.actor import Actor, action_statistics
from engine.collect import Explorer, executed_rows, play, recorded
from engine.config import TrainConfig
from engine.envs.vector import VectorEnv
from engine.evaluate import held_out
from engine.grpo import Clip, surrogate
from engine.learn import trained_parameters
from engine.likelihoods.flow_sde import FlowSDE
from engine.likelihoods.gaussian import Gaussian
from engine.noise import NoiseKey
from engine.policies.smolvla import EMBEDDED, load_policy

TASK, SCENE = 1, 3
STUDY_CHUNK, STUDY_STEPS = 5, 10
OURS = {"ours": (64, 0), "ours, 16": (16, 0), "ours, 8": (8, 0), "ours, 8, one step": (8, 1)}
"""Name to decisions in memory at once, and stochastic denoising steps (0: all)."""


class Kept:
    """Counts the bytes that autograd keeps between forward and backward."""

    def __init__(self):
        self.now = self.peak = 0
        self._seen = set()

    def pack(self, tensor):
        """Count each storage once."""
        place = tensor.untyped_storage().data_ptr()
        if place not in self._seen:
            self._seen.add(place)
            self.now += tensor.untyped_storage().nbytes()
            self.peak = max(self.peak, self.now)
        return tensor

    def fresh(self):
        """A new micro-batch."""
        self.now, self._seen = 0, set()
        return torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor)


def plans(size):
    """One group: one scene, different noise."""
    one = held_out("tabletop", TASK, SCENE)
    return [
        type(one)(**{**one.__dict__, "key": NoiseKey(0, 0, 0, member)}) for member in range(size)
    ]


def learn(explorer, samples, micro_batch, kept):
    """One gradient over all samples; the micro-batch is what is in memory at once."""
    parameters = list(trained_parameters(explorer.loaded.policy, "expert").values())
    optimizer = torch.optim.AdamW(parameters, TrainConfig().lr)
    n = explorer.n_executed
    for start in range(0, len(samples), micro_batch):
        part = list(samples[start : start + micro_batch])
        part += [None] * (-len(part) % actor.BATCH)
        with kept.fresh():
            log_ratio = (explorer.log_probs(part) - recorded(part, n))[executed_rows(part, n)]
            loss = surrogate(log_ratio, torch.ones_like(log_ratio), Clip()).sum()
        loss.backward()
    optimizer.step()


def measure(explorer, size, slots, micro_batch):
    """Seconds of rollout and update of one group, decisions, bytes kept."""
    with VectorEnv("tabletop", TASK, slots, min(slots, 2)) as env:
        warm = Actor(explorer.loaded, FlowSDE(1, 0.0), 10, wanted=())
        play(env, warm, plans(1), 1)
        began = time.perf_counter()
        episodes = play(env, explorer, plans(size), slots)
        rollout = time.perf_counter() - began
    samples = [sample for episode in episodes for sample in episode.samples]
    kept = Kept()
    began = time.perf_counter()
    learn(explorer, samples, micro_batch, kept)
    return rollout, time.perf_counter() - began, len(samples), kept.peak


def main():
    """Print one table."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    print(
        f"against_the_study on {platform.machine()}, {os.cpu_count()} cores, one group of {size}, "
        f"scene {SCENE}, no resampling"
    )
    titles = ("rollout s", "update s", "group s", "decisions", "kept MB")
    print(f"{'way':>18}" + "".join(f"{title:>12}" for title in titles))
    totals = {}
    for way, (micro_batch, stochastic) in OURS.items():
        sampler = FlowSDE(4, 0.7, stochastic_steps=stochastic)
        explorer = Explorer(load_policy(EMBEDDED), sampler, 10, keep_prefix=True)
        totals[way] = told(way, measure(explorer, size, size, micro_batch))
    actor.BATCH = collect.BATCH = 1  # no blank rows: the study's calls have one
    loaded = load_policy(EMBEDDED)
    head = Gaussian(STUDY_STEPS, **action_statistics(loaded))
    explorer = Explorer(loaded, head, 1, keep_prefix=False)
    study = told("study", measure(explorer, size, 1, STUDY_CHUNK))
    for way, ours in totals.items():
        ratio = study / ours
        print(f"study / {way}: {ratio[0]:.1f} times the wall time, {ratio[1]:.1f} times the memory")


def told(way, found):
    """Print a row; returns wall time and memory."""
    rollout, update, decisions, kept = found
    numbers = f"{rollout:12.1f}{update:12.1f}{rollout + update:12.1f}{decisions:12}"
    print(f"{way:>18}{numbers}{kept / 1e6:12.1f}", flush=True)
    return np.array([rollout + update, kept])


if __name__ == "__main__":
    main()

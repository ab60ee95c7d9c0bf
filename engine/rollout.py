"""Environment and policy in lockstep: the one loop that makes episodes.

Episodes run in blocks of `BATCH`. Which episodes share a block, and which row each takes, follows
from their order alone, so the number of workers changes no byte. A block ends when its last
episode does; rows whose episode is over are blank.
"""

import json
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import imageio.v3 as iio
import numpy as np

from engine.actor import BATCH, Actor, Decision, Request
from engine.envs.vector import Moment, VectorEnv
from engine.noise import NoiseKey
from engine.policies.smolvla import policy_state
from traces.spool import Spill, Spool
from traces.writer import EpisodeRecord, Stream

CHAIN = "chain"


@dataclass(frozen=True)
class EpisodePlan:
    """What decides one episode, policy and condition aside."""

    uid: str
    task_name: str
    task_id: int
    suite: str
    instruction: str
    """what the policy is told"""
    init_state: int
    scene_seed: int
    key: NoiseKey
    video: bool = False

    @property
    def pair_key(self) -> str:
        """Equal for the same scene and noise under another condition."""
        return f"{self.suite}/{self.task_id}/i{self.init_state}/s{self.scene_seed}/n{self.key}"


@dataclass
class Running:
    """An episode while it runs."""

    plan: EpisodePlan
    slot: int
    moment: Moment
    spools: dict[str, Spool]
    """chain, and activations by site; one row a decision"""
    moments: list[Moment] = field(default_factory=list)
    decisions: list[tuple[int, Decision]] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sent: list[np.ndarray] = field(default_factory=list)
    done: bool = False
    wall_s: float = 0.0

    @property
    def needs_decision(self) -> bool:
        """Whether it has no action left to send."""
        return not self.done and (not self.decisions or self.chunk_is_used)

    @property
    def chunk_is_used(self) -> bool:
        """Whether every row of the last decision was sent, so the next step starts with a look."""
        return self._used == len(self.decisions[-1][1].action)

    @property
    def _used(self) -> int:
        return len(self.sent) - self.decisions[-1][0]

    def add(self, decision: Decision) -> None:
        """Take a decision; what is large of it waits in the spools."""
        for name, row in ({CHAIN: decision.chain} | decision.activations).items():
            self.spools[name].append(row)
        self.decisions.append((len(self.sent), replace(decision, chain=None, activations={})))

    def next_action(self) -> np.ndarray:
        """The next row of the chunk, clipped to what the environment takes."""
        self.offsets.append(self._used)
        action = self.decisions[-1][1].action[self._used]
        self.sent.append(np.clip(action, -1.0, 1.0))
        self.moments.append(self.moment)
        return self.sent[-1]


def run_block(
    env: VectorEnv,
    actor: Actor,
    plans: list[EpisodePlan],
    spill: Spill | None = None,
    keep: Collection[str] = (),
) -> list[tuple[EpisodeRecord, list[np.ndarray]]]:
    """Run up to BATCH episodes to their end.

    Args:
        env: where they run.
        actor: who acts, and what of it is recorded.
        plans: up to BATCH of them.
        spill: where activations wait for the end of the block; None: in memory, all of them.
        keep: what else goes into the records: `frames`, what the policy saw, as lossless PNG;
            `sim`, the simulator's states.

    Returns:
        Per plan, in order: the record, and video frames if the plan asked for them.
    """
    began = time.perf_counter()
    frames = any(plan.video for plan in plans)
    scenes = {slot: (plan.scene_seed, plan.init_state) for slot, plan in enumerate(plans)}
    moments = env.reset(scenes, frames)
    spill = spill or Spill(sys.maxsize)
    running = [
        Running(plan, slot, moments[slot], spools(actor, spill)) for slot, plan in enumerate(plans)
    ]
    while not all(episode.done for episode in running):
        _decide(actor, running)
        actions = {e.slot: e.next_action() for e in running if not e.done}
        looking = [e.slot for e in running if not e.done and e.chunk_is_used]
        for slot, moment in env.step(actions, looking, frames).items():
            episode = running[slot]
            episode.moment = moment
            episode.done = moment.terminated or moment.truncated
            episode.wall_s = time.perf_counter() - began
    return [(episode_record(e, actor, keep), _frames(e)) for e in running]


def first_requests(env: VectorEnv, plans: list[EpisodePlan]) -> list[Request | None]:
    """What the policy is asked first in each of up to BATCH episodes."""
    scenes = {slot: (plan.scene_seed, plan.init_state) for slot, plan in enumerate(plans)}
    moments = env.reset(scenes, False)
    asked = [request_of(plan, moments[slot], 0, 0) for slot, plan in enumerate(plans)]
    return [*asked, *[None] * (BATCH - len(asked))]


def _decide(actor: Actor, running: list[Running]) -> None:
    requests: list[Request | None] = [None] * BATCH
    for e in running:
        if e.needs_decision:
            requests[e.slot] = request_of(e.plan, e.moment, len(e.decisions), len(e.sent))
    if not any(requests):
        return
    for e, decision in zip(running, actor.decide(requests)[: len(running)], strict=True):
        if decision is not None:
            e.add(decision)


def request_of(plan: EpisodePlan, moment: Moment, decision: int, step: int) -> Request:
    """What the policy is asked in an episode's decision of that number, at that control step."""
    seen = moment.observation
    return Request(
        pixels=seen["pixels"],
        state=policy_state(seen["robot_state"]),
        instruction=plan.instruction,
        key=plan.key,
        decision=decision,
        step=step,
        scene=(plan.scene_seed, plan.init_state),
    )


def spools(actor: Actor, spill: Spill) -> dict[str, Spool]:
    """Where chain and activations of an episode wait until it ends."""
    chain = spill.spool((actor.sampler.steps + 1, *actor.chunk_shape), "float32")
    sites = {site.name: spill.spool(site.shape, "float32") for site in actor.capture.sites}
    return {CHAIN: chain} | sites


def _frames(episode: Running) -> list[np.ndarray]:
    if not episode.plan.video:
        return []
    return [m.frame for m in (*episode.moments, episode.moment)]


def _seen(e: Running) -> dict[str, Stream]:
    """Camera to the steps of decisions and the policy's pictures there."""
    starts = [start for start, _ in e.decisions]
    return {
        camera: (starts, [_png(e.moments[t].observation["pixels"][camera]) for t in starts])
        for camera in e.moments[0].observation["pixels"]
    }


def _simulated(e: Running) -> Stream:
    """The simulator's state before every step; the last step brings also the one after it."""
    states = [m.sim_state for m in e.moments]
    states[-1] = np.concatenate([states[-1], e.moment.sim_state])
    return range(len(states)), states


def _png(picture: np.ndarray) -> bytes:
    return iio.imwrite("<bytes>", picture, extension=".png")


def episode_record(e: Running, actor: Actor, keep: Collection[str]) -> EpisodeRecord:
    """A finished episode as the trace takes it."""
    decisions = [d for _, d in e.decisions]
    starts = [start for start, _ in e.decisions]
    executed = np.diff([*starts, len(e.sent)])
    decision_of_step = np.repeat(np.arange(len(decisions)), executed)
    rows = list(zip(decision_of_step, e.offsets, strict=True))
    robots = [m.observation["robot_state"] for m in e.moments]
    rewards = [m.reward for m in (*e.moments[1:], e.moment)]
    log_prob, log_prob_base = (
        np.array([getattr(decisions[d], name)[c] for d, c in rows])
        for name in ("log_prob", "log_prob_base")
    )
    plan, n_objects = e.plan, len(e.moment.objects)
    poses = np.concatenate([m.objects for m in e.moments])  # (T * objects, 7)
    return EpisodeRecord(
        episode={
            "uid": plan.uid,
            "update": plan.key.update,
            "group": plan.key.group,
            "attempt": 0,
            "member": plan.key.member,
            "policy_version": 0,
            "suite": plan.suite,
            "task_id": plan.task_id,
            "task_name": plan.task_name,
            "instruction": plan.instruction,
            "prefix_layout": json.dumps(actor.prefix_layout),
            "init_state": plan.init_state,
            "scene_seed": plan.scene_seed,
            "noise_key": str(plan.key),
            "pair_key": plan.pair_key,
            "success": e.moment.success,
            "terminated": e.moment.terminated,
            "truncated": e.moment.truncated,
            "return": float(np.sum(rewards)),
            "final_ee_pos": e.moment.observation["robot_state"]["eef"]["pos"],
            "wall_s": e.wall_s,
        },
        steps={
            "t": np.arange(len(e.sent)),
            "decision": decision_of_step,
            "chunk_offset": np.array(e.offsets),
            "action": np.array(e.sent),
            "action_policy": np.array([decisions[d].action[c] for d, c in rows]),
            "log_prob": log_prob,
            "log_prob_base": log_prob_base,
            "reward": np.array(rewards),
            "ee_pos": np.array([r["eef"]["pos"] for r in robots]),
            "ee_quat": np.array([r["eef"]["quat"] for r in robots]),
            "gripper": np.array([r["gripper"]["qpos"] for r in robots]),
            "state": np.array([policy_state(r) for r in robots]),
            "contact": np.array([m.contact for m in e.moments]),
            "contact_force": np.array([m.contact_force for m in e.moments]),
            "intervened": np.array([decisions[d].intervened for d, _ in rows]),
        },
        decisions={
            "t": np.array(starts),
            "n_executed": executed,
            "log_prob": np.bincount(decision_of_step, log_prob),
            "log_prob_base": np.bincount(decision_of_step, log_prob_base),
            "noise_std": np.tile(np.float32(actor.sampler.stds()), (len(decisions), 1)),
            "noise_key": [d.noise_key for d in decisions],
            "chain": e.spools[CHAIN],
            "tokens": np.array([d.tokens for d in decisions]),
            "token_mask": np.array([d.token_mask for d in decisions]),
            "obs_hash": [d.obs_hash for d in decisions],
            "policy_ms": np.array([d.policy_ms for d in decisions]),
        },
        activations={name: spool for name, spool in e.spools.items() if name != CHAIN},
        frames=_seen(e) if "frames" in keep else None,
        sim_state=_simulated(e) if "sim" in keep else None,
        objects={
            "step": np.repeat(np.arange(len(e.sent)), n_objects),
            "object": np.tile(np.arange(n_objects), len(e.sent)),
            "pos": poses[:, :3],
            "quat": poses[:, 3:],
        },
    )

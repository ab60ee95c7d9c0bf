"""Run a recording again and say whether it comes out the same, bit for bit.

A trace carries its whole configuration, intervention and weights hash. The same blocks of the same
episodes are run again, because rows of one batch share its policy calls; what is compared is the
bytes of actions and denoising chains. They are equal on the same machine with the same packages;
another processor, another torch or other weights need not give the same bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.actor import BATCH, THREADS, Actor
from engine.config import RecordConfig
from engine.envs.vector import VectorEnv
from engine.likelihoods.flow_sde import FlowSDE
from engine.policies.smolvla import load_policy
from engine.provenance import PACKAGES, checkout, package_versions
from engine.record import episode_plans
from engine.rollout import run_block
from traces.collection import TraceCollection, open_traces
from traces.errors import UserError
from traces.header import TraceHeader
from traces.writer import EpisodeRecord

COMPARED = {"steps": ("action",), "decisions": ("chain", "log_prob")}


@dataclass(frozen=True)
class Difference:
    """The first thing of an episode that came out different."""

    uid: str
    column: str
    step: int
    """control step at which it differs first; for a difference in length, the shorter length"""
    largest: float
    """largest absolute difference of the column over what both have; NaN if nothing overlaps"""


@dataclass(frozen=True)
class Replay:
    """How a replay compares with its recording."""

    episodes: int
    differences: tuple[Difference, ...]
    """One per episode that differs."""
    notes: tuple[str, ...]
    """What is not as it was when it was recorded."""

    @property
    def equal(self) -> int:
        """Episodes that came out the same."""
        return self.episodes - len(self.differences)


def replay(
    path: Path | str,
    policy: str = "",
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Replay:
    """Run the episodes of one recording again and compare.

    Args:
        path: a trace; the first shard stands for all of them.
        policy: where the weights are now; empty: where the recording found them.
        workers: environment processes.
        progress: told episodes done and in all, after every block.

    Raises:
        UserError: not a recording of `vla-trace record`, or other weights.
    """
    with open_traces(path) as traces:
        recordings = traces.recordings()
        if len(recordings) != 1:
            raise UserError(f"{path} holds {len(recordings)} recordings; replay one at a time")
        header = recordings[0].header
        config = _config(header)
        loaded = load_policy(policy or config.policy, config.steps)
        _check_weights(traces, loaded.sha256, policy or config.policy)
        sampler = FlowSDE(loaded.policy.config.num_steps, config.noise_level)
        actor = Actor(loaded, sampler, config.replan, header.intervention)
        recorded = {str(uid): i for i, uid in enumerate(traces.episodes("uid")["uid"])}
        plans = episode_plans(config, header.run_id, header.condition)
        actor.expect([(plan.scene_seed, plan.init_state) for plan in plans])
        wanted = [i for i, plan in enumerate(plans) if plan.uid in recorded]
        if len(wanted) != len(recorded):
            raise UserError(f"{path} has episodes that its configuration does not lead to")
        differences, done = [], 0
        with VectorEnv(config.suite, config.task_id, BATCH, workers) as env:
            for start in range(0, max(wanted, default=-1) + 1, BATCH):
                block = plans[start : start + BATCH]
                if not any(plan.uid in recorded for plan in block):
                    continue
                for plan, (record, _) in zip(block, run_block(env, actor, block), strict=True):
                    if plan.uid in recorded:
                        differences += _difference(traces, recorded[plan.uid], plan.uid, record)
                        done += 1
                progress(done, len(recorded))
    return Replay(len(recorded), tuple(differences), tuple(_notes(header)))


def _config(header: TraceHeader) -> RecordConfig:
    if header.kind != "record":
        raise UserError(f"a trace of kind {header.kind!r} cannot be replayed, only 'record'")
    return RecordConfig.from_dict(header.config | {"video": ""})


def _check_weights(traces: TraceCollection, sha256: str, policy: str) -> None:
    found = {str(sha) for sha in traces.table("policies", "sha256")["sha256"]}
    if found != {sha256}:
        raise UserError(
            f"recorded with the weights {', '.join(sha[:8] for sha in sorted(found))}, but "
            f"{policy!r} has {sha256[:8]}; say where the recorded weights are: --policy FOLDER"
        )


def _notes(header: TraceHeader) -> list[str]:
    now = package_versions()
    notes = [
        f"{name} was {header.versions[name]}, is {now[name]}"
        for name in PACKAGES
        if name in header.versions and header.versions[name] != now[name]
    ]
    if (was := header.versions.get("git")) and was != (now := checkout()):
        notes.append(f"the code was {_commit(was)}, is {_commit(now)}")
    for name, present in (("batch", BATCH), ("threads", THREADS)):
        if (was := header.config.get(name, present)) != present:
            notes.append(f"{name} was {was}, is {present}")
    return notes


def _commit(git: dict | None) -> str:
    """A commit for people: the first letters of it, and whether files were changed since."""
    if git is None:
        return "not a checkout"
    return f"commit {str(git.get('commit'))[:8]}{', changed' if git.get('dirty') else ''}"


def _difference(
    traces: TraceCollection, episode: int, uid: str, record: EpisodeRecord
) -> list[Difference]:
    """The first difference of an episode, or none."""
    for table, columns in COMPARED.items():
        old = getattr(traces, table)(episode=episode)
        for column in columns:
            if column not in old:
                continue
            was, now = old[column], np.asarray(getattr(record, table)[column], old[column].dtype)
            start_of = old["t"]
            n = min(len(was), len(now))
            same = np.array([was[i].tobytes() == now[i].tobytes() for i in range(n)], bool)
            if len(was) == len(now) and same.all():
                continue
            first = int(np.argmin(same)) if not same.all() else n
            step = int(start_of[min(first, len(start_of) - 1)]) if len(start_of) else 0
            gap = np.abs(was[:n].astype(float) - now[:n]) if n else np.array([np.nan])
            return [Difference(uid, f"{table}/{column}", step, float(np.nanmax(gap)))]
    return []

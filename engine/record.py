"""Record rollouts: a trace per condition, the same scenes and noise in each, and a run directory.

Conditions run one after the other. Every one plays the same episodes: same scene seed, initial
state and denoising noise (`pair_key`), so that it can be compared with the baseline pair by pair.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from engine.actor import BATCH, Actor
from engine.config import RecordConfig
from engine.cost import checked_cost
from engine.dose import measure
from engine.envs import load_suite
from engine.envs.vector import VectorEnv
from engine.likelihoods.flow_sde import FlowSDE
from engine.noise import NoiseKey
from engine.policies.smolvla import LoadedPolicy
from engine.rollout import EpisodePlan, first_requests, run_block
from engine.runs import RUNS, Listener, interruptible, new_run
from engine.trace_header import trace_header
from traces.catalog import unused_path
from traces.condition import BASELINE, Condition
from traces.events import EventWriter
from traces.schema import episode_uid
from traces.shards import ClosedShard, Rotation, ShardedWriter
from traces.spool import Spill
from traces.writer import EpisodeRecord

FILMED = 4  # episodes of a condition that `--video` films
SPILL_BYTES = 256 * 2**20  # activations of a block that stay in memory until it ends


def record(
    config: RecordConfig,
    loaded: LoadedPolicy,
    conditions: Sequence[Condition],
    run_id: str,
    listen: Listener = lambda kind, fields: None,
    finished: Mapping[str, list[Path]] | None = None,
) -> list[Path]:
    """Record every condition and return the files written.

    Args:
        config: what every condition has in common.
        loaded: the policy.
        conditions: the arms, with different labels.
        run_id: names the run, its folder and its files.
        listen: told every event as it is logged.
        finished: labels and files of conditions that an earlier start of this run completed; they
            are not recorded again. None: a new run.

    The first Ctrl-C ends the recording after the present block of episodes, with closed files;
    the second one at once, leaving a readable `.partial`.

    Raises:
        UserError: an intervention that cannot act, a folder that cannot be written, a run of that
            name that exists. All before the first episode.
        KeyboardInterrupt: after the files were closed.
    """
    sampler = FlowSDE(loaded.policy.config.num_steps, config.noise_level)
    actors = [
        Actor(
            loaded,
            sampler,
            config.replan,
            condition.intervention,
            config.capture,
            config.keeps_base,
        )
        for condition in conditions
    ]
    scenes = [
        (plan.scene_seed, plan.init_state) for plan in episode_plans(config, run_id, BASELINE)
    ]
    for actor in actors:
        actor.expect(scenes)
    cost = checked_cost(config, actors)
    folder = new_run(run_id, config, conditions) if finished is None else RUNS / run_id
    paths: list[Path] = []
    with EventWriter(folder / "events.jsonl") as events, interruptible(listen) as interrupted:

        def emit(kind: str, /, **fields: object) -> None:
            events.emit(kind, **fields)
            listen(kind, fields)

        emit("run_start", **_run_start(config, loaded, conditions, run_id))
        emit("alert", level="info", text=str(cost))
        status, error = "finished", ""
        try:
            with VectorEnv(config.suite, config.task_id, BATCH, config.workers) as env:
                for condition, actor in zip(conditions, actors, strict=True):
                    if finished and condition.label in finished:
                        paths += finished[condition.label]
                    elif not interrupted():
                        paths += _record(config, condition, actor, env, run_id, emit, interrupted)
            if interrupted():
                raise KeyboardInterrupt
        except BaseException as problem:
            status = "interrupted" if isinstance(problem, KeyboardInterrupt) else "failed"
            error = str(problem)
            raise
        finally:
            emit("run_end", status=status, error=error, files=[str(path) for path in paths])
    return paths


def _record(
    config: RecordConfig,
    condition: Condition,
    actor: Actor,
    env: VectorEnv,
    run_id: str,
    emit: Callable,
    interrupted: Callable[[], bool],
) -> list[Path]:
    """Run all episodes of one condition; returns its shards and its videos."""
    name = condition.label
    emit("phase", name=name)
    task = load_suite(config.suite).TASKS[config.task_id]
    path = unused_path(config.out, f"{task.name}-{condition.slug}-{run_id}", ".h5")
    plans = episode_plans(config, run_id, condition)
    written, videos, beat = 0, [], time.monotonic()
    dose = None
    if actor.intervention is not None:
        dose = measure(actor, first_requests(env, plans[:BATCH]))
    if dose and "control" not in actor.intervention.provenance:
        emit("alert", level="info", text=f"{name}: {dose}")

    def announce(shard: ClosedShard) -> None:
        fields = asdict(shard) | {"path": str(shard.path)}
        emit("shard", condition=name, **fields)

    with ShardedWriter(
        path,
        trace_header(config, condition, actor, run_id, "record", dose),
        actor.capture.sites,
        rotation=Rotation(
            config.shard_episodes or None, config.shard_bytes or None, config.shard_seconds or None
        ),
        closed=announce,
        object_names=load_suite(config.suite).OBJECT_NAMES,
        cameras=tuple(load_suite(config.suite).CAMERAS) if "frames" in config.keep else (),
        keep_sim_state="sim" in config.keep,
    ) as trace:
        trace.write_policy(0, 0, actor.loaded.sha256, config.policy)
        for start in range(0, len(plans), BATCH):
            block = plans[start : start + BATCH]
            spill = Spill(SPILL_BYTES, config.out)
            done = run_block(env, actor, block, spill, config.keep)
            for plan, (episode, frames) in zip(block, done, strict=True):
                trace.write_episode(episode)
                emit(
                    "episode",
                    condition=name,
                    alpha=condition.alpha,
                    **_summary(plan, written, episode),
                )
                if frames:
                    videos.append(_film(path, written, frames, config))
                written += 1
            del done, episode  # not to be in memory together with the next block
            if time.monotonic() - beat > 5:
                emit("heartbeat")
                beat = time.monotonic()
            if interrupted():
                break
    if written == len(plans):
        emit("condition", name=name, files=[str(path) for path in trace.paths])
    return [*trace.paths, *videos]


def episode_plans(config: RecordConfig, run_id: str, condition: Condition) -> list[EpisodePlan]:
    """Episode i plays scene seed + i from initial state (seed + i) mod 50."""
    suite = load_suite(config.suite)
    plans = []
    for i in range(config.episodes):
        init_state = (config.seed + i) % suite.N_INIT_STATES
        plans.append(
            EpisodePlan(
                uid=episode_uid(f"{run_id}/{condition.slug}", 0, i, 0, 0),
                task_name=suite.TASKS[config.task_id].name,
                task_id=config.task_id,
                suite=config.suite,
                instruction=condition.told(
                    suite.instruction_of(config.task_id, init_state),
                    suite.other_instruction_of(config.task_id, init_state),
                ),
                init_state=init_state,
                scene_seed=config.seed + i,
                key=NoiseKey(config.seed, 0, i, 0),
                video=bool(config.video) and i < FILMED,
            )
        )
    return plans


def _run_start(
    config: RecordConfig,
    loaded: LoadedPolicy,
    conditions: Sequence[Condition],
    run_id: str,
) -> dict:
    return {
        "run_id": run_id,
        "kind": "record",
        "pid": os.getpid(),
        "host": platform.node(),
        "suite": config.suite,
        "task_id": config.task_id,
        "task_name": load_suite(config.suite).TASKS[config.task_id].name,
        "policy": loaded.name,
        "policy_sha256": loaded.sha256,
        "conditions": [{"name": c.label, "role": c.role, "alpha": c.alpha} for c in conditions],
        "episodes_total": config.episodes * len(conditions),
        "config": asdict(config),
    }


def _summary(plan: EpisodePlan, number: int, record: EpisodeRecord) -> dict:
    """The fields of an `episode` event."""
    path = np.vstack([record.steps["ee_pos"], record.episode["final_ee_pos"]])
    return {
        "episode": number,
        "uid": plan.uid,
        "pair_key": plan.pair_key,
        "task_id": plan.task_id,
        "init_state": plan.init_state,
        "scene_seed": plan.scene_seed,
        "success": bool(record.episode["success"]),
        "n_steps": len(record.steps["t"]),
        "meed_cm": 100 * float(np.linalg.norm(np.diff(path, axis=0), axis=1).mean()),
        "return": record.episode["return"],
    }


def _film(trace: Path, episode: int, frames: list[np.ndarray], config: RecordConfig) -> Path:
    """Write one episode's video beside the trace."""
    import imageio.v3 as iio

    hz = load_suite(config.suite).CONTROL_HZ
    path = unused_path(trace.parent, f"{trace.stem}-e{episode:03d}", f".{config.video}")
    timing = {"fps": hz} if config.video == "mp4" else {"duration": 1000 / hz, "loop": 0}
    iio.imwrite(path, np.stack(frames), **timing)
    return path

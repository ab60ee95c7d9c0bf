"""Record rollouts: a trace per condition, the same scenes and noise in each, and a run directory.

Conditions run one after the other. The baseline is the condition without an intervention; a
steered episode and its baseline share scene seed, initial state and denoising noise (`pair_key`).
"""

import importlib.metadata
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import yaml

from engine.actor import BATCH, THREADS, Actor
from engine.config import RecordConfig, TrainConfig
from engine.cost import checked_cost
from engine.envs import load_suite
from engine.envs.vector import VectorEnv
from engine.likelihoods.flow_sde import FlowSDE
from engine.noise import NoiseKey
from engine.policies.smolvla import LoadedPolicy
from engine.rollout import EpisodePlan, run_block
from traces.catalog import unused_path
from traces.errors import FileExists, UnwritableFolder
from traces.events import EventWriter
from traces.intervention import Intervention
from traces.schema import episode_uid
from traces.shards import ClosedShard, Rotation, ShardedWriter
from traces.spool import Spill
from traces.writer import EpisodeRecord, TraceHeader

FILMED = 4  # episodes of a condition that `--video` films
SPILL_BYTES = 256 * 2**20  # activations of a block that stay in memory until it ends
PACKAGES = ("vla-trace", "lerobot", "torch", "transformers", "mujoco", "numpy", "h5py")

Listener = Callable[[str, dict], None]  # event type and fields, as written to events.jsonl


def record(
    config: RecordConfig,
    loaded: LoadedPolicy,
    conditions: Sequence[Intervention | None],
    run_id: str,
    listen: Listener = lambda kind, fields: None,
) -> list[Path]:
    """Record every condition (None is the baseline) and return the files written.

    The first Ctrl-C ends the recording after the present block of episodes, with closed files;
    the second one at once, leaving a readable `.partial`.

    Raises:
        UserError: an intervention that cannot act, a folder that cannot be written, a run of that
            name that exists. All before the first episode.
        KeyboardInterrupt: after the files were closed.
    """
    sampler = FlowSDE(loaded.policy.config.num_steps, config.noise_level)
    actors = [
        Actor(loaded, sampler, config.replan, condition, config.capture) for condition in conditions
    ]
    cost = checked_cost(config, actors)
    folder = new_run_folder(run_id)
    (folder / "config.yaml").write_text(yaml.safe_dump(asdict(config), sort_keys=False))
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
                for actor in actors:
                    if not interrupted():
                        paths += _condition(config, actor, env, run_id, emit, interrupted)
            if interrupted():
                raise KeyboardInterrupt
        except BaseException as problem:
            status = "interrupted" if isinstance(problem, KeyboardInterrupt) else "failed"
            error = str(problem)
            raise
        finally:
            emit("run_end", status=status, error=error, files=[str(path) for path in paths])
    return paths


def label(intervention: Intervention | None) -> str:
    """How a condition is called on screen: `baseline`, `fast α=8`."""
    if intervention is None:
        return "baseline"
    return f"{intervention.name} α={intervention.coefficient:g}"


def _condition(
    config: RecordConfig,
    actor: Actor,
    env: VectorEnv,
    run_id: str,
    emit: Callable,
    interrupted: Callable[[], bool],
) -> list[Path]:
    """Run all episodes of one condition; returns its shards and its videos."""
    name = label(actor.intervention)
    emit("phase", name=name)
    task = load_suite(config.suite).TASKS[config.task_id]
    stem = f"{task.name}-{name.replace(' α=', '-a')}-{run_id}"
    path = unused_path(config.out, stem, ".h5")
    plans = episode_plans(config, run_id, name)
    alpha = actor.intervention and actor.intervention.coefficient
    written, videos, beat = 0, [], time.monotonic()

    def announce(shard: ClosedShard) -> None:
        fields = asdict(shard) | {"path": str(shard.path)}
        emit("shard", condition=name, **fields)

    with ShardedWriter(
        path,
        trace_header(config, actor, run_id, "record"),
        actor.capture.sites,
        rotation=Rotation(
            config.shard_episodes or None, config.shard_bytes or None, config.shard_seconds or None
        ),
        closed=announce,
        object_names=load_suite(config.suite).OBJECT_NAMES,
        cameras=tuple(load_suite(config.suite).CAMERAS) if "frames" in config.keep else (),
    ) as trace:
        trace.write_policy(0, 0, actor.loaded.sha256, config.policy)
        for start in range(0, len(plans), BATCH):
            block = plans[start : start + BATCH]
            spill = Spill(SPILL_BYTES, config.out)
            done = run_block(env, actor, block, spill, "frames" in config.keep)
            for plan, (episode, frames) in zip(block, done, strict=True):
                trace.write_episode(episode)
                emit("episode", condition=name, alpha=alpha, **_summary(plan, written, episode))
                if frames:
                    videos.append(_film(path, written, frames, config))
                written += 1
            del done, episode  # not to be in memory together with the next block
            if time.monotonic() - beat > 5:
                emit("heartbeat")
                beat = time.monotonic()
            if interrupted():
                break
    return [*trace.paths, *videos]


def episode_plans(config: RecordConfig, run_id: str, condition: str) -> list[EpisodePlan]:
    """Episode i plays scene seed + i from initial state (seed + i) mod 50."""
    suite = load_suite(config.suite)
    plans = []
    for i in range(config.episodes):
        init_state = (config.seed + i) % suite.N_INIT_STATES
        plans.append(
            EpisodePlan(
                uid=episode_uid(f"{run_id}/{condition.replace(' α=', '-a')}", 0, i, 0, 0),
                task_name=suite.TASKS[config.task_id].name,
                task_id=config.task_id,
                suite=config.suite,
                instruction=suite.instruction_of(config.task_id, init_state),
                init_state=init_state,
                scene_seed=config.seed + i,
                key=NoiseKey(config.seed, 0, i, 0),
                video=bool(config.video) and i < FILMED,
            )
        )
    return plans


def trace_header(
    config: RecordConfig | TrainConfig, actor: Actor, run_id: str, kind: str
) -> TraceHeader:
    """What a trace of this actor says about itself."""
    policy, sampler, suite = actor.loaded.policy, actor.sampler, load_suite(config.suite)
    horizon, width = actor.chunk_shape
    return TraceHeader(
        run_id=run_id,
        kind=kind,
        created_utc=datetime.now(UTC).isoformat(timespec="milliseconds"),
        config=asdict(config) | {"batch": BATCH, "threads": THREADS},
        intervention=actor.intervention,
        suite={
            "name": config.suite,
            "control_hz": suite.CONTROL_HZ,
            "horizon": suite.TASKS[config.task_id].horizon,
            "cameras": suite.CAMERAS,
            "workspace": suite.WORKSPACE,
        },
        normalisation={"action": actor.statistics},
        versions=package_versions(),
        host={
            "node": platform.node(),
            "machine": platform.machine(),
            "gl": os.environ["MUJOCO_GL"],
        },
        hook_map={site.name: site.module for site in actor.capture.sites},
        likelihood={
            "name": sampler.name,
            "noise_level": getattr(sampler, "noise_level", None),
            "stochastic_steps": [i for i, std in enumerate(sampler.stds()) if std > 0],
            "noise_std": sampler.stds(),
            "t_schedule": sampler.times(),
            "dims": actor.likelihood_dims,
            "why_nan": "the ODE sampler has no density" if sampler.deterministic else "",
        },
        n_action_steps=config.replan,
        K=sampler.steps,
        H=horizon,
        A=policy.config.action_feature.shape[0],
        Z=width,
        language_length=policy.config.tokenizer_max_length,
    )


def package_versions() -> dict[str, str]:
    """Version of each package that can move a byte of a recording."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _run_start(
    config: RecordConfig,
    loaded: LoadedPolicy,
    conditions: Sequence[Intervention | None],
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
        "conditions": [
            {"name": label(c), "alpha": None if c is None else c.coefficient} for c in conditions
        ],
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


def new_run_folder(run_id: str) -> Path:
    """Make runs/<id>; refuse one that exists."""
    folder = Path("runs") / run_id
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise FileExists(folder) from error
    except OSError as error:
        raise UnwritableFolder(folder, os.strerror(error.errno or 0).lower()) from error
    return folder


@contextmanager
def interruptible(
    listen: Listener, what: str = "the present episodes"
) -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C was pressed; a second press raises at once."""
    pressed = []

    def handler(signum: int, frame: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(signum)
        text = f"stopping after {what}; Ctrl-C again stops at once"
        listen("alert", {"level": "warning", "text": text})

    try:
        before = signal.signal(signal.SIGINT, handler)
    except ValueError:  # not the main thread: Ctrl-C is somebody else's
        yield lambda: False
        return
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)

"""What a trace says about the run it comes from."""

import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime

from engine.actor import BATCH, THREADS, Actor
from engine.config import RecordConfig, TrainConfig
from engine.dose import Dose
from engine.envs import load_suite
from engine.provenance import versions
from traces.condition import Condition
from traces.header import TraceHeader


def trace_header(
    config: RecordConfig | TrainConfig,
    condition: Condition,
    actor: Actor,
    run_id: str,
    kind: str,
    dose: Dose | None = None,
) -> TraceHeader:
    """What a trace of this actor says about itself."""
    policy, sampler, suite = actor.loaded.policy, actor.sampler, load_suite(config.suite)
    horizon, width = actor.chunk_shape
    return TraceHeader(
        run_id=run_id,
        kind=kind,
        created_utc=datetime.now(UTC).isoformat(timespec="milliseconds"),
        config=asdict(config) | {"batch": BATCH, "threads": THREADS},
        intervention=condition.intervention,
        prompt=condition.prompt,
        suite={
            "name": config.suite,
            "control_hz": suite.CONTROL_HZ,
            "horizon": suite.TASKS[config.task_id].horizon,
            "cameras": suite.CAMERAS,
            "workspace": suite.WORKSPACE,
            "joints": suite.JOINTS,
        },
        normalisation={"action": actor.statistics},
        versions=versions(),
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
            "why_base_nan": actor.why_base_nan,
        },
        dose=dose.to_dict() if dose else {},
        n_action_steps=config.replan,
        K=sampler.steps,
        H=horizon,
        A=policy.config.action_feature.shape[0],
        Z=width,
        language_length=policy.config.tokenizer_max_length,
    )

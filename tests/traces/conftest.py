"""Builders of small but complete traces."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from traces.intervention import Intervention, Site
from traces.schema import episode_uid
from traces.writer import EpisodeRecord, SiteInfo, TraceHeader, TraceWriter

K, H, A, Z, W = 4, 5, 7, 6, 8
PNG = b"\x89PNG\r\n\x1a\n"
OBJECT_NAMES = ("red_cube", "blue_cube", "drawer")

SITES = (
    SiteInfo(
        name="vlm.1.ffn_act",
        module="model.vlm.layers.1.mlp.act_fn",
        tower="vlm",
        layer=1,
        tokens="mean over valid",
        calls_per_chunk=1,
        reaches_action=True,
        dims=("D", "N"),
        shape=(16,),
    ),
    SiteInfo(
        name="expert.0.ffn_act",
        module="model.expert.layers.0.mlp.act_fn",
        tower="expert",
        layer=0,
        tokens="executed",
        calls_per_chunk=K,
        reaches_action=True,
        dims=("D", "K", "N"),
        shape=(K, 12),
        dtype="float32",
        alias="blocks.0.mlp.hook_post",
    ),
)


def make_header(**changes) -> TraceHeader:
    header = TraceHeader(
        run_id="20260101-000000-record-abcd",
        kind="record",
        created_utc="2026-01-01T00:00:00Z",
        config={"episodes": 3, "alpha": 8.0},
        intervention=Intervention("fast", "overwrite", (Site("vlm", 1, (3, 5)),), 8.0),
        suite={"name": "tabletop"},
        normalisation={"action_mean": np.array([0.1, 0.2])},
        versions={"numpy": np.__version__},
        host={"machine": "test"},
        hook_map={"vlm.1.ffn_act": "model.vlm.layers.1.mlp.act_fn"},
        likelihood={"name": "flow_sde"},
        n_action_steps=2,
        K=K,
        H=H,
        A=A,
        Z=Z,
        language_length=W,
    )
    return replace(header, **changes)


def make_record(number: int = 0, n_steps: int = 6, replan: int = 2, seed: int = 0) -> EpisodeRecord:
    """An episode with a decision every `replan` steps; frames and states at each of those."""
    rng = np.random.default_rng([seed, number])
    t = np.arange(n_steps)
    asked = t[::replan]
    n_decisions = len(asked)
    quat = rng.normal(size=(n_steps, 4))
    episode = {
        "uid": episode_uid("run", 0, 0, 0, number),
        "update": 0,
        "group": 0,
        "attempt": 0,
        "member": number,
        "policy_version": 0,
        "suite": "tabletop",
        "task_id": number % 2,
        "task_name": "lift",
        "instruction": "pick up the red cube schnell ⚡",
        "prefix_layout": '{"image": [0, 16], "language": [16, 24], "state": [24, 25]}',
        "init_state": number,
        "scene_seed": 7,
        "noise_key": f"0/0/0/{number}",
        "pair_key": f"task0/init{number}",
        "success": bool(number % 2),
        "terminated": bool(number % 2),
        "truncated": not number % 2,
        "return": float(number % 2),
        "final_ee_pos": rng.normal(size=3),
        "wall_s": rng.random(),
    }
    steps = {
        "t": t,
        "decision": t // replan,
        "chunk_offset": t % replan,
        "action": rng.uniform(-1, 1, (n_steps, A)).astype(np.float32),
        "action_policy": rng.normal(size=(n_steps, A)).astype(np.float32),
        "log_prob": rng.normal(size=n_steps),
        "log_prob_base": rng.normal(size=n_steps),
        "reward": (t == n_steps - 1) * float(number % 2),
        "ee_pos": rng.normal(size=(n_steps, 3)),
        "ee_quat": quat / np.linalg.norm(quat, axis=1, keepdims=True),
        "gripper": 0.05 * rng.random((n_steps, 2)),
        "state": rng.normal(size=(n_steps, 8)),
        "contact": rng.random(n_steps) < 0.5,
        "contact_force": rng.random(n_steps),
        "intervened": np.ones(n_steps, bool),
    }
    decisions = {
        "t": asked,
        "n_executed": np.minimum(replan, n_steps - asked),
        "log_prob": rng.normal(size=n_decisions),
        "noise_std": np.full((n_decisions, K), 0.3, np.float32),
        "noise_key": [f"0/0/0/{number}/{d}" for d in range(n_decisions)],
        "chain": rng.normal(size=(n_decisions, K + 1, H, Z)).astype(np.float32),
        "tokens": rng.integers(0, 100, (n_decisions, W)),
        "token_mask": np.ones((n_decisions, W), bool),
        "obs_hash": ["ab" * 32] * n_decisions,
        "policy_ms": rng.random(n_decisions),
    }
    activations = {
        site.name: rng.normal(size=(n_decisions, *site.shape)).astype(np.float32) for site in SITES
    }
    n_rows = n_steps * len(OBJECT_NAMES)
    objects = {
        "step": np.repeat(t, len(OBJECT_NAMES)),
        "object": np.tile(np.arange(len(OBJECT_NAMES)), n_steps),
        "pos": rng.normal(size=(n_rows, 3)),
        "quat": rng.normal(size=(n_rows, 4)),
    }
    frames = {"agentview": (asked, [PNG + rng.bytes(number + i) for i in range(n_decisions)])}
    sim_state = (asked, [rng.normal(size=9 + number) for _ in asked])
    return EpisodeRecord(
        episode, steps, decisions, activations, objects=objects, frames=frames, sim_state=sim_state
    )


def make_writer(path, **changes) -> TraceWriter:
    return TraceWriter(
        path,
        make_header(**changes),
        SITES,
        object_names=OBJECT_NAMES,
        cameras=("agentview", "wrist"),
        keep_sim_state=True,
    )


def write_trace(path, numbers=(0, 1, 2), **changes):
    """Write a complete trace with the given episodes; return its path."""
    with make_writer(path, **changes) as writer:
        writer.write_policy(policy_version=0, update=0, sha256="00" * 32, path="weights")
        for number in numbers:
            writer.write_episode(make_record(number, n_steps=4 + number))
    return path


@pytest.fixture(scope="session")
def build():
    """The builders of this file, for test modules (which cannot import each other)."""
    return SimpleNamespace(
        header=make_header,
        record=make_record,
        writer=make_writer,
        trace=write_trace,
        sites=SITES,
        object_names=OBJECT_NAMES,
    )

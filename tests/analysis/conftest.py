"""What tests of the analysis are made of: a neuron table and activations with known answers."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from traces.header import SiteInfo, TraceHeader
from traces.writer import EpisodeRecord, TraceWriter

FAST = [" fast", "Quick", " rapid", " swiftly", " hurry"]
SLOW = [" slow", " slowly", " gradual", " sluggish"]
NOISE = [" breakfast", "fastidious", " cat", " the", " unfast", "ing"]


def angle(degrees):
    return [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))]


def row(layer, neuron, tokens, degrees, reach=True, logit=1.0):
    tokens = (tokens + NOISE)[:6]
    return {
        "layer": layer,
        "neuron": neuron,
        "reach": reach,
        "v_norm": 1.0,
        "top_ids": list(range(6)),
        "top_tokens": tokens,
        "top_pieces": [token.replace(" ", "Ġ") for token in tokens],
        "top_logits": [logit] * 6,
        "embedding": angle(degrees),
    }


@pytest.fixture
def table():
    """Three layers, the last without reach; embeddings are angles in a plane."""
    rows = [
        row(0, 0, FAST[:3], 0),
        row(0, 1, SLOW, 90),
        row(0, 2, [], 45),
        row(1, 0, [], 60),
        row(1, 1, FAST[:4], 0, logit=1.0),
        row(1, 2, FAST[:4], 10, logit=2.0),  # as many hits as neuron 1, larger logits: the seed
        row(1, 3, [], 12),
        row(1, 4, [], 40),
        row(1, 5, FAST[:1], 300),
        row(2, 0, FAST, 0, reach=False),
        row(2, 1, FAST, 0, reach=False),
    ]
    schema = {"layer": pl.Int32, "neuron": pl.Int32, "v_norm": pl.Float32}
    floats = {"top_logits": pl.List(pl.Float32), "embedding": pl.List(pl.Float32)}
    return pl.DataFrame(rows, schema_overrides=schema | floats)


@pytest.fixture
def build():
    """What the table is made of."""
    return SimpleNamespace(row=row, angle=angle, fast=FAST, slow=SLOW)


def site_of(name, shape, dtype="float16"):
    """A site whose name and shape the test chooses."""
    tower, layer, _ = name.split(".")
    return SiteInfo(
        name,
        module="module",
        tower={"exp": "expert"}.get(tower, tower),
        layer=int(layer),
        tokens="mean over valid",
        calls_per_chunk=1,
        reaches_action=True,
        dims={1: ("D", "N"), 2: ("D", "token", "N"), 3: ("D", "K", "H", "N")}[len(shape)],
        shape=shape,
        dtype=dtype,
    )


def bare_episode(name, number, seed, activations):
    """An episode that is nothing but activations; equal seed and number, equal inputs and noise."""
    n = len(next(iter(activations.values())))
    key = f"{seed}/{number}"
    episode = {"uid": f"{name}/{number}", "task_name": "lift", "instruction": "lift"}
    episode |= {"suite": "tabletop", "noise_key": key, "pair_key": key, "final_ee_pos": np.zeros(3)}
    episode |= dict.fromkeys(("policy_version", "task_id", "init_state", "scene_seed"), 0)
    episode |= {"success": True, "terminated": True, "truncated": False, "return": 1.0, "wall_s": 1}
    steps = {"t": np.arange(n), "decision": np.arange(n), "chunk_offset": np.zeros(n, int)}
    steps |= {"contact": np.zeros(n, bool), "intervened": np.zeros(n, bool)}
    steps |= {column: np.zeros(n) for column in ("log_prob", "reward")}
    widths = {"action": 1, "action_policy": 1, "ee_pos": 3, "gripper": 2, "state": 8}
    steps |= {column: np.zeros((n, width)) for column, width in widths.items()}
    steps["ee_quat"] = np.tile([0.0, 0, 0, 1], (n, 1))
    decisions = {
        "t": np.arange(n),
        "n_executed": np.ones(n, int),
        "noise_std": np.zeros((n, 1)),
        "tokens": np.zeros((n, 1), int),
        "token_mask": np.ones((n, 1), bool),
        "noise_key": [f"{key}/{d}" for d in range(n)],
        "obs_hash": [f"{seed:02d}{number:04d}{d:058d}" for d in range(n)],
    }
    return EpisodeRecord(episode, steps, decisions, activations)


def write_activations(
    path, episodes, *, sha256="ab" * 32, seed=0, intervention=None, dtype="float16"
):
    """Write a trace of episodes given as their activations, site -> (n, *shape)."""
    header = TraceHeader(
        run_id=path.stem,
        kind="record",
        created_utc="2026-01-01T00:00:00Z",
        intervention=intervention,
        suite={"name": "tabletop"},
        likelihood={"name": "flow_sde"},
        **dict.fromkeys(("K", "H", "A", "Z", "language_length"), 1),
    )
    sites = [site_of(name, values.shape[1:], dtype) for name, values in episodes[0].items()]
    with TraceWriter(path, header, sites, keep_chain=False) as writer:
        writer.write_policy(0, 0, sha256, f"models/{path.stem}")
        for number, values in enumerate(episodes):
            writer.write_episode(bare_episode(path.stem, number, seed, values))
    return path


@pytest.fixture(scope="session")
def activations():
    """Write a trace that is nothing but activations (`write_activations`)."""
    return write_activations

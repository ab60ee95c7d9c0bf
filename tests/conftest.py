"""Real traces whose every distance, success and pair the test chooses."""

import signal
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import settings

from traces.condition import UNCHANGED
from traces.header import SiteInfo, TraceHeader
from traces.intervention import Intervention, Site
from traces.writer import EpisodeRecord, TraceWriter

if threading.current_thread() is threading.main_thread():
    # a shell's background job ignores ctrl-c, and so would every program that tests interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("long", max_examples=1000, deadline=None)  # make fuzz

K, H, A, Z, W = 2, 3, 7, 4, 5
SITE = SiteInfo(
    name="vlm.1.ffn_act",
    module="layers.1.mlp.down_proj",
    tower="vlm",
    layer=1,
    tokens="mean over valid",
    calls_per_chunk=1,
    reaches_action=True,
    dims=("D", "N"),
    shape=(4,),
)


def steer(alpha=8.0, name="fast", layer=1, neurons=(0, 2), **provenance):
    """An overwrite of a few neurons."""
    provenance = {"concept": name, "seed_neuron": neurons[0], "hits": 5} | provenance
    site = Site("vlm", layer, neurons)
    return Intervention(name, "overwrite", (site,), alpha, provenance=provenance)


def episode(pair, step_cm, success=False, **columns):
    """An episode moving along x by the given lengths [cm], one a control step.

    `steps` replaces columns of steps/, `executed` says how many steps each decision drove (one
    otherwise), `ffn_act` are the activations of the decisions, `activations` those of other sites;
    other names are columns of episodes/.
    """
    return {"pair": pair, "step_cm": step_cm, "success": success} | columns


def record(run_id, number, chosen, steered):
    chosen = dict(chosen)
    path_m = np.zeros((len(chosen["step_cm"]) + 1, 3))
    path_m[1:, 0] = np.cumsum(chosen.pop("step_cm")) / 100
    n = len(path_m) - 1
    pair, success = chosen.pop("pair"), chosen.pop("success")
    intervened = chosen.pop("intervened", steered)
    log_prob = chosen.pop("log_prob", 0.5)
    action = chosen.pop("action", 0.0)
    own_steps = chosen.pop("steps", {})
    executed = np.asarray(chosen.pop("executed", np.ones(n)), int)
    n_decisions, first = len(executed), np.cumsum(executed) - executed
    columns = {
        "uid": f"{run_id}/u00000/g0000/a00/m{number:03d}",
        "policy_version": 0,
        "suite": "tabletop",
        "task_id": 0,
        "task_name": "lift",
        "instruction": "pick up the red cube",
        "init_state": number,
        "scene_seed": number,
        "noise_key": f"0/0/0/{number}",
        "pair_key": pair,
        "success": success,
        "terminated": success,
        "truncated": not success,
        "return": float(success),
        "final_ee_pos": path_m[-1],
        "wall_s": 1.0,
    }
    steps = {
        "t": np.arange(n),
        "decision": np.repeat(np.arange(n_decisions), executed),
        "chunk_offset": np.arange(n) - np.repeat(first, executed),
        "action": np.full((n, A), action, np.float32),
        "action_policy": np.zeros((n, A), np.float32),
        "log_prob": np.full(n, log_prob),
        "reward": np.zeros(n),
        "ee_pos": path_m[:-1],
        "ee_quat": np.tile([0.0, 0, 0, 1], (n, 1)),
        "gripper": np.zeros((n, 2)),
        "state": np.zeros((n, 8)),
        "contact": np.zeros(n, bool),
        "intervened": np.full(n, intervened),
    }
    decisions = {
        "t": first,
        "n_executed": executed,
        "noise_std": np.zeros((n_decisions, K), np.float32),
        "noise_key": [f"0/0/0/{number}/{d}" for d in range(n_decisions)],
        "tokens": np.zeros((n_decisions, W), int),
        "token_mask": np.ones((n_decisions, W), bool),
    }
    steps |= {name: np.asarray(values) for name, values in own_steps.items()}
    ffn_act = chosen.pop("ffn_act", np.ones((n_decisions, 4), np.float32))
    activations = {} if ffn_act is None else {SITE.name: ffn_act}
    activations |= chosen.pop("activations", {})
    frames = chosen.pop("frames", None)
    return EpisodeRecord(columns | chosen, steps, decisions, activations, frames=frames)


def write(
    path,
    episodes,
    intervention=None,
    *,
    run_id=None,
    created_utc="2026-01-01T00:00:00Z",
    sampler="flow_sde",
    replan=1,
    sha256="ab" * 32,
    policy_path="models/smolvla-tabletop",
    prompt=UNCHANGED,
    suite=(("name", "tabletop"),),
    kind="record",
    tables=(),
    finish=True,
):
    """Write one trace; `finish=False` leaves it as a crash would.

    `tables` has columns of groups/, advantages/ and updates/.
    """
    run_id = run_id or path.stem
    header = TraceHeader(
        run_id=run_id,
        kind=kind,
        created_utc=created_utc,
        intervention=intervention,
        prompt=prompt,
        suite=dict(suite),
        versions={"numpy": np.__version__},
        likelihood={"name": sampler},
        n_action_steps=replan,
        K=K,
        H=H,
        A=A,
        Z=Z,
        language_length=W,
    )
    cameras = sorted({camera for one in episodes for camera in one.get("frames", ())})
    writer = TraceWriter(path, header, _sites(episodes), keep_chain=False, cameras=cameras)
    writer.write_policy(policy_version=0, update=0, sha256=sha256, path=policy_path)
    for table, columns in dict(tables).items():
        writer.append(table, columns)
    for number, chosen in enumerate(episodes):
        writer.write_episode(record(run_id, number, chosen, intervention is not None))
    if finish:
        return writer.close()
    writer._file.close()
    return writer.partial


def _sites(episodes):
    """The one site, as wide as the activations, not if they are None; and what else there is."""
    more = episodes[0].get("activations", {}) if episodes else {}
    others = [site_of(name, values.shape[1:], "float32") for name, values in more.items()]
    values = [one["ffn_act"] for one in episodes if "ffn_act" in one]
    if not values:
        return [SITE, *others]
    return others if values[0] is None else [replace(SITE, shape=values[0].shape[1:]), *others]


@pytest.fixture
def traces():
    """The builders above: test modules cannot import each other."""
    return SimpleNamespace(write=write, episode=episode, steer=steer)


@pytest.fixture
def paired(tmp_path):
    """Twenty pairs: the steered arm moves 0.5 cm a step more, and succeeds less often."""
    base, fast = [], []
    for i in range(20):
        step = 1 + 0.1 * i
        base.append(episode(f"p{i:02d}", [step] * 4, success=i % 4 != 0))
        wobble = 0.05 if i % 2 else -0.05
        fast.append(episode(f"p{i:02d}", [step + 0.5 + wobble] * 3, success=i % 2 == 0))
    return [
        write(tmp_path / "baseline.h5", base),
        write(tmp_path / "fast.h5", fast, steer()),
    ]


def site_of(name, shape, dtype="float16"):
    """A site whose name and shape the test chooses."""
    tower, layer, *_ = name.split(".")
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
    path, episodes, *, sha256="ab" * 32, seed=0, intervention=None, dtype="float16", replan=1
):
    """Write a trace of episodes given as their activations, site -> (n, *shape)."""
    header = TraceHeader(
        run_id=path.stem,
        kind="record",
        created_utc="2026-01-01T00:00:00Z",
        intervention=intervention,
        suite={"name": "tabletop"},
        likelihood={"name": "flow_sde"},
        n_action_steps=replan,
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

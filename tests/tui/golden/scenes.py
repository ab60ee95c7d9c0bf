"""Folders for the screens to look at: real traces and real logs, written in a moment."""

import io
import math
from pathlib import Path

import numpy as np

from traces.events import EventWriter
from traces.header import SiteInfo, TraceHeader
from traces.intervention import Intervention, Site
from traces.writer import EpisodeRecord, TraceWriter

NOW = 1_795_167_600.0
"""2026-11-20 09:40 UTC: the clock of every test."""
RUN = "20261120-093000-record-1f9c"
SHA = "5f3a" * 16
K, H, A, Z, W = 4, 5, 7, 8, 6
SITES = tuple(
    SiteInfo(
        name=f"vlm.{layer}.ffn_act",
        module=f"vlm.layers.{layer}.mlp.act_fn",
        tower="vlm",
        layer=layer,
        tokens="mean over valid",
        calls_per_chunk=1,
        reaches_action=True,
        dims=("D", "N"),
        shape=(16,),
    )
    for layer in (0, 1)
)


def fast(alpha=8.0, name="fast"):
    return Intervention(
        name,
        "overwrite",
        (Site("vlm", 1, (3, 5, 8, 13)),),
        alpha,
        provenance={"concept": "fast", "seed_neuron": 5},
    )


def record(number, steered, run_id=RUN, stochastic=True, moved=0.0, **columns):
    """An episode that reaches, closes the gripper, lifts; the steered one is quicker.

    `moved` is added to every activation.
    """
    n = (48 if steered else 60) + 4 * number
    t = np.arange(n + 1) / n
    success = number % 3 != 2 if not steered else number % 2 == 0
    angle = 0.6 * number
    path_m = np.stack(
        [
            0.30 + 0.16 * t * math.cos(angle) + 0.01 * np.sin(9 * t),
            0.18 * t * math.sin(angle) + 0.03 * np.sin(5 * t),
            0.20 - 0.14 * np.sin(np.pi * np.minimum(1, 1.25 * t)) + 0.02 * t,
        ],
        axis=1,
    )  # (T+1, 3)
    action = np.zeros((n, A), np.float32)
    action[:, :3] = np.clip(np.diff(path_m, axis=0) * 60, -1, 1)
    action[:, 3:6] = 0.2 * np.sin(np.arange(n)[:, None] / (5, 7, 9))
    action[:, 6] = np.where(t[:-1] < 0.6, -1, 1)
    episode = {
        "uid": f"{run_id}/u00000/g{int(steered):04d}/a00/m{number:03d}",
        "update": 0,
        "group": int(steered),
        "attempt": 0,
        "member": number,
        "policy_version": 0,
        "suite": "tabletop",
        "task_id": 0,
        "task_name": "lift",
        "instruction": "pick up the red cube quickly",
        "init_state": number,
        "scene_seed": 100 + number,
        "noise_key": f"0/0/0/{number}",
        "pair_key": f"tabletop/0/{number}",
        "success": success,
        "terminated": success,
        "truncated": not success,
        "return": float(success),
        "final_ee_pos": path_m[-1],
        "wall_s": 1.5,
    } | columns
    closed = t[:-1] >= 0.6
    steps = {
        "t": np.arange(n),
        "decision": np.arange(n),
        "chunk_offset": np.zeros(n, int),
        "action": action,
        "action_policy": action,
        "log_prob": 3 + np.cos(np.arange(n) / 6) if stochastic else np.full(n, np.nan),
        "log_prob_base": 2 + np.cos(np.arange(n) / 6),
        "reward": np.zeros(n),
        "ee_pos": path_m[:-1],
        "ee_quat": np.tile([0.0, 0, 0, 1], (n, 1)),
        "gripper": np.where(closed, 0.01, 0.04)[:, None] * (1, -1),
        "state": np.zeros((n, 8)),
        "contact": closed & success,
        "contact_force": np.where(closed, 2.0, 0.0),
        "intervened": np.full(n, steered),
    }
    decisions = {
        "t": np.arange(n),
        "n_executed": np.ones(n, int),
        "log_prob": np.ones(n),
        "noise_std": np.full((n, K), 0.3, np.float32),
        "noise_key": [f"0/0/0/{number}/{d}" for d in range(n)],
        "tokens": np.zeros((n, W), int),
        "token_mask": np.ones((n, W), bool),
    }
    rng = np.random.default_rng(number)
    activations = {s.name: rng.normal(moved, size=(n, 16)).astype(np.float32) for s in SITES}
    return EpisodeRecord(episode, steps, decisions, activations)


def seen(n, steered, every=5):
    """Pictures of 16 x 16 pixels: a bright square crosses a table that darkens downwards."""
    from PIL import Image

    steps, files = np.arange(0, n, every), []
    for step in steps:
        picture = np.zeros((16, 16, 3), np.uint8)
        picture[..., 1] = np.arange(200, 40, -10)[:, None]
        place = int(12 * step / n)
        picture[6:10, place : place + 4] = (40, 40, 250) if steered else (250, 40, 40)
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        files.append(file.getvalue())
    return steps, files


def write_trace(
    path,
    *,
    steered,
    numbers=range(6),
    run_id=RUN,
    likelihood="flow_sde",
    cameras=(),
    policy=(SHA, "models/smolvla-tabletop"),
    created_utc="2026-11-20T09:30:00Z",
    **columns,
):
    """Write one closed trace; `columns` replace those of episodes/."""
    header = TraceHeader(
        run_id=run_id,
        kind="record",
        created_utc=created_utc,
        config={"task_id": 0, "episodes": 6, "seed": 0, "replan": 1, "suite": "tabletop"},
        intervention=fast() if steered is True else steered or None,
        suite={"name": "tabletop"},
        likelihood={"name": likelihood},
        K=K,
        H=H,
        A=A,
        Z=Z,
        language_length=W,
    )
    with TraceWriter(path, header, SITES, keep_chain=False, cameras=cameras) as writer:
        writer.write_policy(0, 0, *policy)
        for number in numbers:
            made = record(number, bool(steered), run_id, likelihood != "flow_ode", **columns)
            made.frames = {camera: seen(len(made.steps["t"]), steered) for camera in cameras}
            writer.write_episode(made)
    return path


def filmed(folder):
    """Two conditions whose pictures were kept."""
    folder = Path(folder)
    for name, steered in (("baseline", False), ("fast-8", True)):
        path = folder / "traces" / f"{RUN}-{name}.h5"
        write_trace(path, steered=steered, numbers=range(2), cameras=("agentview", "wrist"))
    return folder


class Log:
    """The log of a run, written as `vla-trace record` writes it."""

    def __init__(self, folder, run_id=RUN, t=NOW - 600, total=12, **fields):
        self.t = t
        self.path = Path(folder) / "runs" / run_id / "events.jsonl"
        self.writer = EventWriter(self.path, clock=lambda: self.t)
        start = {
            "run_id": run_id,
            "kind": "record",
            "pid": 1,
            "host": "elsewhere",
            "suite": "tabletop",
            "task_id": 0,
            "task_name": "lift",
            "policy": "smolvla-tabletop",
            "policy_sha256": SHA,
            "conditions": [{"name": "baseline", "alpha": None}, {"name": "fast", "alpha": 8.0}],
            "episodes_total": total,
            "config": {},
        }
        self.emit("run_start", **(start | fields))

    def emit(self, type, /, at=None, **fields):
        self.t = self.t if at is None else at
        self.writer.emit(type, **fields)
        return self

    def episode(self, number, steered, at=None, **fields):
        chosen = record(number, steered).episode
        names = ("uid", "pair_key", "task_id", "init_state", "scene_seed", "success", "return")
        event = {name: chosen[name] for name in names} | {
            "condition": "fast" if steered else "baseline",
            "alpha": 8.0 if steered else None,
            "episode": number,
            "task_name": "lift",
            "n_steps": 50,
            "meed_cm": 0.61,
        }
        return self.emit("episode", at, **(event | fields))


def recorded(folder):
    """A finished run: its log, six baseline and six steered episodes."""
    folder = Path(folder)
    log = Log(folder, t=NOW - 7200).emit("phase", name="baseline")
    for number in range(6):
        log.episode(number, False)
    base = write_trace(folder / "traces" / f"{RUN}-baseline.h5", steered=False)
    steered = write_trace(folder / "traces" / f"{RUN}-fast-8.h5", steered=True)
    for number in range(6):
        log.episode(number, True)
    for path in (base, steered):
        log.emit("shard", path=str(path), condition="", episodes=6, bytes=path.stat().st_size)
    log.emit("run_end", at=NOW - 3600, status="finished")
    return folder


TRAINED = "smolvla-goal-07"


class TrainingRun:
    """The log of a training, written as `vla-trace train` writes it."""

    def __init__(self, folder, run_id=TRAINED, t=NOW - 3600, updates=60, **config):
        config = {
            "updates": updates,
            "groups": 8,
            "group_size": 8,
            "tasks": [1],
            "eval_every": 10,
            "likelihood": "flow-sde",
            "advantage": "group",
            "traces": 0,
        } | config
        task = {"task_id": 1, "task_name": "push_cube_to_zone"}
        self.log = Log(folder, run_id, t, None, kind="grpo", conditions=[], config=config, **task)
        self.run_id = run_id

    @property
    def t(self):
        return self.log.t

    def emit(self, type, after=0.0, **fields):
        self.log.emit(type, self.log.t + after, **fields)
        return self

    def evaluation(self, update, won, base=46):
        self.emit("phase", name="eval", update=update, total=100)
        metrics = {"eval/success_once": won / 100, "time/eval": 20.0}
        if update:
            metrics["eval/base_success_once"] = base / 100
        fields = {"task_id": 1, "task_name": "push_cube_to_zone", "n": 100, "metrics": metrics}
        return self.emit("eval", 20.0, update=update, **fields)

    def won(self, update, group):
        """Which of 8 succeed: none of group 1, all of group 2, more and more of the others."""
        share = {1: 0, 2: 8}.get(group, min(7, 2 + (3 * update + 5 * group) % 5 + update // 8))
        return [(3 * member + group) % 8 < share for member in range(8)]

    def rollout(self, update, episodes=64):
        """Play so many episodes of an update (1 is the first), first members first."""
        u = update - 1
        self.emit("phase", name="rollout", update=u, attempt=0, total=64)
        for place in range(episodes):
            member, group = divmod(place, 8)
            success = self.won(update, group)[member]
            self.emit(
                "episode",
                0.2,
                uid=f"{self.run_id}/u{u:05d}/g{group:04d}/a00/m{member:03d}",
                update=u,
                group=group,
                member=member,
                task_id=1,
                scene_seed=10_000 + 97 * update + group,
                success=success,
                n_steps=40 + 5 * group if success else 100,
                **{"return": float(success)},
            )
        return self

    def update(self, update, **metrics):
        """Play an update, learn from it."""
        self.rollout(update)
        won = [sum(self.won(update, group)) for group in range(8)]
        for group, n in enumerate(won):
            judged = {"accepted": 0 < n < 8, "reason": "" if 0 < n < 8 else "the same return"}
            fields = {"group": group, "attempt": 0, "n_members": 8, "n_success": n} | judged
            self.emit("group", update=update - 1, **fields)
        self.emit("phase", name="update", update=update - 1, total=400)
        found = {
            "env/success_once": sum(won) / 64,
            "env/episode_len": 80.0 - update,
            "rollout/episodes": 64,
            "rollout/frac_reward_zero_std": sum(n in (0, 8) for n in won) / 8,
            "time/rollout": 12.8,
            "train/actor/ratio": 1.0 - 0.0001 * (update % 5),
            "train/actor/first_ratio_max_abs_dev": 0.0,
            "train/actor/approx_kl": 0.004 + 0.001 * (update % 4),
            "train/actor/clip_fraction": 0.03 + 0.01 * (update % 3),
            "train/actor/policy_loss": 0.2 + 0.01 * (update % 7),
            "train/actor/grad_norm": 1.0 + 0.1 * (update % 6),
            "train/actor/lr": min(1.0, update / 8) * 1e-4,
            "time/actor": 18.0,
            "time/step": 30.8,
        } | metrics
        return self.emit("step", 18.0, update=update, metrics=found)

    def trained(self, updates):
        """Train so many updates from nothing."""
        self.evaluation(0, 46)
        for update in range(1, updates + 1):
            self.update(update)
            if update % 10 == 0:
                self.evaluation(update, 46 + update)
                self.emit("checkpoint", path=f"checkpoints/{update:06d}", update=update)
        return self


def training(folder):
    """A training that runs now, in the rollout of update 15; the gradient spiked in 14."""
    run = TrainingRun(folder, t=NOW - 485).trained(13)
    run.update(14, **{"train/actor/grad_norm": 12.5}).rollout(15, episodes=45)
    return run.emit("heartbeat", after=NOW - run.t - 4)


LIVE = "20261120-093900-record-77aa"


def recording(folder):
    """A run that records now: three episodes announced, no trace closed."""
    log = Log(folder, LIVE, t=NOW - 60).emit("phase", name="baseline")
    for number in range(3):
        log.episode(number, False, uid=f"{LIVE}/m{number}", pair_key=f"live/{number}")
    log.emit("heartbeat", at=NOW - 4)
    return log

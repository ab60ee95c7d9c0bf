"""Ask a policy again on the very inputs of a recording: `record --replay FILE --policy P`.

No environment runs. The pictures that the recording kept, its states, instructions and noise keys
go to another policy (or the same one, steered), and what that would have done is written beside
what was done: `action` stays the recorded one, `action_policy` and everything about the decision
are the asked policy's. Two policies are so compared on equal inputs, not on two distributions of
states.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import batched, islice
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from engine.actor import BATCH, Actor, Decision, Request, input_hash
from engine.dose import Dose, measure
from engine.likelihoods.flow_sde import FlowSDE
from engine.noise import NoiseKey
from engine.policies.smolvla import LoadedPolicy
from traces.catalog import unused_path
from traces.collection import TraceCollection, open_traces
from traces.errors import UserError
from traces.header import TraceHeader
from traces.intervention import Intervention
from traces.schema import EPISODES, STEPS
from traces.shards import ShardedWriter
from traces.writer import EpisodeRecord


def asked_like(
    path: Path | str,
    loaded: LoadedPolicy,
    intervention: Intervention | None = None,
    wanted: Sequence[str] = ("standard",),
    base_log_prob: bool = False,
) -> Actor:
    """An actor that samples and executes as the recording did."""
    with open_traces(path) as traces:
        header = traces.recordings()[0].header
    loaded.policy.config.num_steps = header.K  # the recording's, whatever is its own
    sampler = FlowSDE(header.K, float(header.likelihood.get("noise_level", 0.0)))
    return Actor(loaded, sampler, header.n_action_steps, intervention, wanted, base_log_prob)


def rescore(
    path: Path | str,
    actor: Actor,
    out: Path | str,
    run_id: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write a trace of kind `replay` and return its files.

    Args:
        path: a recording made with `--keep frames`; the first shard stands for all.
        actor: who is asked; executes as many rows a decision as the recording did.
        out: folder of the trace.
        run_id: of the trace.
        progress: told episodes done and in all.

    Raises:
        UserError: no frames were kept, or they are not what the recording's policy saw, or the
            actor replans otherwise.
    """
    with open_traces(path) as traces:
        recordings = traces.recordings()
        if len(recordings) != 1:
            raise UserError(f"{path} holds {len(recordings)} recordings; replay one at a time")
        source = recordings[0].header
        if actor.n_executed != source.n_action_steps:
            raise UserError(f"{path} was recorded with --replan {source.n_action_steps}")
        target = unused_path(out, f"{Path(path).stem}-by-{actor.loaded.name}-{run_id}", ".h5")
        names = _object_names(traces)
        header = _header(source, actor, run_id, path, _dose(traces, actor))
        with ShardedWriter(target, header, actor.capture.sites, object_names=names) as trace:
            trace.write_policy(0, 0, actor.loaded.sha256, str(actor.loaded.path))
            columns = traces.episodes()
            scenes = zip(
                columns["scene_seed"].tolist(), columns["init_state"].tolist(), strict=True
            )
            actor.expect(scenes)
            for row in range(traces.n_episodes):
                episode = {name: values[row] for name, values in columns.items()}
                episode["number"] = row - int(np.searchsorted(columns["file"], episode["file"]))
                trace.write_episode(_asked(traces, row, episode, actor))
                progress(row + 1, traces.n_episodes)
        return trace.paths


def requests_of(traces: TraceCollection, row: int, episode: dict) -> Iterator[Request]:
    """The inputs of every decision of an episode, checked against the recorded hash.

    Args:
        traces: the recording.
        row: of episodes/, in the whole collection.
        episode: that row's columns, and `number`, its row within its file.

    Raises:
        UserError: frames are missing or are not what the policy saw.
    """
    decisions = traces.decisions("t", "noise_key", "obs_hash", episode=row)
    states = traces.steps("state", episode=row)["state"]
    pictures = _pictures(traces, episode["file"], episode["number"], decisions["t"])
    key = NoiseKey(*map(int, str(episode["noise_key"]).split("/")))
    for number, t in enumerate(decisions["t"]):
        pixels = {camera: items[number] for camera, items in pictures.items()}
        state = states[t].astype(np.float32)
        scene = int(episode["scene_seed"]), int(episode["init_state"])
        request = Request(
            pixels, state, str(episode["instruction"]), key, number, step=int(t), scene=scene
        )
        if input_hash(request) != decisions["obs_hash"][number]:
            raise UserError(
                f"episode {episode['uid']}: the input of decision {number} is not the recorded "
                "one; check the file with: vla-trace check"
            )
        yield request


def _pictures(
    traces: TraceCollection, file: int, episode: int, wanted: np.ndarray
) -> dict[str, list[np.ndarray]]:
    """Camera to its pictures at the `wanted` control steps of the file's episode."""
    found = {}
    with traces.reading(file) as reader:
        if not reader.cameras():
            raise UserError(
                f"{reader.path} kept no frames, so no policy can be asked again; "
                "record with: vla-trace record --keep frames"
            )
        start, _ = reader.step_span(episode)
        for camera in reader.cameras():
            steps, items = reader.frames(camera, episode=episode)
            if (steps - start).tolist() != wanted.tolist():
                raise UserError(f"{reader.path}: camera {camera} lacks frames of some decisions")
            found[camera] = [_picture(item) for item in items]
    return found


def _picture(png: bytes) -> np.ndarray:
    """The pixels of a PNG; of one that cannot be read, nothing, which no recorded hash matches."""
    try:
        return iio.imread(png, extension=".png", plugin="pillow")
    except (OSError, SyntaxError, ValueError):
        return np.zeros((0, 0, 3), np.uint8)


def _asked(traces: TraceCollection, row: int, episode: dict, actor: Actor) -> EpisodeRecord:
    """The record of one episode as the actor would have decided it."""
    decided: list[Decision] = []
    for block in batched(requests_of(traces, row, episode), BATCH):
        padded = [*block, *[None] * (BATCH - len(block))]
        decided += [d for d in actor.decide(padded) if d is not None]
    old = traces.decisions("t", "n_executed", "noise_key", "obs_hash", episode=row)
    steps = traces.steps(episode=row)
    steps["decision"] = steps["decision"] - steps["decision"][0] if len(steps["t"]) else np.zeros(0)
    rows = list(zip(steps["decision"], steps["chunk_offset"], strict=True))
    for name, source in (("action_policy", "action"), ("log_prob",) * 2, ("log_prob_base",) * 2):
        steps[name] = np.array([getattr(decided[d], source)[c] for d, c in rows])
    steps["intervened"] = np.array([decided[d].intervened for d, _ in rows], bool)
    counts = np.bincount(steps["decision"], minlength=len(decided))
    kept = {name: value for name, value in episode.items() if name in _given(EPISODES)}
    return EpisodeRecord(
        episode=kept
        | {"uid": f"{episode['uid']}/replay", "prefix_layout": json.dumps(actor.prefix_layout)},
        steps={name: values for name, values in steps.items() if name in _given(STEPS)},
        decisions={
            "t": old["t"],
            "n_executed": old["n_executed"],
            "log_prob": np.bincount(steps["decision"], steps["log_prob"], len(counts)),
            "log_prob_base": np.bincount(steps["decision"], steps["log_prob_base"], len(counts)),
            "noise_std": np.tile(np.float32(actor.sampler.stds()), (len(decided), 1)),
            "noise_key": old["noise_key"],
            "chain": np.array([d.chain for d in decided]),
            "tokens": np.array([d.tokens for d in decided]),
            "token_mask": np.array([d.token_mask for d in decided]),
            "obs_hash": old["obs_hash"],
            "policy_ms": np.array([d.policy_ms for d in decided]),
        },
        activations={
            site.name: np.array([d.activations[site.name] for d in decided])
            for site in actor.capture.sites
        },
        objects=_objects(traces.objects(episode=row), int(episode["first_step"])),
    )


def _given(fields: Sequence) -> set[str]:
    """Columns that a record brings."""
    return {field.name for field in fields if not field.derived}


def _objects(objects: dict, first_step: int) -> dict | None:
    if not objects:
        return None
    kept = {name: objects[name] for name in ("object", "pos", "quat", "joint")}
    return kept | {"step": objects["step"] - first_step}


def _object_names(traces: TraceCollection) -> tuple[str, ...]:
    with traces.reading(0) as reader:
        return tuple(reader.object_names)


def _dose(traces: TraceCollection, actor: Actor) -> Dose | None:
    """The size of the actor's intervention, at the first decisions of the first episode."""
    if actor.intervention is None or not traces.n_episodes:
        return None
    episode = {name: values[0] for name, values in traces.episodes().items()} | {"number": 0}
    requests = list(islice(requests_of(traces, 0, episode), BATCH))
    return measure(actor, [*requests, *[None] * (BATCH - len(requests))])


def _header(
    source: TraceHeader, actor: Actor, run_id: str, path: Path | str, dose: Dose | None
) -> TraceHeader:
    """The source's header, with what the asked policy changes."""
    return replace(
        source,
        run_id=run_id,
        kind="replay",
        created_utc=datetime.now(UTC).isoformat(timespec="milliseconds"),
        config=source.config | {"replay_of": str(path), "policy": str(actor.loaded.path)},
        intervention=actor.intervention,
        normalisation={"action": actor.statistics},
        hook_map={site.name: site.module for site in actor.capture.sites},
        likelihood=source.likelihood
        | {"dims": actor.likelihood_dims, "why_base_nan": actor.why_base_nan},
        dose=dose.to_dict() if dose else {},
        recording="",
        shard=0,
    )

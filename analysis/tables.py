"""Traces to one polars frame: the one place where axes become columns.

One row is one episode. What makes two episodes comparable is spelled out beside it: the setting
(`SETTING`: policy, suite, task, sampler, K, replanning), the condition (the setting plus the
intervention's fingerprint and the prompt) and the pair_key, which is equal where only the
condition differs.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from analysis.controls import family
from analysis.motion import meed_cm, step_lengths_cm
from traces.collection import TraceCollection, open_traces
from traces.condition import ROLES
from traces.errors import NotATrace, UnknownName
from traces.header import TraceHeader
from traces.reader import TraceReader

SETTING = ("policy_id", "suite", "task_id", "sampler_id", "K", "replan")
"""What a baseline must share with a steered episode."""

CONDITION = (*SETTING, "fingerprint", "prompt")

SCHEMA = {
    "file": pl.String,
    "run_id": pl.String,
    "kind": pl.String,
    "created_utc": pl.String,
    "policy": pl.String,  # name@hash, for people
    "policy_id": pl.String,  # SHA-256 of the weights, or the path where there is none
    "suite": pl.String,
    "task_id": pl.Int32,
    "task": pl.String,
    "instruction": pl.String,
    "sampler": pl.String,  # name, for people
    "sampler_id": pl.String,  # hash of what the likelihood says about itself, reasons aside
    "K": pl.Int32,
    "replan": pl.Int32,
    "role": pl.String,  # baseline, prompt, steered, random or null: see `traces.condition`
    "label": pl.String,  # of the condition, for people
    "prompt": pl.String,  # what the policy was told; "{}" is the task's own instruction
    "intervention": pl.String,  # null: none
    "alpha": pl.Float64,  # null: no dose
    "sites": pl.String,  # such as "vlm.1 x10", ten neurons of a layer; null: no intervention
    "fingerprint": pl.String,  # of the intervention; "" for none
    "family": pl.String,  # fingerprint at another dose; "" for none
    "matched_to": pl.String,  # of a control: the family that it is a control of; "" otherwise
    "pair_key": pl.String,  # null: cannot be paired
    "uid": pl.String,
    "session": pl.Int32,
    "success": pl.Boolean,
    "n_steps": pl.Int32,
    "return": pl.Float64,
    "meed_cm": pl.Float64,  # null: no step, or a broken pose
    "step_cm": pl.List(pl.Float64),
    "intervened": pl.Float64,  # share of control steps; null without steps
    "log_prob": pl.Float64,  # mean over control steps; null where the sampler has none
    "actions_sha256": pl.String,  # of all actions sent, where role is baseline or null; else ""
    "error": pl.String,
}

EPISODE_COLUMNS = (
    *("uid", "session", "policy_version", "suite", "task_id", "task_name", "instruction"),
    *("pair_key", "first_step", "n_steps", "success", "return", "final_ee_pos", "error"),
)


@dataclass(frozen=True)
class EpisodeTable:
    """One row per episode, each (condition, pair_key) once, in an order that files do not set."""

    frame: pl.DataFrame
    """Columns of `SCHEMA`."""
    repeated: int
    """Recordings left out because a newer one of the same episode or pair exists."""
    notes: tuple[str, ...]


def episode_table(paths: Iterable[Path | str]) -> EpisodeTable:
    """Read every episode of some traces.

    Of equal uids the largest session counts (a resumed run), of equal (condition, pair_key) the
    newest file; ties fall to the last uid, then file name, never to the order of `paths`. The
    shards of a recording count as one file, called like the first of them.
    """
    frames, notes = [], []
    paths = list(paths)
    if paths:
        with open_traces(*paths) as traces:
            for recording in traces.recordings():
                name = str(recording.paths[0])
                frames += [_frame(name, traces, file) for file in recording.files]
            notes += traces.notes
    frame = pl.concat(frames) if frames else pl.DataFrame(schema=SCHEMA)
    # One set of weights may have been recorded under two paths; it still has one name.
    frame = frame.with_columns(pl.col("policy").min().over("policy_id"))
    total = len(frame)
    frame = _newest(frame, ["uid"])
    unpaired = frame.filter(pl.col("pair_key").is_null())
    paired = _newest(frame.drop_nulls("pair_key"), [*CONDITION, "pair_key"])
    frame = pl.concat([unpaired, paired])
    repeated = total - len(frame)
    if repeated:
        what = _counted(repeated, "repeated recording")
        notes.append(f"{what} of the same condition and pair left out: the newest counts")
    order = ["policy", "suite", "task_id", "sampler", "K", "replan", "place", "intervention"]
    order += ["alpha", "prompt", "fingerprint", "policy_id", "sampler_id", "pair_key", "uid"]
    place = pl.col("role").replace_strict(ROLES, range(len(ROLES)), return_dtype=pl.Int8)
    frame = frame.with_columns(place=place).sort(order, nulls_last=False).drop("place")
    return EpisodeTable(frame, repeated, tuple(notes))


def _newest(frame: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    order = ["session", "created_utc", "uid", "file"]
    if keys != ["uid"]:
        order.remove("session")  # sessions number the resumptions of one run
    return frame.sort(order, descending=True).unique(keys, keep="first", maintain_order=True)


def _frame(name: str, traces: TraceCollection, file: int) -> pl.DataFrame:
    """Return the episodes of one file."""
    try:
        with traces.reading(file) as trace:
            return pl.DataFrame(_rows(name, trace), schema=SCHEMA, orient="row")
    except UnknownName as error:
        raise NotATrace(traces.paths[file], f"it is damaged ({error})") from error


def _rows(name: str, trace: TraceReader) -> list[tuple]:
    """Return one tuple per episode, in the order of `SCHEMA`."""
    shared = {"file": name} | _header_columns(trace.header)
    policies = _policies(trace)
    episodes = trace.episodes(*EPISODE_COLUMNS)
    compared = trace.header.condition.role in ("baseline", "null")
    steps = trace.steps("ee_pos", "intervened", "log_prob", *(["action"] if compared else []))
    rows = []
    for e in range(trace.n_episodes):
        start = int(episodes["first_step"][e])
        span = slice(start, start + int(episodes["n_steps"][e]))
        step_cm = step_lengths_cm(steps["ee_pos"][span], episodes["final_ee_pos"][e])
        name, identity = policies.get(int(episodes["policy_version"][e]), ("unknown", ""))
        row = shared | {
            "policy": name,
            "policy_id": identity,
            "suite": str(episodes["suite"][e]),
            "task_id": int(episodes["task_id"][e]),
            "task": str(episodes["task_name"][e]),
            "instruction": str(episodes["instruction"][e]),
            "pair_key": str(episodes["pair_key"][e]) or None,
            "uid": str(episodes["uid"][e]),
            "session": int(episodes["session"][e]),
            "success": bool(episodes["success"][e]),
            "n_steps": int(episodes["n_steps"][e]),
            "return": _finite(episodes["return"][e]),
            "meed_cm": meed_cm(step_cm),
            "step_cm": step_cm.tolist(),
            "intervened": _mean(steps["intervened"][span]),
            "log_prob": _mean(steps["log_prob"][span]),
            "actions_sha256": _digest(steps["action"][span]) if compared else "",
            "error": str(episodes["error"][e]),
        }
        rows.append(tuple(row[column] for column in SCHEMA))
    return rows


def _header_columns(header: TraceHeader) -> dict[str, object]:
    how = {key: value for key, value in header.likelihood.items() if not key.startswith("why")}
    likelihood = json.dumps(how, sort_keys=True)
    columns: dict[str, object] = {
        "run_id": header.run_id,
        "kind": header.kind,
        "created_utc": header.created_utc,
        "sampler": str(header.likelihood.get("name") or "unknown sampler"),
        "sampler_id": hashlib.sha256(likelihood.encode()).hexdigest(),
        "K": header.K,
        "replan": header.n_action_steps,
    }
    intervention, condition = header.intervention, header.condition
    columns |= {
        "role": condition.role,
        "label": condition.label,
        "prompt": condition.prompt,
        "alpha": condition.alpha,
    }
    if intervention is None:
        return columns | {
            "intervention": None,
            "sites": None,
            "fingerprint": "",
            "family": "",
            "matched_to": "",
        }
    return columns | {
        "intervention": intervention.name,
        "sites": ", ".join(
            f"{site.tower}.{site.layer}" + (f" x{len(site.neurons)}" if site.neurons else "")
            for site in intervention.sites
        ),
        "fingerprint": intervention.fingerprint(),
        "family": family(intervention),
        "matched_to": str(intervention.provenance.get("matched_to") or ""),
    }


def _policies(trace: TraceReader) -> dict[int, tuple[str, str]]:
    """Return policy_version to (name for people, identity)."""
    table = trace.table("policies", "policy_version", "sha256", "path")
    found = {}
    for version, sha256, path in zip(*table.values(), strict=True):
        name = str(path).rstrip("/").rsplit("/", 1)[-1] or "policy"
        label = f"{name}@{sha256[:8]}" if sha256 else name
        found[int(version)] = (label, str(sha256) or str(path))
    return found


def _digest(actions: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(actions).tobytes()).hexdigest()


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

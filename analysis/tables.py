"""Traces to one polars frame: the one place where axes become columns.

One row is one episode. What makes two episodes comparable is spelled out beside it: the setting
(`SETTING`: policy, suite, task, sampler, K, replanning), the condition (the setting plus the
intervention's fingerprint and the prompt) and the pair_key, which is equal where only the
condition differs.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from analysis.controls import family
from analysis.motion import step_lengths_of
from analysis.spans import Spans
from traces.collection import Recording, TraceCollection, open_traces
from traces.condition import ROLES
from traces.errors import NotATrace, UnknownName
from traces.header import TraceHeader
from traces.reader import Columns, TraceReader

SETTING = ("policy_id", "suite", "task_id", "sampler_id", "K", "replan")
"""What a baseline must share with a steered episode."""

CONDITION = (*SETTING, "fingerprint", "prompt")

FROM_HEADER = {
    "file": pl.String,
    "run_id": pl.String,
    "kind": pl.String,
    "created_utc": pl.String,
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
}

FROM_EPISODE = {
    "policy": pl.String,  # name@hash, for people
    "policy_id": pl.String,  # SHA-256 of the weights, or where they are from if there is none
    "policy_path": pl.String,  # folder or hub id they were loaded from; "" unknown
    "suite": pl.String,
    "task_id": pl.Int32,
    "task": pl.String,
    "instruction": pl.String,
    "pair_key": pl.String,  # null: cannot be paired
    "uid": pl.String,
    "session": pl.Int32,
    "success": pl.Boolean,
    "n_steps": pl.Int32,
    "return": pl.Float64,
    "error": pl.String,
}

IDENTITY = FROM_HEADER | FROM_EPISODE
"""Columns that every table of episodes has."""

OUTCOME = {
    "meed_cm": pl.Float64,  # null: no step, or a broken pose
    "step_cm": pl.List(pl.Float64),
    "intervened": pl.Float64,  # share of control steps; null without steps
    "log_prob": pl.Float64,  # mean over control steps; null where the sampler has none
    "actions_sha256": pl.String,  # of all actions sent, where role is baseline or null; else ""
}

SCHEMA = IDENTITY | OUTCOME
"""Columns of `episode_table`."""

EPISODE_COLUMNS = (
    *("uid", "session", "policy_version", "suite", "task_id", "task_name", "instruction"),
    *("pair_key", "first_step", "n_steps", "success", "return", "final_ee_pos", "error"),
)

HUGE = 1e100
"""No measure is this large but of a broken trace; sums of squares below it are finite."""

Measure = Callable[[TraceReader, Columns], Mapping[str, object]]
"""From a trace and `EPISODE_COLUMNS` of it to further columns, one value an episode."""


@dataclass(frozen=True)
class EpisodeTable:
    """One row per episode, each (condition, pair_key) once, in an order that files do not set."""

    frame: pl.DataFrame
    """Columns of `IDENTITY`, and what was measured."""
    repeated: int
    """Recordings left out because a newer one of the same episode or pair exists."""
    notes: tuple[str, ...]


def episode_table(paths: Iterable[Path | str]) -> EpisodeTable:
    """Read every episode of some traces: columns of `SCHEMA`."""
    return read_episodes(paths, _outcome, OUTCOME)


def read_episodes(
    paths: Iterable[Path | str],
    measure: Measure = lambda trace, episodes: {},
    measured: Mapping[str, pl.DataType] | None = None,
) -> EpisodeTable:
    """Read every episode of some traces, each file once.

    Of equal uids the largest session counts (a resumed run), of equal (condition, pair_key) the
    newest file; ties fall to the last uid, then file name, never to the order of `paths`. The
    shards of a recording count as one file, called like the first of them.

    Args:
        paths: as `open_traces` takes them.
        measure: what is worked out of each file beside `IDENTITY`.
        measured: columns that `measure` gives; numbers that are not below `HUGE` become null.
    """
    measured = measured or {}
    headers, parts, notes = [], [], []
    paths = list(paths)
    if paths:
        with open_traces(*paths) as traces:
            for recording in traces.recordings():
                policies = policies_of(traces, recording)
                for file in recording.files:
                    with traces.reading(file) as trace:
                        headers.append(_header_columns(str(recording.paths[0]), trace.header))
                        parts.append(_file(trace, policies, measure))
            notes += traces.notes
    frame = _joined(headers, parts, FROM_EPISODE | dict(measured))
    # One set of weights may have been recorded under two paths; it still has one name.
    names = pl.col("policy", "policy_path").min().over("policy_id")
    frame = frame.with_columns(names).select(*IDENTITY, *measured)
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


def _joined(headers: list[dict], parts: list[dict], columns: dict) -> pl.DataFrame:
    """Return one frame: the columns of each file's header on every episode of it."""
    frame = pl.DataFrame(
        {name: _concatenated([part[name] for part in parts]) for name in columns}, schema=columns
    )
    frame = frame.with_columns(
        pl.when(pl.col(pl.Float64).abs() < HUGE).then(pl.col(pl.Float64)),
        pl.when(pl.col("pair_key") != "").then(pl.col("pair_key")).alias("pair_key"),
    )
    of_file = np.repeat(np.arange(len(parts)), [len(part["uid"]) for part in parts])
    header = pl.DataFrame(headers, schema=FROM_HEADER)[of_file]
    return pl.concat([header, frame], how="horizontal")


def _concatenated(parts: list) -> object:
    if parts and isinstance(parts[0], list):
        return [value for part in parts for value in part]
    return np.concatenate(parts) if parts else []


def _file(trace: TraceReader, policies: dict[int, tuple[str, ...]], measure: Measure) -> dict:
    """Return the episodes of one file: `FROM_EPISODE` and what is measured."""
    with _damage_told(trace):
        episodes = trace.episodes(*EPISODE_COLUMNS)
        measured = measure(trace, episodes)
    acting = [policies.get(v, ("unknown", "", "")) for v in episodes["policy_version"].tolist()]
    names = ("policy", "policy_id", "policy_path")
    own = {name: [one[i] for one in acting] for i, name in enumerate(names)}
    return episodes | own | {"task": episodes["task_name"]} | dict(measured)


@contextmanager
def _damage_told(trace: TraceReader) -> Iterator[None]:
    """A table or column that is missing is damage of that file."""
    try:
        yield
    except UnknownName as error:
        raise NotATrace(trace.path, f"it is damaged ({error})") from error


def _outcome(trace: TraceReader, episodes: Columns) -> dict[str, object]:
    """Work out the columns of `OUTCOME`."""
    compared = trace.header.condition.role in ("baseline", "null")
    steps = trace.steps("ee_pos", "intervened", "log_prob", *(["action"] if compared else []))
    spans = Spans.of(episodes)
    step_cm = step_lengths_of(steps["ee_pos"], episodes["final_ee_pos"], spans)
    log_prob = steps["log_prob"]
    sent = spans.split(steps["action"]) if compared else []
    return {
        "meed_cm": spans.mean(step_cm),
        "step_cm": spans.split(step_cm),
        "intervened": spans.mean(steps["intervened"]),
        "log_prob": spans.mean(log_prob, where=np.isfinite(log_prob)),
        "actions_sha256": [_digest(a) for a in sent] if compared else [""] * len(spans.n),
    }


def _header_columns(file: str, header: TraceHeader) -> dict[str, object]:
    """Return the columns of `FROM_HEADER`."""
    how = {key: value for key, value in header.likelihood.items() if not key.startswith("why")}
    likelihood = json.dumps(how, sort_keys=True)
    intervention, condition = header.intervention, header.condition
    return {
        "file": file,
        "run_id": header.run_id,
        "kind": header.kind,
        "created_utc": header.created_utc,
        "sampler": str(header.likelihood.get("name") or "unknown sampler"),
        "sampler_id": hashlib.sha256(likelihood.encode()).hexdigest(),
        "K": header.K,
        "replan": header.n_action_steps,
        "role": condition.role,
        "label": condition.label,
        "prompt": condition.prompt,
        "alpha": condition.alpha,
        "intervention": intervention and intervention.name,
        "sites": intervention
        and ", ".join(
            f"{site.tower}.{site.layer}" + (f" x{len(site.neurons)}" if site.neurons else "")
            for site in intervention.sites
        ),
        "fingerprint": intervention.fingerprint() if intervention else "",
        "family": family(intervention) if intervention else "",
        "matched_to": str(intervention.provenance.get("matched_to") or "") if intervention else "",
    }


def policies_of(traces: TraceCollection, recording: Recording) -> dict[int, tuple[str, str, str]]:
    """Return policy_version to (name for people, identity, path); the last shard knows them all.

    Weights in the middle of a training run are on no disk: the run and the update name them.
    """
    with traces.reading(recording.files[-1]) as trace, _damage_told(trace):
        table = trace.table("policies", "policy_version", "update", "sha256", "path")
    found = {}
    for version, update, sha256, path in zip(*table.values(), strict=True):
        name = str(path).rstrip("/").rsplit("/", 1)[-1] or "policy"
        label, identity = f"{name}@{sha256[:8]}" if sha256 else name, str(sha256) or str(path)
        if not identity and recording.header.kind == "grpo":
            label = identity = f"{recording.header.run_id} update {update}"
        found[int(version)] = (label, identity, str(path))
    return found


def _digest(actions: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(actions).tobytes()).hexdigest()


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

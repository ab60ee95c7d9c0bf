"""Read what the lists show of a trace; whatever is wrong with the file becomes a sentence."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tui.data.model import Episode, TraceFile
from tui.terminal import one_line

if TYPE_CHECKING:
    from traces.header import TraceHeader

COLUMNS = (
    *("uid", "session", "member", "task_id", "task_name", "instruction", "init_state"),
    *("scene_seed", "pair_key", "first_step", "n_steps", "success", "return", "final_ee_pos"),
    "error",
)


def stamp(status: os.stat_result) -> tuple[int, ...]:
    """Return numbers that differ when the file differs."""
    return status.st_mtime_ns, status.st_size, status.st_ino


def read_trace(path: Path, seen: tuple[int, ...]) -> TraceFile:
    """Read header, episodes and MEED of one trace.

    A monitor outlives any file in its folder: everything that reading can raise is reported in
    `TraceFile.error`.
    """
    partial = path.suffix == ".partial"
    try:
        return _read(path, seen, partial)
    except Exception as error:
        why = one_line(error) or type(error).__name__
        return TraceFile(path, seen, seen[1], error=why, partial=partial, paths=(path,))


def _read(path: Path, seen: tuple[int, ...], partial: bool) -> TraceFile:
    from analysis.motion import meed_cm, step_lengths_cm
    from analysis.opening import opened

    with opened(path) as trace:
        header = trace.header
        _check(header)
        columns = trace.episodes(*COLUMNS)
        ee_pos = trace.steps("ee_pos")["ee_pos"]
        policies = trace.table("policies", "sha256", "path")
    label, alpha = one_line(header.condition.label), header.condition.alpha
    episodes = []
    for row in range(len(columns["uid"])):
        start = int(columns["first_step"][row])
        stop = start + int(columns["n_steps"][row])
        lengths = step_lengths_cm(ee_pos[start:stop], columns["final_ee_pos"][row])
        total = float(columns["return"][row])
        task = str(columns["task_name"][row]) or f"task {int(columns['task_id'][row])}"
        episodes.append(
            Episode(
                uid=str(columns["uid"][row]),
                condition=label,
                alpha=alpha,
                number=row,
                task=one_line(task),
                instruction=one_line(columns["instruction"][row]),
                init_state=int(columns["init_state"][row]),
                scene_seed=int(columns["scene_seed"][row]),
                pair_key=str(columns["pair_key"][row]),
                success=bool(columns["success"][row]),
                n_steps=stop - start,
                meed_cm=meed_cm(lengths),
                total_return=total if math.isfinite(total) else None,
                error=one_line(columns["error"][row]),
                session=int(columns["session"][row]),
                path=path,
                row=row,
            )
        )
    return TraceFile(
        path=path,
        stamp=seen,
        n_bytes=seen[1],
        partial=partial,
        header=header,
        episodes=tuple(episodes),
        policies=tuple(zip(policies["sha256"].tolist(), policies["path"].tolist(), strict=True)),
        paths=(path,),
    )


def joined(files: Iterable[TraceFile]) -> tuple[TraceFile, ...]:
    """Return the shards of each recording as one file; episodes keep the path of their shard."""
    recordings: dict[str, list[TraceFile]] = {}
    for file in sorted(files, key=lambda file: file.path):
        recordings.setdefault(file.header.recording or str(file.path), []).append(file)
    return tuple(_joined(shards) for shards in recordings.values())


def _joined(shards: list[TraceFile]) -> TraceFile:
    if len(shards) == 1 and not shards[0].header.shard:
        return shards[0]
    shards = sorted(shards, key=lambda file: (file.header.shard, file.path))
    episodes = [episode for file in shards for episode in file.episodes]
    numbers = {file.header.shard for file in shards}
    return TraceFile(
        path=shards[0].path,
        stamp=tuple(number for file in shards for number in file.stamp),
        n_bytes=sum(file.n_bytes for file in shards),
        partial=any(file.partial for file in shards),
        header=shards[0].header,
        episodes=tuple(replace(episode, number=i) for i, episode in enumerate(episodes)),
        policies=tuple(dict.fromkeys(policy for file in shards for policy in file.policies)),
        paths=tuple(file.path for file in shards),
        missing=tuple(sorted(set(range(max(numbers))) - numbers)),
    )


def _check(header: TraceHeader) -> None:
    """Refuse attributes of another type than the format gives them."""
    for name in ("run_id", "kind", "created_utc"):
        if not isinstance(getattr(header, name), str):
            raise ValueError(f"its attribute {name} is not a text")
    if header.intervention and not isinstance(header.intervention.provenance, dict):
        raise ValueError("the provenance of its intervention is not a JSON object")
    for name in ("config", "suite", "likelihood"):
        if not isinstance(getattr(header, name), dict):
            raise ValueError(f"its attribute {name} is not a JSON object")

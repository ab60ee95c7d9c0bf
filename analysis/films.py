"""Short films of paired episodes, from the pictures that a trace kept of what the policy saw."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from analysis.outcome import Condition, Report
from analysis.tables import episode_table
from traces.collection import TraceCollection, open_traces

MOST_FRAMES = 60
MOST_PAIRS = 6
FRAME_MS = 80
SCALE = 2
"""Pictures for a policy are small."""

Film = tuple[bytes, str]
"""A GIF and its caption."""


def films(paths: Sequence[Path | str], report: Report) -> Iterator[list[Film]]:
    """Yield, for conditions with a baseline, the films of one pair; nothing without pictures."""
    frame = episode_table(paths).frame
    with open_traces(*paths) as traces:
        cameras = {camera for i in range(len(traces.paths)) for camera in _cameras(traces, i)}
        if not cameras:
            return
        place = _places(traces)
        compared = [c for c in report.conditions if c.role != "baseline" and c.n_pairs]
        for condition in compared[:MOST_PAIRS]:
            pair = _telling_pair(frame, condition)
            made = [_film(traces, place, row) for row in pair]
            if pair and all(made):
                yield made


def _cameras(traces: TraceCollection, file: int) -> list[str]:
    with traces.reading(file) as trace:
        return trace.cameras()


def _places(traces: TraceCollection) -> dict[str, tuple[int, int]]:
    """Episode uid to its file and row in it."""
    columns = traces.episodes("uid")
    rows: dict[int, int] = {}
    found = {}
    for uid, file in zip(columns["uid"], columns["file"], strict=True):
        found[str(uid)] = (int(file), rows.get(int(file), 0))
        rows[int(file)] = rows.get(int(file), 0) + 1
    return found


def _telling_pair(frame: pl.DataFrame, condition: Condition) -> list[dict]:
    """The baseline's episode and this condition's, of the first pair that ended differently."""
    same = {key: getattr(condition, key) for key in ("policy", "suite", "task_id", "K", "replan")}
    rows = frame.filter(**same).drop_nulls("pair_key").sort("pair_key")
    mine = rows.filter(fingerprint=condition.fingerprint or "", prompt=condition.prompt)
    base = rows.filter(role="baseline")
    pairs = base.join(mine, on="pair_key", suffix="_mine")
    if pairs.is_empty():
        return []
    differ = pairs.filter(pairs["success"] != pairs["success_mine"])
    key = (differ if len(differ) else pairs)["pair_key"][0]
    return [part.filter(pair_key=key).row(0, named=True) for part in (base, mine)]


def _film(traces: TraceCollection, place: dict, row: dict) -> Film | None:
    """The film of one episode; None without pictures."""
    from PIL import Image

    file, episode = place[row["uid"]]
    with traces.reading(file) as trace:
        cameras = trace.cameras()
        if not cameras:
            return None
        _, pictures = trace.frames(cameras[0], episode=episode)
    if not pictures:
        return None
    chosen = np.unique(np.linspace(0, len(pictures) - 1, MOST_FRAMES).round().astype(int))
    opened = [Image.open(io.BytesIO(pictures[i])).convert("RGB") for i in chosen]
    frames = [
        one.resize((one.width * SCALE, one.height * SCALE), Image.Resampling.NEAREST).quantize(64)
        for one in opened
    ]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0)
    ended = "success" if row["success"] else "failure"
    caption = (
        f"{row['label']}: {ended} after {row['n_steps']} control steps; {row['instruction']!r}, "
        f"camera {cameras[0]}, {len(frames)} of {len(pictures)} pictures"
    )
    return out.getvalue(), caption

"""LeRobotDataset v3, written by lerobot's own class; pictures are PNG within Parquet, lossless.

    observation.state, action             what the policy was given, and what was sent
    observation.images.<camera>           the policy's own pictures
    next.reward, next.done, next.success
    action_policy, log_prob, ...          other columns of steps/
    activation.<site>                     what was recorded inside the policy, one row a step

lerobot computes statistics of every feature, which nothing but finite numbers have: columns and
sites with gaps are left out, and so are activations where the policy was not asked at every step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np

from traces.collection import TraceCollection
from traces.errors import UserError
from traces.export.episodes import (
    Episode,
    episodes,
    left_out,
    provenance,
    shared_cameras,
)
from traces.export.target import MARK
from traces.header import SiteInfo
from traces.schema import STEPS

COLUMNS = {
    "observation.state": "state",
    "observation.ee_pos": "ee_pos",
    "observation.ee_quat": "ee_quat",
    "observation.gripper": "gripper",
    "action": "action",
    "action_policy": "action_policy",
    "next.reward": "reward",
    "log_prob": "log_prob",
    "log_prob_base": "log_prob_base",
    "contact": "contact",
    "contact_force": "contact_force",
    "intervened": "intervened",
}
"""Feature to column of steps/."""

STATE_DTYPE = "float32"
"""What the policy is given; the trace keeps the same numbers in float64."""


def export(
    traces: TraceCollection, out: Path, *, frames: bool = True, activations: bool = True
) -> list[str]:
    """Write the dataset's folder and return what is to be said about it.

    Args:
        traces: what to export; cameras, widths and control rates must agree.
        out: name of the new folder.
        frames: with pictures, which must be there for every step.
        activations: with what was recorded inside the policy. Their statistics take lerobot about
            a second an episode for 5,000 units.

    Raises:
        UserError: pictures were not kept at every step, or the recordings do not go into one
            dataset.
        ModuleNotFoundError: lerobot, or what it needs for datasets, is not installed.
    """
    import datasets
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    cameras = shared_cameras(traces) if frames else []
    columns, gaps = _columns(traces)
    sites, holes = _sites(traces) if activations else ([], [])
    features = _features(traces, columns, sites) | _camera_features(traces, cameras)
    suite = traces.recordings()[0].header.suite
    with _quiet(datasets):
        dataset = LeRobotDataset.create(
            repo_id=f"vla-trace/{out.name}",
            fps=_rate(traces),
            features=features,
            root=out,
            robot_type=str(suite.get("name", "unknown")),
            use_videos=False,
            video_backend="pyav",  # none is used; the default complains where FFmpeg is missing
        )
        rows = []
        for episode in episodes(traces):
            for frame in _frames(episode, columns, sites, cameras):
                dataset.add_frame(frame)
            dataset.save_episode()
            rows.append(episode.about)
        dataset.finalize()
    (out / MARK).write_text(json.dumps(provenance(traces) | {"episodes": rows}, indent=1))
    return left_out(gaps, "not known at every step") + left_out(
        holes, "not in every recording, not at every step, or not finite everywhere"
    )


def _columns(traces: TraceCollection) -> tuple[dict[str, str], list[str]]:
    """Features whose column is known throughout, and the names of the others."""
    known, gaps = {}, []
    for feature, column in COLUMNS.items():
        if np.isfinite(traces.steps(column)[column]).all():
            known[feature] = column
        else:
            gaps.append(feature)
    return known, gaps


def _sites(traces: TraceCollection) -> tuple[list[SiteInfo], list[str]]:
    """Sites with finite values at every step of every recording, and the names of the others."""
    whole, holes = [], []
    steps = traces.steps("chunk_offset")["chunk_offset"]
    for site in traces.sites():
        values = traces.activation(site.name)
        n, _, _ = traces.activation_stats(site.name)
        samples = len(values) * prod(site.shape[:-1])
        per_step = len(values) == len(steps) == traces.n_decisions
        if per_step and (n == samples).all():
            whole.append(site)
        else:
            holes.append(site.name)
    return whole, holes


def _features(
    traces: TraceCollection, columns: dict[str, str], sites: list[SiteInfo]
) -> dict[str, dict]:
    """What each feature looks like; activations are flat, and say which axes they had."""
    headers = [recording.header for recording in traces.recordings()]
    if len({header.A for header in headers}) > 1:
        widths = sorted({header.A for header in headers})
        raise UserError(f"actions have {widths} entries in these files; export them apart")
    fields = {field.name: field for field in STEPS}
    features: dict[str, dict] = {}
    for feature, column in columns.items():
        field = fields[column]
        shape = field.row_shape(headers[0].sizes) or (1,)
        dtype = STATE_DTYPE if column == "state" else field.dtype
        features[feature] = {"dtype": dtype, "shape": shape, "names": None, "unit": field.unit}
    for name in ("next.done", "next.success"):
        features[name] = {"dtype": "bool", "shape": (1,), "names": None}
    for site in sites:
        features[f"activation.{site.name}"] = {
            "dtype": "float32",
            "shape": (prod(site.shape),),
            "names": None,
            "site": site.to_attributes(),
        }
    return features


def _camera_features(traces: TraceCollection, cameras: list[str]) -> dict[str, dict]:
    """The pictures, by what the policy calls them."""
    features = {}
    for camera in cameras:
        first = next((e for e in episodes(traces) if len(e.steps["t"])), None)
        shape = first.pixels(camera).shape[1:] if first else (1, 1, 3)
        features[f"observation.images.{camera}"] = {
            "dtype": "image",
            "shape": shape,
            "names": ["height", "width", "channels"],
        }
    return features


def _frames(
    episode: Episode, columns: dict[str, str], sites: list[SiteInfo], cameras: list[str]
) -> Iterator[dict[str, object]]:
    """The rows of one episode as `add_frame` takes them."""
    n_steps = len(episode.steps["t"])
    last = np.arange(n_steps) == n_steps - 1
    values = {feature: episode.steps[column] for feature, column in columns.items()}
    values["observation.state"] = values["observation.state"].astype(STATE_DTYPE)
    values["next.done"] = last
    values["next.success"] = last & bool(episode.about["success"])
    for site in sites:
        _, rows = episode.activation(site.name)
        values[f"activation.{site.name}"] = rows.reshape(n_steps, -1).astype(np.float32)
    for camera in cameras:
        values[f"observation.images.{camera}"] = episode.pixels(camera)
    for t in range(n_steps):
        frame = {name: np.atleast_1d(rows[t]) for name, rows in values.items()}
        yield frame | {"task": episode.task}


def _rate(traces: TraceCollection) -> int:
    """Control steps a second; lerobot takes whole numbers."""
    rates = {recording.header.suite.get("control_hz") for recording in traces.recordings()}
    if len(rates) > 1 or None in rates:
        found = ", ".join(sorted(map(str, rates)))
        raise UserError(f"control rates of {found} Hz in these files; export them apart")
    return round(rates.pop())


@contextmanager
def _quiet(datasets) -> Iterator[None]:
    """No progress bars of the library that lerobot writes with."""
    if not datasets.is_progress_bar_enabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()

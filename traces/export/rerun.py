"""Rerun: one .rrd file; all episodes share the time lines `step` and `time`: pairs play together.

episode_0000                      what it is, as text
episode_0000/camera/<camera>      the policy's own pictures, as recorded (PNG)
episode_0000/steps/<column>       numbers of every step
episode_0000/scene/hand, path, objects/<name>      positions in 3D [m]
episode_0000/activations/<site>   one tensor a site, over its decisions
vla_trace                         JSON: the headers of the recordings
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from traces.collection import TraceCollection
from traces.errors import MissingExtra
from traces.export.episodes import Episode, episodes, provenance
from traces.schema import STEPS

NOT_SHOWN = {"episode", "t", "decision"}
HAND_M, OBJECT_M = 0.008, 0.015
"""Radii of the points that stand for the hand and for objects."""


def export(
    traces: TraceCollection, out: Path, *, frames: bool = True, activations: bool = True
) -> list[str]:
    """Write the file and return what is to be said about it: nothing.

    Args:
        traces: what to export.
        out: name of the new file.
        frames: with the pictures, of the steps at which they were kept.
        activations: with what was recorded inside the policy.

    Raises:
        MissingExtra: rerun-sdk is not installed.
    """
    try:
        import rerun as rr
    except ModuleNotFoundError as error:
        raise MissingExtra("rerun-sdk", "rerun") from error

    stream = rr.RecordingStream("vla-trace")
    stream.save(out)
    try:
        stream.send_recording_name(out.stem)
        told = json.dumps(provenance(traces), indent=1)
        stream.log("vla_trace", rr.TextDocument(told), static=True, strict=True)
        for episode in episodes(traces):
            player = _Player(rr, stream, episode)
            player.text()
            player.numbers()
            player.scene()
            if frames:
                player.pictures()
            if activations:
                player.activations()
    finally:
        stream.disconnect()
    return []


class _Player:
    """Writes one episode."""

    def __init__(self, rr, stream, episode: Episode) -> None:
        self.rr, self.stream, self.episode = rr, stream, episode
        self.place = f"episode_{episode.number:04d}"
        self.hz = float(episode.header.suite.get("control_hz") or 0)

    def text(self) -> None:
        """What the episode is."""
        about, intervention = self.episode.about, self.episode.header.intervention
        facts = {
            "condition": intervention.name if intervention else "baseline",
            "dose": intervention.coefficient if intervention else None,
            **{name: about[name] for name in ("instruction", "success", "task_name", "error")},
            **{name: about[name] for name in ("init_state", "scene_seed", "pair_key", "uid")},
        }
        lines = [f"- {name}: {value}" for name, value in facts.items() if value not in (None, "")]
        self._keep("", self.rr.TextDocument("\n".join(lines), media_type="text/markdown"))

    def numbers(self) -> None:
        """Columns of steps/ of the format."""
        steps = self.episode.steps
        for name in (field.name for field in STEPS if field.name not in NOT_SHOWN):
            values = steps[name].astype(np.float64)
            self._play(f"steps/{name}", steps["t"], self.rr.Scalars.columns(scalars=values))

    def scene(self) -> None:
        """Hand and objects, where they were."""
        rr, steps = self.rr, self.episode.steps
        path = np.vstack([steps["ee_pos"], self.episode.about["final_ee_pos"]])  # (T+1, 3)
        self._keep("scene/path", rr.LineStrips3D([path[np.isfinite(path).all(axis=1)]]))
        self._points("scene/hand", steps["t"], steps["ee_pos"], HAND_M)
        for name, columns in self.episode.objects().items():
            self._points(f"scene/objects/{name}", columns["step"], columns["pos"], OBJECT_M)

    def pictures(self) -> None:
        """What the policy saw, where it was kept."""
        for camera in self.episode.cameras:
            steps, pictures = self.episode.pictures(camera)
            columns = self.rr.EncodedImage.columns(
                blob=pictures, media_type=["image/png"] * len(pictures)
            )
            self._play(f"camera/{camera}", steps, columns)

    def activations(self) -> None:
        """One tensor a site, its axes named."""
        for site in self.episode.sites:
            _, values = self.episode.activation(site.name)
            tensor = self.rr.Tensor(values, dim_names=site.dims)
            self._keep(f"activations/{site.name}", tensor)

    def _points(self, name: str, steps: np.ndarray, at_m: np.ndarray, radius_m: float) -> None:
        known = np.isfinite(at_m).all(axis=1)
        radii = np.full(known.sum(), radius_m)
        columns = self.rr.Points3D.columns(positions=at_m[known], radii=radii)
        self._play(name, steps[known], columns)

    def _play(self, name: str, steps: np.ndarray, columns: object) -> None:
        """Send columns of values at some steps."""
        if not len(steps):
            return
        lines = [self.rr.TimeColumn("step", sequence=steps)]
        if self.hz:
            lines.append(self.rr.TimeColumn("time", duration=steps / self.hz))
        place = f"{self.place}/{name}"
        self.rr.send_columns(place, lines, columns, recording=self.stream, strict=True)

    def _keep(self, name: str, what: object) -> None:
        """Log what has no time."""
        place = f"{self.place}/{name}".rstrip("/")
        self.stream.log(place, what, static=True, strict=True)

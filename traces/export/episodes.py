"""One episode at a time, as exporters need it: every index counts within the episode."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from traces.collection import TraceCollection
from traces.errors import UserError
from traces.header import JSON_ATTRIBUTES, SiteInfo, TraceHeader
from traces.reader import Columns

EVERY_STEP = "record with: vla-trace record --keep frames --replan 1"


@dataclass(frozen=True)
class Episode:
    """One row of episodes/, and what belongs to it."""

    number: int
    """Place in the dataset, from 0."""
    recording: int
    header: TraceHeader
    about: dict[str, object]
    """Columns of episodes/: plain values."""
    steps: Columns
    """(T, ...); `decision` counts within the episode."""
    decisions: Columns
    """(D, ...)"""
    traces: TraceCollection
    file: int
    row: int
    """Row of episodes/ within its file."""

    @property
    def task(self) -> str:
        """What the policy was told."""
        return str(self.about["instruction"])

    @property
    def sites(self) -> list[SiteInfo]:
        """What was recorded inside the policy."""
        with self.traces.reading(self.file) as reader:
            return reader.sites()

    @property
    def cameras(self) -> list[str]:
        """Cameras whose pictures may have been kept."""
        with self.traces.reading(self.file) as reader:
            return reader.cameras()

    def activation(self, site: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the decisions (M,) that a site was recorded at, and its values (M, ...)."""
        with self.traces.reading(self.file) as reader:
            first, _ = reader.decision_span(self.row)
            decisions = reader.activation_decisions(site, episode=self.row) - first
            return decisions, reader.activation(site, episode=self.row)

    def pictures(self, camera: str) -> tuple[np.ndarray, list[bytes]]:
        """Return the steps (M,) at which a camera was kept, and the PNG of each."""
        with self.traces.reading(self.file) as reader:
            first, _ = reader.step_span(self.row)
            steps, pictures = reader.frames(camera, episode=self.row)
            return steps - first, pictures

    def pixels(self, camera: str) -> np.ndarray:
        """Return a camera's pictures (T, H, W, 3) uint8, one for every step.

        Raises:
            UserError: they were not kept at every step.
        """
        steps, pictures = self.pictures(camera)
        if len(steps) != len(self.steps["t"]):
            raise UserError(
                f"{self.traces.paths[self.file]} has pictures of {len(steps)} of "
                f"{len(self.steps['t'])} steps of an episode, and the format needs all; "
                f"{EVERY_STEP}, or leave pictures out with --no-frames"
            )
        return np.stack([decoded(png) for png in pictures])

    def sim_path(self) -> np.ndarray | None:
        """Return the simulator states (T+1, S); None where none were kept."""
        with self.traces.reading(self.file) as reader:
            return reader.sim_path(self.row) if reader.has_sim_states else None

    def objects(self) -> dict[str, Columns]:
        """Return, by object, the columns `step`, `pos`, `quat` and `joint`."""
        with self.traces.reading(self.file) as reader:
            first, _ = reader.step_span(self.row)
            columns = reader.objects(episode=self.row)
        if not columns:
            return {}
        columns["step"] = columns["step"] - first
        return {
            str(name): {
                key: columns[key][columns["name"] == name]
                for key in ("step", "pos", "quat", "joint")
            }
            for name in np.unique(columns["name"])
        }


def episodes(traces: TraceCollection) -> Iterator[Episode]:
    """Yield every episode, of those recorded again the newest, one in memory at a time."""
    columns = traces.episodes()
    first_row = np.searchsorted(columns["file"], np.arange(len(traces.paths)))
    for number, row in enumerate(np.flatnonzero(~superseded(traces))):
        about = {name: values[row] for name, values in columns.items()}
        steps, decisions = traces.steps(episode=int(row)), traces.decisions(episode=int(row))
        steps["decision"] = steps["decision"] - int(about["first_decision"])
        yield Episode(
            number,
            int(about["recording"]),
            traces.recordings()[about["recording"]].header,
            {name: np.asarray(value).tolist() for name, value in about.items()},
            steps,
            decisions,
            traces,
            int(about["file"]),
            int(row - first_row[about["file"]]),
        )


def superseded(traces: TraceCollection) -> np.ndarray:
    """Mark the rows (E,) of episodes/ that a later session of the same run recorded again."""
    columns = traces.episodes("uid", "session")
    newest: dict[tuple[str, str], tuple[int, int]] = {}
    recordings = traces.recordings()
    for row, (recording, uid, session) in enumerate(
        zip(columns["recording"], columns["uid"], columns["session"].tolist(), strict=True)
    ):
        key = recordings[recording].header.run_id, str(uid)
        newest[key] = max(newest.get(key, (-1, -1)), (session, row))
    marks = np.ones(traces.n_episodes, bool)
    marks[[row for _, row in newest.values()]] = False
    return marks


def shared_cameras(traces: TraceCollection) -> list[str]:
    """Return the cameras of all recordings.

    Raises:
        UserError: none were kept, or not the same in all.
    """
    found = []
    for recording in traces.recordings():
        with traces.reading(recording.files[0]) as reader:
            found.append(reader.cameras())
            if not reader.cameras():
                raise UserError(
                    f"{reader.path} kept no pictures; {EVERY_STEP}, or leave them out with "
                    "--no-frames"
                )
            if found[0] != found[-1]:
                raise UserError(
                    f"{reader.path} has the cameras {', '.join(found[-1])}, others have "
                    f"{', '.join(found[0])}; export them apart"
                )
    return found[0] if found else []


def decoded(png: bytes) -> np.ndarray:
    """Return the pixels (H, W, 3) uint8 of a PNG.

    Raises:
        UserError: it is damaged.
    """
    import imageio.v3 as iio

    try:
        return iio.imread(png, extension=".png", plugin="pillow")
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"a picture cannot be read ({error}); see: vla-trace check") from error


def provenance(traces: TraceCollection) -> dict:
    """Return where the episodes come from, as JSON has it: files and headers of each recording."""
    return {
        "format": "vla-trace",
        "recordings": [
            {"files": [str(path) for path in recording.paths]} | _plain(recording.header)
            for recording in traces.recordings()
        ],
        "notes": list(traces.notes),
    }


def left_out(what: Sequence[str], why: str) -> list[str]:
    """Return one sentence about what an export lacks; none if it lacks nothing."""
    return [f"left out: {', '.join(what)} ({why})"] if what else []


def _plain(header: TraceHeader) -> dict:
    attributes = header.to_attributes()
    texts = {*JSON_ATTRIBUTES, "intervention"}
    return {k: json.loads(v) if k in texts else v for k, v in attributes.items()}

"""What the Episode screen needs of one episode before it can draw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tui.data.frames import FrameSteps, read_frame_steps
from tui.data.inside import site_names
from tui.data.tracks import EpisodeTracks, read_tracks


@dataclass(frozen=True, eq=False)
class EpisodeContent:
    """One episode; pictures and neurons are named here and read when they are shown."""

    tracks: EpisodeTracks
    cameras: FrameSteps
    sites: tuple[str, ...]


def read_episode(path: Path, row: int) -> EpisodeContent:
    """Read one row of episodes/; raises `UserError`."""
    return EpisodeContent(read_tracks(path, row), read_frame_steps(path, row), site_names(path))

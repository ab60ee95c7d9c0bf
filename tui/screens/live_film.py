"""The newest episode that a training kept with its pictures, one a second, then at rest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tui.data.model import Episode, Run
from tui.screens.loading import LoadingScreen
from tui.wording import outcome

if TYPE_CHECKING:
    import numpy as np

    from tui.data.frames import FrameSteps
    from tui.widgets.frame import Frame

PLACE = re.compile(r"/u(\d+)/g(\d+)/a\d+/m(\d+)$")
"""Update (from 0), group and member in the uid of an episode."""


class FilmScreen(LoadingScreen):
    """A screen that puts a picture `#film` into its `#below` where the run kept any."""

    def __init__(self) -> None:
        super().__init__()
        self._frame: Frame | None = None
        self._film: Episode | None = None
        self._at = 0
        """Which of its pictures is shown."""

    def paint_film(self, run: Run, play: bool) -> None:
        """Show the picture that is due.

        Args:
            run: a training.
            play: go on by one picture; an episode that is new begins with its first one.
        """
        episode = newest_filmed(run)
        if episode is None:
            return
        if self._film != episode:
            self._film, self._at = episode, 0 if run.state == "running" else 10**9
        path, row = episode.path, episode.row
        steps, _ = self.load((path, row), lambda: steps_of(path, row)) or (None, "")
        if not steps:
            return
        camera, taken = next(iter(steps.items()))
        self._at = min(self._at + play, len(taken) - 1)
        step = int(taken[self._at])
        known = self.load((path, row, step), lambda: picture_of(path, row, camera, step))
        if known is not None:  # else it is shown when it arrives
            if self._frame is None:
                self._frame = self.app.frame("film", 2)
                self._frame.can_focus = True
                self.query_one("#below").mount(self._frame)
            self._frame.show(f"{named(episode)} step {step}", known[1] or known[0])


def steps_of(path: Path, row: int) -> FrameSteps:
    """Return the cameras of an episode; what this takes is imported on the thread that reads."""
    from tui.data.frames import read_frame_steps

    return read_frame_steps(path, row)


def picture_of(path: Path, row: int, camera: str, step: int) -> np.ndarray:
    """Return one picture, (height, width, 3) uint8."""
    from tui.data.frames import read_frame

    return read_frame(path, row, camera, step)


def newest_filmed(run: Run) -> Episode | None:
    """Return the last episode of the newest trace of a training that keeps pictures."""
    kept = run.training.config.get("keep") if run.training else None
    if not isinstance(kept, list | tuple) or "frames" not in kept:
        return None
    closed = (e for e in run.episodes if not e.live and PLACE.search(e.uid))
    return max(closed, key=lambda e: e.uid, default=None)


def named(episode: Episode) -> str:
    """Return where an episode is from, and how it ended."""
    update, group, member = map(int, PLACE.search(episode.uid).groups())
    mark, _ = outcome(episode.success, episode.error)
    return f"u{update + 1} g{group} m{member} {mark[0]}"

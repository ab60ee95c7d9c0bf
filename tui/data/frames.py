"""The pictures of one episode, where its trace kept them; read one at a time."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from analysis.opening import opened
from traces.errors import UserError

MOST_PIXELS = 4096 * 4096
"""Of a picture that is decoded; cameras of policies have less than a tenth of a million."""

FrameSteps = dict[str, np.ndarray]
"""Camera to the control steps of an episode, from 0, that it was recorded at; (n,) ascending."""


def read_frame_steps(path: Path, row: int) -> FrameSteps:
    """Return the cameras with at least one picture of a row of episodes/; raises `UserError`."""
    with opened(path) as trace:
        first = int(trace.episodes("first_step")["first_step"][row])
        found = {camera: trace.frame_steps(camera, episode=row) for camera in trace.cameras()}
    return {camera: steps - first for camera, steps in found.items() if len(steps)}


def read_frame(path: Path, row: int, camera: str, step: int) -> np.ndarray:
    """Return the picture that was taken at a control step, (height, width, 3) uint8.

    Raises:
        UserError: the trace or the picture cannot be read.
    """
    with opened(path) as trace:
        first = int(trace.episodes("first_step")["first_step"][row])
        file = trace.frame(camera, first + step)
    return decoded(file)


def newest(steps: np.ndarray, step: int) -> int:
    """Return the last of some ascending steps that is not after `step`, or the first of them."""
    return int(steps[max(0, int(np.searchsorted(steps, step, side="right")) - 1)])


def decoded(file: bytes) -> np.ndarray:
    """Decode a PNG, which anybody may have written.

    Raises:
        UserError: it is none, or too large to be the view of a policy.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(file), formats=["PNG"]) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise UserError(f"a picture of {picture.width} x {picture.height} is not shown")
            return np.asarray(picture.convert("RGB"))
    except UserError:
        raise
    except Exception as error:  # whatever a broken file makes of the decoder
        raise UserError(f"not a readable PNG ({type(error).__name__})") from error

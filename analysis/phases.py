"""What the hand is doing in each control step: three phases that any trace shows.

    approach    before a finger first touches anything
    transport   a finger touches something and the hand is told to close: it holds, or pushes
    contact     every other step since the first touch: grasping, slipping, letting go, withdrawing

Told by the columns `contact` and the sign of the last entry of `action` (positive closes, as in
LIBERO), so they need no object poses and mean the same in every suite. An episode in which nothing
is ever touched is approach to its end.
"""

import numpy as np

from analysis.spans import Spans

PHASES = ("approach", "contact", "transport")


def told_to_close(action: np.ndarray) -> np.ndarray:
    """(T,) whether the action (T, A) as sent closes the hand."""
    return (action[:, -1:] > 0).any(axis=1)


def phases(contact: np.ndarray, closing: np.ndarray, spans: Spans) -> dict[str, np.ndarray]:
    """Return, for each of `PHASES`, the steps (T,) that it marks.

    Args:
        contact: (T,) a finger touches something.
        closing: (T,) the hand is told to close.
        spans: the steps of each episode.
    """
    row = np.arange(len(contact))
    first_touch = spans.reduce(np.minimum, np.where(contact, row, len(contact)), len(contact))
    approach = np.zeros(len(contact), bool)
    approach[spans.rows] = spans.rows < spans.each(first_touch)
    transport = contact & closing
    return {"approach": approach, "contact": ~approach & ~transport, "transport": transport}


def gripper_events(closing: np.ndarray, spans: Spans) -> tuple[np.ndarray, np.ndarray]:
    """How often the hand was told to close and to open, once it had been told the other: (E,) each.

    Args:
        closing: (T,) the hand is told to close.
        spans: the steps of each episode.
    """
    later = Spans(spans.first + 1, np.maximum(spans.n - 1, 0))
    before = np.roll(closing, 1)
    return later.sum(closing & ~before), later.sum(~closing & before)

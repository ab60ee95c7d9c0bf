"""Sentences of the Episode screen: its pair, where two hands part, how far a path goes."""

import numpy as np

from tui.data.episode import EpisodeContent
from tui.data.model import Episode, Run
from tui.screens.episode_tracks import APART_CM, hands_apart_cm, parted_at
from tui.widgets.lines import Span
from tui.wording import count, number, outcome


def pair_spans(run: Run | None, episode: Episode) -> list[Span]:
    """Say how the paired episode ended."""
    partner = run.next_of_pair(episode) if run else None
    if partner is None:
        return [("no paired episode", "dim")]
    text, style = outcome(partner.success, partner.error)
    return [
        ("pair: ", "dim"),
        (f"{partner.condition} #{count(partner.number)} ", ""),
        (text, style),
        (f"  {count(partner.n_steps)} steps  MEED {number(partner.meed_cm)} cm", ""),
    ]


def parted_spans(contents: list[EpisodeContent]) -> list[Span]:
    """Say where two episodes part."""
    if len(contents) < 2:
        return []
    a, b = (content.tracks for content in contents)
    apart, step = hands_apart_cm(a, b), parted_at(a, b)
    known = apart[np.isfinite(apart)]
    most = f"{known.max():.1f} cm at most" if len(known) else "unknown"
    if step is None:
        return [(f"the hands are never {APART_CM:g} cm apart ", ""), (f"({most})", "dim")]
    return [("parted ", "dim"), (f"{APART_CM:g} cm at step {step}", "bold"), (f", {most}", "dim")]


def ranges(paths_cm: list[np.ndarray]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Ranges of x and y that hold all paths."""
    every = np.concatenate(paths_cm)[:, :2]
    known = every[np.isfinite(every).all(axis=1)]
    low, high = (known.min(axis=0), known.max(axis=0)) if len(known) else ((0, 0), (1, 1))
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


def extent(values: np.ndarray) -> str:
    """Say between which whole numbers the finite values lie."""
    known = values[np.isfinite(values)]
    if not len(known):
        return "unknown"
    return "…".join(f"{round(end) + 0.0:.0f}" for end in (known.min(), known.max()))  # no -0

"""What the Episode screen draws as tracks: one episode, two beside each other, or neurons."""

from __future__ import annotations

import numpy as np

from tui.data.inside import SiteTracks
from tui.data.tracks import EpisodeTracks
from tui.widgets.tracks import Track

APART_CM = 2.0
"""Hands that are further apart than this have parted: a control step is 1 to 2 cm."""
SIGMA = 4.0
"""Standard deviations at the top of a neuron's track; minus this many at its bottom."""
NAMES = "AB"


def tracks_of(tracks: EpisodeTracks) -> list[Track]:
    """Return the tracks of one episode, from top to bottom."""
    actions = [
        Track(name, tracks.action[:, i], -1.0, 1.0, style="accent")
        for i, name in enumerate(tracks.action_names)
    ]
    opening_cm = 100 * tracks.opening_m
    log_prob = tracks.log_prob
    return [
        *actions,
        Track("open cm", opening_cm, 0.0, _top(opening_cm), text="{:.2f}"),
        Track(
            "log p",
            log_prob,
            *_range(log_prob),
            text="{:.2f}",
            instead=f"none: {tracks.why_no_log_prob}" if tracks.why_no_log_prob else "",
        ),
        Track("contact", tracks.contact, style="warn", mark="▪"),
        Track("steered", tracks.intervened, style="accent"),
    ]


def tracks_beside(a: EpisodeTracks, b: EpisodeTracks) -> list[Track]:
    """Return the tracks of two episodes, one below the other, and how far apart the hands are."""
    n = max(a.n_steps, b.n_steps)
    found = []
    names = [name for name in a.action_names if name in b.action_names]
    for name in (*names[:3], *names[6:]):
        for which, one, style in zip(NAMES, (a, b), ("accent", "warn"), strict=True):
            values = one.action[:, one.action_names.index(name)]
            found.append(Track(f"{name} {which}", _filled(values, n), -1.0, 1.0, style=style))
    apart_cm = _filled(hands_apart_cm(a, b), n)
    found.append(Track("apart cm", apart_cm, 0.0, _top(apart_cm), style="bad", text="{:.1f}"))
    for which, one in zip(NAMES, (a, b), strict=True):
        touched = np.zeros(n, bool)
        touched[: one.n_steps] = one.contact
        found.append(Track(f"touch {which}", touched, style="warn", mark="▪"))
    return found


def tracks_inside(sites: list[SiteTracks], n_steps: int) -> list[Track]:
    """Return one track a neuron; of two episodes the same neurons, one below the other."""
    found = []
    for place, neuron in enumerate(sites[0].neurons):
        for which, one, style in zip(NAMES, sites, ("accent", "warn"), strict=False):
            name = f"{'×' if neuron in one.steered else 'n'}{neuron}"
            name += f" {which}" if len(sites) > 1 else ""
            values = _filled(one.values[:, place], n_steps)
            found.append(Track(name, values, -SIGMA, SIGMA, style=style, text="{:+.1f}σ"))
    return found


def hands_apart_cm(a: EpisodeTracks, b: EpisodeTracks) -> np.ndarray:
    """Distance of the two hands at every step that both have, (min(T, T') + 1,) [cm]."""
    n = min(len(a.path_m), len(b.path_m))
    with np.errstate(over="ignore", invalid="ignore"):
        return 100 * np.sqrt(((a.path_m[:n] - b.path_m[:n]) ** 2).sum(axis=1))


def parted_at(a: EpisodeTracks, b: EpisodeTracks) -> int | None:
    """Return the first step at which the hands are `APART_CM` apart; None when they never are."""
    apart = hands_apart_cm(a, b) > APART_CM
    return int(apart.argmax()) if apart.any() else None


def _filled(values: np.ndarray, n: int) -> np.ndarray:
    """Values over n steps, unknown after the last one."""
    filled = np.full(n, np.nan)
    filled[: min(n, len(values))] = values[:n]
    return filled


def _range(values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)


def _top(values: np.ndarray) -> float:
    return max(_range(values)[1], 1e-6)

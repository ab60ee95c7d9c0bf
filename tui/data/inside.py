"""What some neurons did during one episode, for the tracks of the Episode screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.opening import opened
from traces.reader import TraceReader

SHOWN = 8
"""Neurons of a site."""


@dataclass(frozen=True, eq=False)
class SiteTracks:
    """Some neurons of one site over the control steps of an episode."""

    site: str
    neurons: tuple[int, ...]
    steered: tuple[int, ...]
    """Those of them that the recording's intervention acts on."""
    values: np.ndarray
    """(T, n) in standard deviations from the recording's mean; held between two decisions."""


def site_names(path: Path) -> tuple[str, ...]:
    """Return the sites with one number a neuron and decision; raises `UserError`."""
    with opened(path) as trace:
        return tuple(site.name for site in trace.sites() if site.dims == ("D", "N"))


def read_site(path: Path, row: int, site: str, neurons: Sequence[int] = ()) -> SiteTracks:
    """Read some neurons of a site during one row of episodes/.

    Args:
        path: a trace.
        row: of episodes/.
        site: one of `site_names`.
        neurons: which; without any those that are steered, then those that moved furthest from
            the recording's mean.

    Raises:
        UserError: the trace cannot be read.
    """
    with opened(path) as trace:
        at = trace.steps("decision", episode=row)["decision"]
        decisions = trace.activation_decisions(site, episode=row)
        values = trace.activation(site, episode=row)
        _, mean, std = trace.activation_stats(site)
        steered = _steered(trace, site)
    scale = np.where(std > 0, std, np.inf)
    away = (values.astype(np.float64) - mean) / scale  # (D', N)
    if not neurons:
        furthest = np.argsort(-np.nan_to_num(np.abs(away)).max(axis=0, initial=0), kind="stable")
        chosen = dict.fromkeys([*steered, *furthest.tolist()])
        neurons = tuple(n for n in chosen if n < values.shape[1])[:SHOWN]
    held = np.clip(np.searchsorted(decisions, at, side="right") - 1, 0, None)
    known = away[held] if len(away) else np.full((len(at), values.shape[1]), np.nan)
    chosen = tuple(int(n) for n in neurons)
    return SiteTracks(site, chosen, tuple(n for n in chosen if n in steered), known[:, chosen])


def _steered(trace: TraceReader, site: str) -> list[int]:
    """The neurons of a site that were acted on."""
    tower, layer, *_ = site.split(".")
    done = trace.header.intervention
    names = {"exp": "expert"}
    return [
        neuron
        for place in (done.sites if done and not done.sae else ())
        if (place.tower, str(place.layer)) == (names.get(tower, tower), layer)
        for neuron in place.neurons
    ]

"""How neurons fire in recordings, and whether they do when the hand is fast.

Read from `vlm.L.ffn_act` of unsteered recordings, block by block. The speed of a decision is the
mean distance per control step over the steps it drove. Decisions follow each other too closely to
count as independent, so the correlation over them only describes; its test takes one pair of means
an episode: Fisher's z, p = erfc(|atanh r| sqrt(n - 3) / sqrt 2), Holm-corrected over all neurons.
"""

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.motion import step_lengths_cm
from analysis.multiplicity import corrected
from traces.collection import TraceCollection, open_traces
from traces.errors import UserError

BLOCK_ROWS = 1024
MIN_EPISODES = 4
"""Fisher's z needs more than three."""


@dataclass(frozen=True)
class Activity:
    """How the recorded neurons fired."""

    rows: pl.DataFrame
    """layer, neuron, act_mean, act_std, act_positive (share above 0), act_max, speed_r (over
    decisions), speed_r_episodes (over episodes) and speed_p, the latter's Holm-corrected p."""
    decisions: int
    episodes: int
    notes: tuple[str, ...]


def activity(patterns: tuple[str, ...], sha256: str, layers: list[int]) -> Activity:
    """Read how the neurons of some layers fired.

    Args:
        patterns: traces, folders or patterns.
        sha256: of the policy whose neurons these are.
        layers: those wanted; a layer that was not recorded has no rows.

    Raises:
        UserError: the traces are of other weights, all steered, or hold no such activations.
    """
    with open_traces(*patterns) as traces:
        _check_policy(traces, sha256)
        natural, notes = _natural(traces)
        sites = {layer: f"vlm.{layer}.ffn_act" for layer in layers}
        recorded = {site.name for site in traces.sites()}
        there = [layer for layer, site in sites.items() if site in recorded]
        if not there:
            raise UserError(
                f"no recorded activations of {', '.join(sites.values())} in these traces; "
                "record them with: vla-trace record --capture standard"
            )
        if absent := sorted(set(layers) - set(there)):
            notes.append(f"layers without recorded activations: {', '.join(map(str, absent))}")
        speed = _decision_speed(traces)
        speed[~natural] = np.nan
        episode = traces.decisions("episode")["episode"]
        rows = pl.concat(
            [_of_layer(traces, layer, sites[layer], speed, episode) for layer in there]
        )
        counted = np.isfinite(speed)
        episodes = len(np.unique(episode[counted]))
        return Activity(_tested(rows, episodes), int(counted.sum()), episodes, tuple(notes))


def _check_policy(traces: TraceCollection, sha256: str) -> None:
    policies = traces.table("policies", "sha256")
    for file, other in zip(policies["file"].tolist(), policies["sha256"].tolist(), strict=True):
        if other != sha256:
            raise UserError(
                f"{traces.paths[file]} was recorded with other weights ({other[:8] or 'unknown'}) "
                f"than this table's ({sha256[:8]}); name that policy, or other traces"
            )


def _natural(traces: TraceCollection) -> tuple[np.ndarray, list[str]]:
    """Return which decisions nobody steered, (D,), and what to say about the others."""
    steered = np.array([r.header.intervention is not None for r in traces.recordings()])
    if steered.all():
        raise UserError("all of these traces are steered; give a baseline: vla-trace record")
    notes = list(traces.notes)
    if steered.any():
        notes.append(f"steered recordings left out, being unnatural: {steered.sum()}")
    recording = traces.episodes("n_steps")["recording"]
    return ~steered[recording][traces.decisions("episode")["episode"]], notes


def _decision_speed(traces: TraceCollection) -> np.ndarray:
    """Return the mean distance per control step that each decision drove [cm], (D,)."""
    episodes = traces.episodes("first_step", "n_steps", "final_ee_pos")
    steps = traces.steps("decision", "ee_pos")
    lengths = [
        step_lengths_cm(steps["ee_pos"][first : first + n], final)
        for first, n, final in zip(
            *(episodes[name] for name in ("first_step", "n_steps", "final_ee_pos")), strict=True
        )
    ]
    count = np.bincount(steps["decision"], minlength=traces.n_decisions)
    total = np.bincount(steps["decision"], np.concatenate(lengths), minlength=traces.n_decisions)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _of_layer(
    traces: TraceCollection, layer: int, site: str, speed: np.ndarray, episode: np.ndarray
) -> pl.DataFrame:
    """Return the statistics of one layer's neurons over the decisions with a speed."""
    values = traces.activation(site)
    rows = np.flatnonzero(np.isfinite(speed[values.decisions]))
    s, e = speed[values.decisions[rows]], episode[values.decisions[rows]]
    width = values.shape[-1]
    positive, sums, squares, products = np.zeros((4, width))
    largest = np.full(width, -np.inf)
    episode_sums = np.zeros((traces.n_episodes, width))
    whole = np.zeros(len(rows), bool)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        x = values[rows[block]].astype(np.float64)  # (rows, N)
        whole[block] = np.isfinite(x).all(axis=1)  # float16 may have overflowed
        x, s_x, e_x = (part[whole[block]] for part in (x, s[block], e[block]))
        positive += (x > 0).sum(0)
        largest = np.maximum(largest, x.max(0, initial=-np.inf))
        sums += x.sum(0)
        squares += (x**2).sum(0)
        products += s_x @ x
        np.add.at(episode_sums, e_x, x)
    s, e = s[whole], e[whole]
    n = max(len(s), 1)
    counts = np.bincount(e, minlength=traces.n_episodes)
    seen = counts > 0
    speeds = np.bincount(e, s, minlength=traces.n_episodes)[seen] / counts[seen]
    means = episode_sums[seen] / counts[seen, None]
    std = np.sqrt(np.maximum(squares / n - (sums / n) ** 2, 0))
    return pl.DataFrame(
        {
            "layer": np.full(width, layer, np.int32),
            "neuron": np.arange(width, dtype=np.int32),
            "act_mean": sums / n,
            "act_std": std,
            "act_positive": positive / n,
            "act_max": largest,
            "speed_r": _ratio(products / n - sums / n * s.sum() / n, std * s.std()),
            "speed_r_episodes": _ratio(
                (speeds - speeds.mean()) @ (means - means.mean(0)) / len(means),
                speeds.std() * means.std(0),
            ),
        }
    )


def _ratio(covariance: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return correlations; NaN for what never changes (up to rounding)."""
    return np.where(scale > 1e-12, covariance / np.maximum(scale, 1e-12), np.nan).clip(-1, 1)


def _tested(rows: pl.DataFrame, episodes: int) -> pl.DataFrame:
    """Add `speed_p`, Holm-corrected over all neurons; what is unknown is null."""
    if episodes < MIN_EPISODES:
        return rows.with_columns(speed_p=pl.lit(None, pl.Float64)).fill_nan(None)
    rows = rows.fill_nan(None)
    z = pl.col("speed_r_episodes").clip(-1 + 1e-12, 1 - 1e-12).arctanh().abs()
    scaled = rows.select(z * math.sqrt((episodes - 3) / 2)).to_series().to_list()
    p = np.array([np.nan if value is None else math.erfc(value) for value in scaled])
    return rows.with_columns(pl.Series("speed_p", corrected(p)).fill_nan(None))

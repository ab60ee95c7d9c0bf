"""What the features of an autoencoder do: when they come, what they follow, where they peak.

    from analysis.sae.features import features
    found = features("sae/vlm.2.resid_post/seed0", ["traces/*.h5"])
    found.coverage.filter(pl.col("label") == "general")

Definitions are those of neurons (`analysis.meaning`, `analysis.onsets`, `analysis.generality`), on
features in units of the row's length. A feature is active where it is above 0.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from analysis.meaning import OF_COVERAGE, OF_SIGNALS, about_recording, corrected_signals
from analysis.natural import Chosen, by_episode, natural_episodes
from analysis.onsets import ACTIVE, ON
from analysis.sae.feature_rows import FeatureRows
from analysis.sae.rows import check_policy, named_site, policy_hash
from analysis.units import read_units
from traces.autoencoder import Autoencoder, load_autoencoder
from traces.collection import TraceCollection, open_traces
from traces.errors import UserError

TOP = 10
"""Episodes kept of each feature: those where it peaks highest."""
MOST_ROWS = 1.0
"""Mean control steps a policy call, above which onsets between calls are missed."""

OF_FEATURES = {
    ("feature" if name == "neuron" else name): kind for name, kind in OF_COVERAGE.items()
} | {
    "mean_active_fraction": pl.Float64,  # mean over episodes of the share of rows at ON or above
    "peak_length": pl.Float64,  # mean_peak in units of the activations, along the direction
}
OF_TOP = {
    "feature": pl.Int32,
    "rank": pl.Int32,  # from 0
    "uid": pl.String,
    "task": pl.String,
    "success": pl.Boolean,
    "peak": pl.Float64,
    "step": pl.Int64,  # control step at which it peaks
}


@dataclass(frozen=True)
class Features:
    """The features of one autoencoder in the unsteered episodes of some traces."""

    sae: Autoencoder
    policy: str
    episodes: int
    decisions: int
    row_length: float
    """Mean length of a row around its mean, in units of the activations."""
    coverage: pl.DataFrame
    """Columns of `OF_FEATURES`, one row a feature."""
    signals: pl.DataFrame
    """As `meaning.OF_SIGNALS`, with `feature` for `neuron`."""
    top: pl.DataFrame
    """Columns of `OF_TOP`."""
    notes: tuple[str, ...]


def features(
    folder: Path | str, paths: Iterable[Path | str], other_policy: bool = False
) -> Features:
    """Describe the features of an autoencoder.

    Args:
        folder: the autoencoder.
        paths: unsteered traces of the policy that it was trained on, best with a policy call every
            step.
        other_policy: take traces of another policy, too.

    Raises:
        UserError: the site was not recorded, has another width, no episode is unsteered, or they
            are of another policy.
    """
    paths, sae = list(paths), load_autoencoder(folder)
    frame, notes = natural_episodes(paths)
    with open_traces(*paths) as traces:
        site = named_site(traces, sae.site)
        values = traces.activation(site.name)
        if values.shape[-1] != sae.width:
            raise UserError(
                f"{folder} reads rows of {sae.width}, {site.name} in these traces has "
                f"{values.shape[-1]}; give traces of the policy that it was trained on"
            )
        if not other_policy:
            check_policy(sae, folder, frame["policy"][0], policy_hash(traces))
        chosen = Chosen.of(traces, frame)
        rows = FeatureRows(values, sae)
        units = read_units(rows, site.layer, chosen, scaled=lambda z: z, active=ACTIVE)
        if not units.coverage["episodes"][0]:
            raise UserError(f"{site.name} was recorded in none of these unsteered episodes")
        peaks = _peaks(traces, rows, chosen)
        length = _row_length(sae, values)
    named, of_length = {"neuron": "feature"}, np.linalg.norm(sae.W_dec, axis=1).astype(float)
    coverage = units.coverage.rename(named).with_columns(
        pl.Series("mean_active_fraction", peaks.active_share),
        (pl.col("mean_peak") * length * pl.Series(of_length)).alias("peak_length"),
    )
    executed = float(chosen.durations[chosen.decisions.rows].mean())
    if executed > MOST_ROWS:
        notes.append(
            f"the policy is asked every {executed:.3g} control steps: onsets between calls are not "
            "seen; record with --replan 1"
        )
    return Features(
        sae=sae,
        policy=frame["policy"][0],
        episodes=len(frame),
        decisions=int(chosen.decisions.n.sum()),
        row_length=length,
        coverage=coverage.select(*OF_FEATURES).cast(OF_FEATURES),
        signals=corrected_signals(units.signals).select(*OF_SIGNALS).cast(OF_SIGNALS).rename(named),
        top=peaks.top.cast(OF_TOP),
        notes=(*notes, *about_recording(chosen)),
    )


@dataclass(frozen=True)
class _Peaks:
    active_share: np.ndarray
    top: pl.DataFrame


def _peaks(traces: TraceCollection, rows: FeatureRows, chosen: Chosen) -> _Peaks:
    """Where each feature is largest, episode by episode; memory is (episodes, features)."""
    columns = traces.episodes("uid", "task_name", "success", "first_decision")
    episode_of = dict(
        zip(columns["first_decision"].tolist(), range(len(columns["uid"])), strict=True)
    )
    t = traces.decisions("t")["t"]
    peaks, steps, episodes = [], [], []
    share = np.zeros(rows.shape[1])
    for episode, decisions, z in by_episode(rows, chosen.decisions):
        z = np.nan_to_num(z)
        place = z.argmax(axis=0)
        peaks.append(z.max(axis=0).astype(np.float32))
        steps.append(t[decisions][place])
        episodes.append(episode_of[int(chosen.decisions.first[episode])])
        share += (z >= ON).mean(axis=0)
    peak, step, row = np.stack(peaks), np.stack(steps), np.array(episodes)
    order = np.argsort(-peak, axis=0, kind="stable")[:TOP]  # (top, m)
    rank, feature = np.nonzero(np.take_along_axis(peak, order, axis=0) > 0)
    found = order[rank, feature]
    top = pl.DataFrame(
        {
            "feature": feature,
            "rank": rank,
            "uid": columns["uid"][row[found]].astype(str),
            "task": columns["task_name"][row[found]].astype(str),
            "success": columns["success"][row[found]].astype(bool),
            "peak": peak[found, feature].astype(float),
            "step": step[found, feature].astype(int),
        }
    )
    return _Peaks(share / len(peaks), top.sort("feature", "rank"))


def _row_length(sae: Autoencoder, values: object, at_most: int = 4096) -> float:
    """Mean over some rows of what a feature of 1 is long, in units of the activations."""
    every = max(1, int(np.prod(values.shape[:-1])) // at_most)
    some = np.asarray(values[::every], np.float32)  # decisions, of all tokens
    some = some.reshape(-1, some.shape[-1])
    some = some[np.isfinite(some).all(axis=1)]
    return float((sae.length(some) * sae.scale(some)).mean()) if len(some) else float("nan")

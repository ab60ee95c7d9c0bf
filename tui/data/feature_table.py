"""Reads what `vla-trace sae features` wrote beside an autoencoder, and drafts its interventions.

It takes polars, so the screens ask for it in another process (`tui.data.apart`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from analysis.sae.features import OF_TOP
from analysis.sae.steering import described, steered_feature
from analysis.signals import CLOCK
from traces.errors import UserError
from traces.intervention import Intervention
from tui.data.feature_sources import COVERAGE, FACTS, SIGNALS, TOP
from tui.data.features import FOLLOWS, Correlations, FeatureCard, Features


def read_features(folder: Path) -> Features:
    """Read the columns; raises `UserError` where the tables are damaged or of another layout."""
    with _readable(folder):
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        columns = ["feature", "label", "coverage", "onset_count", "mean_peak"]
        table = pl.read_parquet(folder / COVERAGE, columns=columns, glob=False).sort("feature")
        signals = pl.read_parquet(folder / SIGNALS, glob=False)
        labels = table["label"].unique(maintain_order=True).sort().to_list()
        numbers = {
            name: table[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
            for name in ("coverage", "onset_count", "mean_peak")
        }
        return Features(
            facts=dict(facts),
            feature=table["feature"].to_numpy(),
            labels=tuple(map(str, labels)),
            label=np.array([labels.index(label) for label in table["label"]], int),
            coverage=numbers["coverage"],
            onsets=numbers["onset_count"],
            peak=numbers["mean_peak"],
            follows=_correlations(signals, table["feature"]),
        )


def _correlations(signals: pl.DataFrame, features: pl.Series) -> Correlations:
    """Turn rows of (feature, signal) into one line a signal."""
    names = signals["signal"].unique(maintain_order=True).to_list()
    known = ("r", "low", "high", "p_follows_bh", "n")
    lines: dict[str, list[np.ndarray]] = {name: [] for name in known}
    for signal in names:
        rows = signals.filter(pl.col("signal") == signal).unique("feature", keep="first")
        joined = features.to_frame().join(rows, on="feature", how="left", maintain_order="left")
        for name in known:
            lines[name].append(joined[name].cast(pl.Float32).fill_null(np.nan).to_numpy())
    empty = np.zeros((0, len(features)), np.float32)
    r, low, high, p, n = (np.stack(line) if line else empty for line in lines.values())
    size = np.where(np.isfinite(p), np.abs(r), -1.0)
    size[p < FOLLOWS] += 2.0  # before all others
    size[[name == CLOCK for name in names]] = -1.0  # for comparison: it is nothing the hand does
    strongest = np.full(len(features), -1)
    if names:
        strongest = np.where(size.max(axis=0) >= 0, size.argmax(axis=0), -1)
    episodes = np.nan_to_num(n).astype(int)
    return Correlations(tuple(map(str, names)), r, low, high, p, episodes, strongest)


def read_card(folder: Path, feature: int) -> FeatureCard:
    """Read all rows of one feature."""
    with _readable(folder):

        def rows(name: str) -> pl.DataFrame:
            return (
                pl.scan_parquet(folder / name, glob=False)
                .filter(pl.col("feature") == feature)
                .collect()
            )

        signals = (
            rows(SIGNALS)
            .drop_nulls("signal")
            .sort(pl.col("r").abs(), descending=True, nulls_last=True)
        )
        return FeatureCard(
            rows(COVERAGE).row(0, named=True),
            tuple(signals.to_dicts()),
            tuple(rows(TOP).select(*OF_TOP).cast(OF_TOP).drop_nulls().sort("rank").to_dicts()),
        )


def draft_feature(folder: Path, home: Path, feature: int, way: str, dose: float) -> Intervention:
    """Return the intervention that `vla-trace sae steer` writes, named as seen from a folder.

    Args:
        folder: the autoencoder.
        home: where the recording is started.
        feature: its number.
        way: of `analysis.sae.steering.WAYS`.
        dose: the coefficient.
    """
    found, whole = described(folder), folder.resolve()
    inside = whole.is_relative_to(home.resolve())
    named = replace(found, folder=whole.relative_to(home.resolve()) if inside else whole)
    return steered_feature(named, feature, way).with_coefficient(dose)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise UserError(
            "these features cannot be read; describe them again: vla-trace sae features "
            f"{folder} --traces FILES ({error})"
        ) from None

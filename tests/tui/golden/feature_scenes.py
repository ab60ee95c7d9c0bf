"""Autoencoders as `vla-trace sae train` keeps them, with tables as `sae features` writes them."""

import json
from pathlib import Path

import numpy as np
import polars as pl

from analysis.meaning import OF_SIGNALS
from analysis.sae.features import OF_FEATURES, OF_TOP
from analysis.signals import SIGNALS
from traces.autoencoder import Autoencoder, load_autoencoder, save_autoencoder

SITE, WIDTH = "vlm.1.resid_post", 8
FOLDER = Path("sae") / SITE / "seed0"
OF_FEATURE_SIGNALS = {("feature" if k == "neuron" else k): v for k, v in OF_SIGNALS.items()}
SILENT = 3
FEATURES = (  # label, active episodes of 6, onsets, mean peak
    ("general", 6, 1.5, 0.42),
    ("memorised", 6, None, 0.05),
    ("general", 5, 2.0, 0.31),
    ("silent", 0, None, 0.0),
    ("memorised", 2, 1.0, 0.18),
    ("memorised", 3, None, 0.07),
)
FOLLOWED = {  # (feature, signal) to r, its corrected p
    (0, "speed"): (0.61, 0.002),
    (0, "closing"): (0.30, 0.04),
    (0, "phase contact"): (-0.80, 0.70),  # other episodes explain it
    (0, "time"): (0.90, 0.00001),  # a clock
    (1, "moves z"): (-0.44, 0.00002),
    (2, "speed"): (-0.35, 0.03),
    (4, "phase contact"): (0.52, 0.2),
    (5, "speed"): (0.99, None),  # of too few episodes
}


def write_autoencoder(folder=FOLDER, policy_sha256="", kind="resid_post", width=WIDTH):
    """Write weights that mean nothing, always the same."""
    rng = np.random.default_rng(7)
    features = len(FEATURES)
    weights = rng.normal(size=(features, width)).astype(np.float32)
    site = f"vlm.1.{kind}"
    facts = {"site": site, "tower": "vlm", "layer": 1, "kind": kind, "tokens": "mean over valid"}
    sae = Autoencoder(
        W_enc=weights.T.copy(),
        b_enc=np.zeros(features, np.float32),
        W_dec=weights,
        b_dec=np.zeros(width, np.float32),
        k=2,
        metadata=facts | {"rows": "mean", "policy_sha256": policy_sha256},
    )
    save_autoencoder(folder, sae)
    return folder


def describe(folder=FOLDER, top=(), features=FEATURES, signal_names=tuple(SIGNALS)):
    """Write what was found of each feature; `top` holds rows of `OF_TOP`."""
    place = {"site": SITE, "layer": 1}
    coverage = [
        place
        | {"feature": i, "label": label, "logit": 1.0, "episodes": 6, "active_episodes": active}
        | {"coverage": active / 6, "onset_count": onsets, "run_length": onsets and 4.0}
        | {"mean_active": peak / 2, "mean_peak": peak, "peak_length": 9 * peak}
        | {"effective_episodes": float(active), "active_tasks": 1, "effective_tasks": 1.0}
        | {"mean_active_fraction": peak / 3}
        for i, (label, active, onsets, peak) in enumerate(features)
    ]
    signals = []
    for i in range(len(features)):
        for name, known in zip(signal_names, SIGNALS, strict=True):
            r, p = FOLLOWED.get((i, known), (0.02 * (i + 1), 0.9) if i != SILENT else (None, None))
            sure = {"low": r - 0.1, "high": r + 0.1} if p is not None else {}
            other = {"r_other": r / 2, "n_other": 6} if r is not None and known != "time" else {}
            n = features[i][1] if r is not None else 0
            row = place | {"feature": i, "signal": name, "n": n, "r": r, "p_follows_bh": p}
            signals.append(row | sure | other)
    tables = {
        "coverage": pl.DataFrame(coverage, OF_FEATURES),
        "signals": pl.DataFrame(signals, OF_FEATURE_SIGNALS),
        "top": pl.DataFrame(list(top), OF_TOP),
    }
    for name, table in tables.items():
        table.write_parquet(folder / f"features_{name}.parquet")
    facts = {"policy": "smolvla-tabletop@5f3a5f3a", "site": SITE, "episodes": 6, "decisions": 420}
    facts["sae_sha256"] = load_autoencoder(folder).sha256
    (folder / "features.json").write_text(json.dumps(facts))
    return folder


def peaks(feature, uids, task="lift"):
    """Rows of `OF_TOP`: a feature peaks in some episodes, in the first one highest."""
    return [
        {"feature": feature, "rank": rank, "uid": uid, "task": task, "success": rank % 2 == 0}
        | {"peak": 0.5 - 0.05 * rank, "step": 12 + 5 * rank}
        for rank, uid in enumerate(uids)
    ]

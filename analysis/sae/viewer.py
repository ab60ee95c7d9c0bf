"""Features as DrVLA's viewer reads them: one table, and one file an episode and feature.

    features.json          a list: id, classification, episode_coverage, mean_onset_count, ...
    traces/FEATURE_UID.json    {episode_id, feature_id, length, values[T], sampled_frames[10]}
    frames/UID_STEP.png    what the policy saw there, where the recording kept frames

Names of the columns are those of its published metadata (github.com/drvla/drvla.github.io, commit
d672e86), `memorized` included. `sampled_frames` are names of files; without frames it is empty, and
`sampled_steps` says which control steps they would be of.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from analysis.natural import Chosen, by_episode, natural_episodes
from analysis.sae.feature_rows import FeatureRows
from analysis.sae.features import Features
from analysis.sae.rows import named_site
from traces.collection import TraceCollection, open_traces

SAMPLED = 10
PUBLISHED = {
    "feature": "id",
    "label": "classification",
    "coverage": "episode_coverage",
    "onset_count": "mean_onset_count",
    "mean_active": "mean_nonzero_activation",
    "relative_run_length": "mean_relative_run_length",
    "run_length": "mean_run_length",
    "mean_active_fraction": "mean_active_fraction",
    "active_episodes": "num_active_episodes",
    "episodes": "total_episodes",
}
"""Our column to theirs."""


def write_viewer(folder: Path, found: Features, paths: Iterable[Path | str], top: int = 5) -> int:
    """Write everything into a folder; returns the number of files.

    Args:
        folder: made if absent.
        found: what `features` found in the traces.
        paths: the traces.
        top: episodes of each feature.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = found.coverage.select(*PUBLISHED).rename(PUBLISHED).to_dicts()
    for row in table:
        general = row["classification"] == "general"  # never active counts as memorised there
        row["classification"] = "general" if general else "memorized"
    _write(folder / "features.json", table)
    wanted: dict[str, list[int]] = {}
    for feature, rank, uid in found.top.select("feature", "rank", "uid").iter_rows():
        if rank < top:
            wanted.setdefault(uid, []).append(feature)
    paths = list(paths)
    frame, _ = natural_episodes(paths)
    written = 1
    with open_traces(*paths) as traces:
        chosen = Chosen.of(traces, frame)
        rows = FeatureRows(traces.activation(named_site(traces, found.sae.site).name), found.sae)
        columns = traces.episodes("uid", "first_decision")
        row_of = {int(first): row for row, first in enumerate(columns["first_decision"])}
        t = traces.decisions("t")["t"]
        for episode, decisions, z in by_episode(rows, chosen.decisions):
            row = row_of[int(chosen.decisions.first[episode])]
            uid = str(columns["uid"][row])
            if uid not in wanted:
                continue
            chosen_rows = np.linspace(0, len(decisions) - 1, min(SAMPLED, len(decisions)))
            steps = t[decisions][chosen_rows.round().astype(int)]
            frames = _frames(traces, row, columns, steps, folder / "frames", _plain(uid))
            for feature in wanted[uid]:
                content = {
                    "episode_id": uid,
                    "feature_id": feature,
                    "length": len(decisions),
                    "values": [round(float(v), 5) for v in np.nan_to_num(z[:, feature])],
                    "sampled_frames": frames,
                    "sampled_steps": steps.tolist(),
                }
                _write(folder / "traces" / f"{feature}_{_plain(uid)}.json", content)
                written += 1
            written += len(frames)
    return written


def _frames(
    traces: TraceCollection, row: int, columns: dict, steps: np.ndarray, folder: Path, name: str
) -> list[str]:
    """Write the first camera's pictures at some control steps; their names, none without frames."""
    number = row - int(np.searchsorted(columns["file"], columns["file"][row]))
    with traces.reading(int(columns["file"][row])) as reader:
        if not reader.cameras():
            return []
        camera = reader.cameras()[0]
        start, _ = reader.step_span(number)
        kept = reader.frame_steps(camera, episode=number) - start
        found = []
        for step in steps.tolist():
            if step in kept:
                path = folder / f"{name}_{step}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(reader.frame(camera, start + step))
                found.append(f"{folder.name}/{path.name}")
        return found


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _plain(uid: str) -> str:
    """A uid as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", uid, flags=re.ASCII)

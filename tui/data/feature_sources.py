"""Which autoencoders are below a folder, and which of them were described."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from traces.autoencoder import CONFIG
from tui.data.draft import ROOTS, home_of
from tui.terminal import one_line

COVERAGE = "features_coverage.parquet"
SIGNALS = "features_signals.parquet"
TOP = "features_top.parquet"
FACTS = "features.json"
"""Written last of the four."""
AUTOENCODERS = "sae"
"""Folder that `vla-trace sae train` makes where it is started."""
DEPTH = 4
"""Folders below that are searched."""


@dataclass(frozen=True)
class FeatureSource:
    """One autoencoder."""

    folder: Path
    policy_sha256: str
    """Of the policy that it was trained on; "" where unknown."""
    stamp: int | None
    """Changes when its features are described again; None: they never were."""

    @property
    def name(self) -> str:
        """The end of its path, for people: its site and its seed."""
        return one_line("/".join(self.folder.parts[-2:]))


def feature_sources(folder: Path) -> tuple[FeatureSource, ...]:
    """Return the autoencoders of a folder that is watched, by their paths.

    They are looked for in sae/ beside its runs/ and traces/, and in folders without these anywhere.
    """
    has_roots = any((folder / name).is_dir() for name in ROOTS)
    roots = [home_of(folder) / AUTOENCODERS, *([] if has_roots else [folder])]
    found = {path.resolve(): path for root in roots[::-1] for path in _walk(root, DEPTH)}
    return tuple(_source(path) for path in sorted(found.values()))


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the folders of autoencoders; links to folders are not followed."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    if any(entry.name == CONFIG for entry in entries):
        yield folder
    for entry in entries:
        if depth and not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), depth - 1)


def _source(folder: Path) -> FeatureSource:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        sha256 = str(config["metadata"]["vla_trace"]["policy_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        sha256 = ""
    try:
        stamp = (folder / FACTS).stat().st_mtime_ns if (folder / COVERAGE).exists() else None
    except OSError:
        stamp = None
    return FeatureSource(folder, sha256, stamp)

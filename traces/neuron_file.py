"""Where neuron tables are kept: one Parquet file per weights and variant, in the user's cache.

`vla-trace neurons` writes them (`engine.neuron_cache`); the screens read them, without torch.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

FORMAT = 2
"""Version of the columns; a file of another one counts as absent."""
FACTS = "vla-trace.neurons"
"""Key of the file's metadata under which JSON says what the table was made from."""


def neuron_file(sha256: str, token_norm: str = "l2", fold_norm: bool = False) -> Path:
    """Return the path of a table, which need not exist."""
    raw = "-raw" if token_norm == "none" else ""
    folded = "-folded" if fold_norm else ""
    return _home() / f"neurons-{sha256}{raw}{folded}.parquet"


def neuron_files() -> dict[str, Path]:
    """Return the usual variant of every table there is, by the SHA-256 of its weights."""
    found = {}
    for path in sorted(_home().glob("neurons-*.parquet")):
        if match := re.fullmatch(r"neurons-([0-9a-f]{64})\.parquet", path.name):
            found[match[1]] = path
    return found


def _home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vla-trace"

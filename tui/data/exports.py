"""Files that the key `x` writes: the same records as CSV and as JSON, never over another file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

from traces.errors import UnwritableFolder
from tui.data.records import Record, columns_of
from tui.terminal import one_line, to_json

FOLDER = "exports"


def write_records(home: Path, stem: str, records: Sequence[Record]) -> tuple[Path, Path]:
    """Write records under a new name into exports/; numbers that do not exist are left empty.

    Args:
        home: folder beside whose runs/ and traces/ the files go.
        stem: their name, without a suffix.
        records: one a row.

    Returns:
        The CSV file and the JSON file.

    Raises:
        UnwritableFolder: there is no room or no permission.
    """
    folder = home / FOLDER
    clean = [{name: _clean(value) for name, value in record.items()} for record in records]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns_of(clean), lineterminator="\n")
    writer.writeheader()
    writer.writerows(clean)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        table, objects = _unused(folder, stem)
        with table.open("x", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())
        with objects.open("x", encoding="utf-8") as file:
            file.write(f"{to_json(clean)}\n")
    except OSError as error:
        raise UnwritableFolder(folder, error.strerror or str(error)) from None
    return table, objects


def _unused(folder: Path, stem: str) -> tuple[Path, Path]:
    """Return the paths of stem, or the first of stem-2, stem-3, ... of which neither exists."""
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    pairs = ((folder / f"{name}.csv", folder / f"{name}.json") for name in names)
    return next(pair for pair in pairs if not any(path.exists() for path in pair))


def _clean(value: object) -> object:
    """Return a value as JSON has it: no NaN, and text whose control characters are escaped."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int | None) else one_line(value)

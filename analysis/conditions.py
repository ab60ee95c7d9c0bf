"""Which episodes of a frame count, how conditions are told apart, and what notes call them."""

from collections.abc import Iterator, Sequence

import polars as pl


def by_key(frame: pl.DataFrame, keys: Sequence[str]) -> Iterator[tuple[tuple, pl.DataFrame]]:
    """Yield (key, rows) in the order of first appearance."""
    if frame.is_empty():
        return
    yield from frame.partition_by(keys, maintain_order=True, as_dict=True).items()


def without_errors(frame: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """Leave out episodes that the machine, not the policy, ended."""
    broken = frame.filter(pl.col("error") != "")
    if len(broken):
        reason = broken.get_column("error")[0]
        notes.append(f"{count_of(len(broken))} cut short by an error left out, such as: {reason}")
    return frame.filter(pl.col("error") == "")


def name_of(row: dict) -> str:
    """Name a condition in a note, from one of its rows."""
    return f"{row['label']} in {place_of(row)}"


def place_of(row: dict) -> str:
    """Name its task."""
    return f"{row['suite']} task {row['task_id']}"


def count_of(number: int, what: str = "episode") -> str:
    """Write `1 episode`, `2 episodes`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

"""Save what is whole of an unfinished or damaged trace in a new one; the original stays as it is.

What damage costs is decided in `traces.losses`, and said.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from traces.catalog import PARTIAL_SUFFIX, SUFFIX, unused_path
from traces.check import Examined, check, examine
from traces.copying import Source, copy_tables, new_trace
from traces.errors import BadRecord, FileExists, NotATrace, TextTooLong
from traces.losses import INDEXED, Losses, losses, readable_contents, told
from traces.safety import FAILURES, SafeGroup, opened
from traces.schema import TABLES


@dataclass(frozen=True)
class Repaired:
    """What became of a trace."""

    path: Path
    """The new file."""
    episodes: int
    """Episodes in it."""
    complete: int
    """Episodes that were complete in the original."""
    lost: tuple[str, ...]
    """One sentence for each thing that is not in the new file, or not known in it."""


def repair(path: Path | str, out: Path | str | None = None) -> Repaired:
    """Write a valid trace of every complete episode that can be read.

    Args:
        path: a `.partial`, or a closed trace that is damaged; it is only read.
        out: the new file; None: beside the old one, under a name that is free.

    Raises:
        NotATrace: nothing can be saved from it.
        FileExists: `out` is there already.
    """
    path = Path(path)
    file, partial = _opened(path)
    try:
        out = Path(out) if out is not None else repaired_path(path)
        if out.exists():
            raise FileExists(out)
        return _saved(path, file, partial, out)
    except NotATrace:
        raise
    except FAILURES as error:
        raise NotATrace(path, f"nothing can be saved from it ({error})") from error
    finally:
        file.close()


def repaired_path(path: Path) -> Path:
    """Return NAME.h5 for NAME.h5.partial, NAME-2.h5 for NAME.h5, or the next name that is free."""
    stem = path.name.removesuffix(PARTIAL_SUFFIX).removesuffix(SUFFIX)
    wanted = path.with_name(stem + SUFFIX)
    if path.name.endswith(PARTIAL_SUFFIX) and not wanted.exists():
        return wanted
    return unused_path(path.parent, stem, SUFFIX)


def _opened(path: Path) -> tuple[SafeGroup, bool]:
    """Open a file as far as HDF5 lets us; say whether it is unfinished."""
    if path.suffix == ".partial":
        return opened(path, swmr=True), True
    try:
        return opened(path, swmr=False), False
    except NotATrace as refused:
        try:  # cut off, or never closed: a reader of growing files minds neither
            return opened(path, swmr=True), "never closed" in refused.why
        except NotATrace:
            raise refused from None


def _saved(path: Path, file: SafeGroup, partial: bool, out: Path) -> Repaired:
    found = examine(path, file, partial=partial)
    _refuse_holes(path, found)
    contents, costs = readable_contents(file, found), losses(found)
    unread = _unusable(found)
    source = Source(file, found.header, found.spans, contents, costs.unknown, costs.rows, unread)
    with new_trace(out, found.header, contents) as writer:
        copy_tables(source, writer)
        invented = _missing_policies(source, found, costs)
        for version in invented:
            writer.write_policy(version, -1)
        for row in np.flatnonzero(~costs.episodes).tolist():
            try:
                writer.write_episode(source.record(row, contents))
            except (TextTooLong, BadRecord, *FAILURES) as error:
                costs.episode(row, f"cannot be copied ({error})")
        _refuse_nothing(path, costs)
        _refuse_errors(path, writer.close())
    said = [f"policy version {v}: its weights are not known" for v in invented]
    said += [f"{place} is not known: the column cannot be used" for place in sorted(unread)]
    kept = int(np.count_nonzero(~costs.episodes))
    return Repaired(out, kept, len(found.spans), (*told(path, found, contents, costs), *said))


def _refuse_holes(path: Path, found: Examined) -> None:
    """Refuse a file that lacks a column without which no episode is whole."""
    for table in INDEXED:
        for field in TABLES[table]:
            place = f"{table}/{field.name}"
            needed = field.fill is None and not field.derived and not field.optional
            if needed and place not in found.structure.columns:
                said = [f.what for f in found.findings if f.place in (place, table)]
                why = f"{place}: {said[0] if said else 'the column is missing'}"
                raise NotATrace(path, f"nothing can be saved from it: {why}")


def _unusable(found: Examined) -> frozenset[str]:
    """Return the columns of episodes/, steps/ and decisions/ that become unknown as a whole."""
    return frozenset(
        f"{table}/{field.name}"
        for table in INDEXED
        for field in TABLES[table]
        if field.fill is not None and f"{table}/{field.name}" not in found.structure.columns
    )


def _refuse_nothing(path: Path, costs: Losses) -> None:
    """Refuse to make an empty trace of one that had episodes."""
    if len(costs.episodes) and costs.episodes.all():
        why, _ = Counter(costs.why.values()).most_common(1)[0]
        raise NotATrace(path, f"none of its {len(costs.episodes)} episodes can be saved: {why}")


def _refuse_errors(path: Path, copy: Path) -> None:
    """Refuse to give a copy its name that does not pass the check itself."""
    wrong = [finding for finding in check(copy) if finding.level == "error"]
    if wrong:
        why = f"{wrong[0].place}: {wrong[0].what}"
        raise NotATrace(path, f"what can be read of it makes no valid trace: {why}")


def _missing_policies(source: Source, found: Examined, costs: Losses) -> list[int]:
    """Return the policy versions that episodes refer to and policies/ lost."""
    column = found.structure.columns["episodes/policy_version"].dataset
    kept = np.flatnonzero(~costs.episodes)
    needed = {int(column[row]) for row in kept}
    known = source.side_table("policies").get("policy_version", ())
    return sorted(needed - {int(version) for version in known})

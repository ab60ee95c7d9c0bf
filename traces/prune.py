"""A smaller copy of a trace: without some of what was recorded, or with some episodes only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from traces.copying import Contents, copy_episode, copy_tables, new_trace, open_source
from traces.errors import UnknownName


@dataclass(frozen=True)
class Pruned:
    """What became of a trace."""

    path: Path
    bytes_before: int
    bytes_after: int
    episodes: int
    dropped: tuple[str, ...]
    """Parts and sites that the copy lacks."""


def prune(
    path: Path, out: Path, drop: Sequence[str] = (), episodes: Sequence[int] | None = None
) -> Pruned:
    """Write a copy that lacks something.

    Args:
        path: a trace; it is only read.
        out: the new file.
        drop: activations, chain, frames, objects, sim_state, or names of sites, which may be
            patterns such as "vlm.*"; the trace must have each.
        episodes: rows of episodes/ to keep, ascending; None: all.

    Raises:
        UnknownName: a name to drop that the trace does not have, or an episode.
        FileExists: `out` is there already.
    """
    with open_source(path) as source:
        count = len(source.spans)
        chosen = range(count) if episodes is None else episodes
        if beyond := [row for row in chosen if not 0 <= row < count]:
            raise UnknownName("episode", str(beyond[0]), [f"0 to {count - 1}"] if count else [])
        contents = source.contents
        for name in drop:
            contents = _without(contents, name)
        with new_trace(out, source.header, contents) as writer:
            copy_tables(source, writer)
            for row in chosen:
                copy_episode(source, row, contents, writer)
        dropped = tuple(_names(source.contents) - _names(contents))
    before, after = path.stat().st_size, out.stat().st_size
    return Pruned(out, before, after, len(chosen), tuple(sorted(dropped)))


def _without(contents: Contents, name: str) -> Contents:
    """Return what is left when one part or some sites are dropped."""
    empty = {
        "activations": replace(contents, sites=()),
        "chain": replace(contents, chain=False),
        "frames": replace(contents, cameras=()),
        "objects": replace(contents, object_names=()),
        "sim_state": replace(contents, sim_state=False),
    }
    left = tuple(site for site in contents.sites if not fnmatchcase(site.name, name))
    smaller = empty.get(name) or replace(contents, sites=left)
    if smaller == contents:
        there = {part for part, without in empty.items() if without != contents}
        raise UnknownName("part", name, there | {site.name for site in contents.sites})
    return smaller


def _names(contents: Contents) -> set[str]:
    parts = {"chain": contents.chain, "objects": contents.object_names, "frames": contents.cameras}
    parts["sim_state"] = contents.sim_state
    return {name for name, there in parts.items() if there} | {s.name for s in contents.sites}

"""A limit on what one look into a file may take: HDF5 believes the sizes that it reads there."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ROOM_BYTES = 256 * 2**20
"""Memory that reading one attribute or name may take."""


@contextmanager
def limited_growth() -> Iterator[None]:
    """Let the process grow by ROOM_BYTES only: HDF5 loads texts and names before it tells a size.

    The limit is the whole process's, so one thread at a time is in such a block; within it another
    one changes nothing.
    """
    with _one_thread:
        before = resource.getrlimit(resource.RLIMIT_AS)
        if _within or (pages := _pages()) is None:
            yield
            return
        here = pages * resource.getpagesize() + ROOM_BYTES
        if before[0] != resource.RLIM_INFINITY:
            here = min(here, before[0])
        resource.setrlimit(resource.RLIMIT_AS, (here, before[1]))
        _within.append(here)
        try:
            yield
        except MemoryError as error:
            raise OSError("a text or a name does not fit into memory") from error
        finally:
            _within.clear()
            resource.setrlimit(resource.RLIMIT_AS, before)


_one_thread = threading.RLock()
_within: list[int] = []
"""The limit in force, if there is one."""


def _pages() -> int | None:
    """Return the size of this process, in pages; None where the system does not tell."""
    try:
        statm = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:  # not Linux
        return None
    try:
        return int(os.read(statm, 64).split()[0])
    finally:
        os.close(statm)

"""Fields of events, which may hold anything."""

import math


def number(value: object) -> float | None:
    """Return a finite number as float, and None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def whole(value: object, default: int = -1) -> int:
    """Return a number that a column of a trace could hold, and the default for anything else."""
    found = number(value)
    return default if found is None or abs(found) >= 2**63 else int(found)

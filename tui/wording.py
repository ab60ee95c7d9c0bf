"""How the screens word numbers, times and states: short, never cut, never raw."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from tui.terminal import one_line

STATES = {
    "running": ("●", "good"),
    "finished": ("○", ""),
    "failed": ("✗", "bad"),
    "crashed?": ("✗", "bad"),
    "silent": ("?", "warn"),
    "closed": ("○", "dim"),
    "unfinished": ("?", "warn"),
    "broken": ("✗", "bad"),
}
"""State -> glyph and style; the word itself is always shown beside the glyph."""

DESIGNS = {
    "replay": "the same inputs and noise, row by row",
    "on-policy": "each policy's own rollouts: states differ, too",
}
"""What kinds of comparison of activations there are (see `analysis.shifts`)."""

UNKNOWN = "–"
LONG_AGO_S = 1e10
"""Ages beyond this (300 years) are broken clocks."""


def state_mark(state: str) -> tuple[str, str]:
    """Return "● running" and the name of its style."""
    glyph, style = STATES.get(state, ("?", "warn"))
    return f"{glyph} {one_line(state)}", style


def condition_label(name: object, alpha: float | None) -> str:
    """Return "baseline", or name and dose such as "fast α=8"; a name may bring its dose along."""
    text = one_line(name or "")
    if alpha is None:
        return text or "baseline"
    if "α" in text:
        return text
    return f"{text or 'steered'} α={alpha:g}"


def joined_conditions(labels: Iterable[str]) -> str:
    """Return "fast α=2,8 + baseline": doses of one intervention share its name."""
    doses: dict[str, list[str]] = {}
    for label in labels:
        name, _, dose = label.partition(" α=")
        doses.setdefault(name, []).append(dose)
    steered = [
        f"{name} α={','.join(known)}" if (known := [dose for dose in values if dose]) else name
        for name, values in doses.items()
        if name != "baseline"
    ]
    return " + ".join([*steered, *(["baseline"] if "baseline" in doses else [])])


def short_id(run_id: str) -> str:
    """Return "11-20 09:44 1f9c" for "20261120-094447-record-1f9c", anything else as it is."""
    parts = run_id.split("-")
    if len(parts) == 4 and len(parts[0]) == 8 and len(parts[1]) == 6:
        day, clock = parts[0], parts[1]
        if day.isdigit() and clock.isdigit():
            return f"{day[4:6]}-{day[6:]} {clock[:2]}:{clock[2:4]} {one_line(parts[3])}"
    return one_line(run_id)


def share(value: float) -> str:
    """Return a proportion as ".35", "1.00"."""
    return f"{value:.2f}".removeprefix("0")


def interval(low_high: tuple[float, float] | None, shown=share) -> str:
    """Return "[.18, .57]", or nothing when there is no interval."""
    return f"[{shown(low_high[0])}, {shown(low_high[1])}]" if low_high else ""


def number(value: float | None, digits: int = 2, sign: str = "") -> str:
    """Return a number of fixed digits; an en dash where there is none."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:{sign}.{digits}f}" if abs(value) < 1e5 else f"{value:{sign}.1e}"


def p_value(p: float | None) -> str:
    """Return "p .012", "p < .0001", or nothing."""
    if p is None:
        return ""
    return "p < .0001" if p < 0.0001 else f"p {f'{p:.4f}'.removeprefix('0')}"


def size(n_bytes: int) -> str:
    """Bytes for people, in powers of 1000."""
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if n_bytes >= 1000**power:
            return f"{n_bytes / 1000**power:.1f} {unit}"
    return f"{n_bytes} B"


def age(seconds: float) -> str:
    """Return a duration in its largest unit: 4s, 11m, 5h, 2d."""
    if not seconds < LONG_AGO_S:
        return UNKNOWN
    seconds = max(0.0, seconds)
    for length, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def whole_minutes(seconds: float) -> str:
    """Return an age for a screen, where it need not move more than once a minute: <1m, 11m, 5h."""
    return "<1m" if seconds < 60 else age(seconds)


def duration(seconds: float | None) -> str:
    """Return a length of time: 0:07, 5:42, 3h05, 3d18h; an en dash where it is unknown."""
    if seconds is None or not 0 <= seconds < LONG_AGO_S:
        return UNKNOWN
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    return f"{hours}h{minutes:02}" if hours else f"{minutes}:{rest:02}"


def clock(seconds: float) -> str:
    """Return the time of day of a moment, UTC; an en dash for the impossible."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%H:%M}"
    except (ValueError, OverflowError, OSError):
        return UNKNOWN


def compact(value: float) -> str:
    """Return a number in at most seven characters; an en dash where there is none."""
    if not math.isfinite(value):
        return UNKNOWN if math.isnan(value) else ("inf" if value > 0 else "-inf")
    size = abs(value)
    if value == 0:
        return "0"
    if 1e-3 <= size < 1e5:
        digits = max(0, 3 - max(0, math.floor(math.log10(size))) - (size >= 1))
        text = f"{value:.{digits}f}"
        return text.replace("0.", ".", 1) if size < 1 else text
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def date(seconds: float) -> str:
    """Return a moment as UTC, to the minute; an en dash for the impossible."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return UNKNOWN


def outcome(success: bool, error: str) -> tuple[str, str]:
    """Return glyph with word, and style, of how an episode ended."""
    if error:
        return "! error", "warn"
    return ("✓ yes", "good") if success else ("✗ no", "bad")


def count(value: int) -> str:
    """Return a number of which negative means unknown."""
    return str(value) if value >= 0 else UNKNOWN

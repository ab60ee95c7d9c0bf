"""How smooth a movement is, from its speed profile: spectral arc length and dimensionless jerk.

Balasubramanian, Melendez-Calderon, Roby-Brami and Burdet, "On the analysis of movement smoothness",
J. NeuroEng. Rehabil. 12 (2015) 112. Both numbers have no unit, do not change with how far or how
long a movement is, and are the larger (closer to 0, or to +inf) the smoother it is.
"""

import numpy as np

from analysis.spans import Spans

CUT_HZ = 10.0
"""Highest frequency of the arc; at most half the control rate."""
THRESHOLD = 0.05
"""The arc ends at the last frequency whose amplitude is this share of the largest."""
PADDING = 4
"""Spectra are those of a profile padded with zeros to 2^PADDING times its length or more."""

STILL = 1e-9
"""Changes of speed of this share of the peak are the rounding of positions, and no jerk."""

TINY = 1e-100
"""Peaks beyond this, or its inverse, are of broken poses; their squares would leave the numbers."""

_BLOCK = 1 << 15  # complex numbers of spectra held at once


def spectral_arc_length(speed: np.ndarray, spans: Spans, hz: float) -> np.ndarray:
    """SPARC of each episode, (E,), NaN without movement or with a broken pose.

        SPARC = - sum over j of sqrt( (1/J)^2 + (V[j+1] - V[j])^2 ),   j = 0 .. J-1

    V is the amplitude spectrum of the speed profile, padded with zeros, relative to its largest
    value; J is the last frequency, up to `CUT_HZ`, with V >= `THRESHOLD` (eq. 8 to 10).

    Args:
        speed: (T,) speed or distance moved in each control step, any unit.
        spans: the steps of each episode.
        hz: control steps a second.
    """
    found = np.full(len(spans.n), np.nan)
    peak = spans.reduce(np.maximum, speed, 0.0)
    known = np.isfinite(spans.sum(speed)) & (peak > TINY) & (peak < 1 / TINY)
    size = 2 ** (np.ceil(np.log2(np.maximum(spans.n, 1))).astype(int) + PADDING)
    for points in np.unique(size[known]):
        same = np.flatnonzero(known & (size == points))
        rows = max(1, _BLOCK // int(points))
        for start in range(0, len(same), rows):
            some = same[start : start + rows]
            found[some] = _arc_lengths(speed, spans.first[some], spans.n[some], int(points), hz)
    return found


def _arc_lengths(
    speed: np.ndarray, first: np.ndarray, n: np.ndarray, points: int, hz: float
) -> np.ndarray:
    """SPARC of some episodes whose padded profiles have the same number of points."""
    column = np.arange(int(n.max()))
    place = np.minimum(first[:, None] + column, len(speed) - 1)
    profile = np.where(column < n[:, None], speed[place], 0.0)  # (E', N)
    top = int(min(CUT_HZ, hz / 2) * points / hz) + 1
    spectrum = np.fft.rfft(profile, points)[:, :top]
    amplitude = spectrum.real**2
    amplitude += spectrum.imag**2
    np.sqrt(amplitude, out=amplitude)  # (E', F)
    amplitude /= amplitude[:, :1]  # speeds are not negative, so the mean has the largest share
    above = amplitude >= THRESHOLD
    last = np.maximum(top - 1 - np.argmax(above[:, ::-1], axis=1), 1)  # (E',)
    rise = np.diff(amplitude, axis=1)
    rise *= rise
    rise += (1.0 / last**2)[:, None]
    np.sqrt(rise, out=rise)
    rise *= np.arange(top - 1) < last[:, None]
    return -rise.sum(axis=1)


def log_dimensionless_jerk(speed: np.ndarray, spans: Spans) -> np.ndarray:
    """LDLJ of each episode, (E,), NaN with fewer than three steps or without jerk.

        LDLJ = - ln( T^3 / v_peak^2  *  integral of (d^2 v / dt^2)^2 dt )

    with second differences for the derivative (eq. 4 of the paper cited above). The step's duration
    cancels, as does the unit of speed: with n steps and D = v[t+2] - 2 v[t+1] + v[t] it is
    -ln(n^3 sum(D^2) / v_peak^2).
    """
    bend = np.zeros(len(speed))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        bend[:-2] = (speed[2:] - 2 * speed[1:-1] + speed[:-2]) ** 2
        whole = Spans(spans.first, np.maximum(spans.n - 2, 0))
        peak = spans.reduce(np.maximum, speed, 0.0)
        jerk = spans.n.astype(float) ** 3 * whole.sum(bend) / peak**2
        rounding = (spans.n**2 * STILL) ** 2
        return np.where(np.isfinite(jerk) & (jerk > rounding), -np.log(jerk), np.nan)

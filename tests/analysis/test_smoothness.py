"""SPARC and log dimensionless jerk against their authors' reference code, transcribed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.smoothness import log_dimensionless_jerk, spectral_arc_length
from analysis.spans import Spans


def reference_sparc(movement, fs, padlevel=4, fc=10.0, amp_th=0.05):
    """github.com/siva82kb/SPARC, smoothness.py; fc at most half of fs."""
    nfft = int(pow(2, np.ceil(np.log2(len(movement))) + padlevel))
    f = np.arange(0, fs, fs / nfft)
    spectrum = abs(np.fft.fft(movement, nfft))
    spectrum = spectrum / max(spectrum)
    chosen = (f <= min(fc, fs / 2)).nonzero()
    f, spectrum = f[chosen], spectrum[chosen]
    above = (spectrum >= amp_th).nonzero()[0]
    within = range(above[0], above[-1] + 1)
    f, spectrum = f[within], spectrum[within]
    return -sum(np.sqrt((np.diff(f) / (f[-1] - f[0])) ** 2 + np.diff(spectrum) ** 2))


def reference_ldlj(movement, fs):
    """The same file, log_dimensionless_jerk of a speed profile."""
    peak, dt = max(abs(movement)), 1.0 / fs
    duration = len(movement) * dt
    jerk = np.diff(movement, 2) / dt**2
    return -np.log(duration**3 / peak**2 * sum(jerk**2) * dt)


def bell(n):
    return np.exp(-(((np.arange(n) - n / 2) / (n / 8)) ** 2))


def one(values):
    return Spans(np.array([0]), np.array([len(values)]))


@given(st.lists(st.integers(3, 70), min_size=1, max_size=6), st.sampled_from([10.0, 20.0, 50.0]))
def test_many_episodes_at_once_are_the_reference(n, hz):
    rng = np.random.default_rng(sum(n))
    profiles = [np.abs(rng.normal(1, 0.4, size)) for size in n]
    spans = Spans(np.cumsum(n) - n, np.array(n))
    flat = np.concatenate(profiles)
    assert spectral_arc_length(flat, spans, hz) == pytest.approx(
        [reference_sparc(profile, hz) for profile in profiles]
    )
    assert log_dimensionless_jerk(flat, spans) == pytest.approx(
        [reference_ldlj(profile, hz) for profile in profiles]
    )


def sparc(profile):
    return spectral_arc_length(profile, one(profile), 20.0)[0]


@pytest.mark.parametrize("measure", [sparc, lambda profile: ldlj(profile)])
def test_a_bell_is_smoother_than_two_or_one_that_trembles(measure):
    smooth, twice = bell(64), np.tile(bell(32), 2)
    trembling = smooth * (1 + 0.3 * (-1) ** np.arange(64))
    assert measure(smooth) > measure(twice)
    assert measure(smooth) > measure(trembling)
    assert measure(7.5 * trembling) == pytest.approx(measure(trembling))  # no unit


def ldlj(profile):
    return log_dimensionless_jerk(profile, one(profile))[0]


def test_what_cannot_be_known_is_nan_and_spoils_no_other():
    spans = Spans(np.array([0, 0, 4, 8, 10]), np.array([0, 4, 4, 2, 8]))
    flat = np.concatenate([np.zeros(4), [1.0, np.nan, 1, 1], [1.0, 3.0], bell(8)])
    sparc = spectral_arc_length(flat, spans, 20.0)
    # No step, no movement, a broken pose; two steps are enough for a spectrum.
    assert np.isnan(sparc).tolist() == [True, True, True, False, False]
    jerk = log_dimensionless_jerk(flat, spans)
    assert np.isnan(jerk).tolist() == [True, True, True, True, False]
    assert jerk[4] == pytest.approx(reference_ldlj(bell(8), 20.0))


def test_no_steps_at_all():
    nothing = Spans(np.zeros(0, int), np.zeros(0, int))
    assert spectral_arc_length(np.zeros(0), nothing, 20.0).shape == (0,)
    assert log_dimensionless_jerk(np.zeros(0), nothing).shape == (0,)


def test_the_rounding_of_an_even_movement_is_no_jerk():
    path_m = np.cumsum(np.full(50, 0.0123)) + 0.3
    assert np.isnan(ldlj(100 * np.diff(path_m)))

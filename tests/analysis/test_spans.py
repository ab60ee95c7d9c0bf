"""Sums over spans against a loop over episodes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.spans import Spans

lengths = st.lists(st.integers(0, 6), max_size=8)


def cut(n, gap):
    n = np.array(n, int)
    return Spans(np.cumsum(n + gap) - n, n), int((n + gap).sum())


@given(lengths, st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_every_reduction_is_the_loop(n, gap, seed):
    spans, total = cut(n, gap)
    values = np.random.default_rng(seed).normal(size=total)
    marked = values > 0
    own = spans.split(values)
    assert spans.sum(values) == pytest.approx([one.sum() for one in own])
    assert spans.sum(marked).tolist() == [(one > 0).sum() for one in own]
    known = [one[one > 0].mean() if (one > 0).any() else np.nan for one in own]
    assert spans.mean(values, where=marked) == pytest.approx(known, nan_ok=True)
    assert spans.reduce(np.maximum, values, -9.0) == pytest.approx(
        [one.max(initial=-9.0) for one in own]
    )
    assert spans.head(2).sum(values) == pytest.approx([one[:2].sum() for one in own])
    assert values[spans.rows].tolist() == np.concatenate([*own, []]).tolist()
    assert values[spans.last].tolist() == [one[-1] for one in own if len(one)]
    numbers = np.arange(len(own))
    assert spans.each(numbers).tolist() == np.repeat(numbers, [len(one) for one in own]).tolist()


def test_one_broken_value_spoils_one_episode():
    spans = Spans(np.array([0, 2, 4]), np.array([2, 2, 2]))
    assert spans.sum(np.array([1.0, 2, np.nan, 4, 5, np.inf]))[0] == 3
    assert np.isfinite(spans.mean(np.array([1.0, 2, np.nan, 4, 5, 6]))).tolist() == [
        True,
        False,
        True,
    ]

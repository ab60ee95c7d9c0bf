import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.noise import NoiseKey

small = st.integers(0, 1000)


@given(small, small, small, small, small)
def test_same_name_same_noise(run_seed, update, group, member, decision):
    one, other = (NoiseKey(run_seed, update, group, member) for _ in range(2))
    np.testing.assert_array_equal(one.initial(decision, (3, 2)), other.initial(decision, (3, 2)))


def test_every_part_of_the_name_matters():
    base = NoiseKey(1, 2, 3, 4)
    others = [
        NoiseKey(9, 2, 3, 4),
        NoiseKey(1, 9, 3, 4),
        NoiseKey(1, 2, 9, 4),
        NoiseKey(1, 2, 3, 9),
    ]
    draws = [key.initial(0, (8,)) for key in (base, *others)]
    draws += [base.initial(1, (8,)), base.transitions(0, (8,))]
    assert len({draw.tobytes() for draw in draws}) == len(draws)


def test_it_is_standard_normal():
    draws = np.concatenate([NoiseKey(0, 0, i, 0).initial(0, (50,)) for i in range(400)])
    assert draws.dtype == np.float32
    assert abs(draws.mean()) < 4 / np.sqrt(draws.size)
    assert abs(draws.std() - 1) < 0.02


def test_first_draw_is_pinned():
    """A change here changes every trace and golden file: it needs a new format version."""
    pinned = NoiseKey(0, 0, 0, 0).initial(0, (3,))
    np.testing.assert_array_equal(pinned, np.float32(PINNED))


PINNED = [0.8375447988510132, 1.124394178390503, -0.5359641909599304]

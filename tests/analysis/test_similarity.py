"""CKA against a direct computation, and what it must and must not see."""

import numpy as np
import pytest

from analysis.similarity import BATCH, cka_beside_chance, cosine, linear_cka


def direct(x, y):
    x, y = (v - v.mean(0) for v in (x.astype(np.float64), y.astype(np.float64)))
    return np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


@pytest.mark.parametrize("rows", [30, BATCH + 200])
def test_it_is_the_formula(rows):
    """By Gram matrices of rows or of units, whichever is smaller."""
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, size=(rows, 40)).astype(np.float16)
    y = (x @ rng.normal(size=(40, 24)) + 30 * rng.normal(size=(rows, 24))).astype(np.float32)
    assert linear_cka(x, y) == pytest.approx(direct(x, y), abs=1e-5)


def test_rotation_and_scale_change_nothing():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 16))
    turned = 7 * x @ np.linalg.qr(rng.normal(size=(16, 16)))[0] + 100
    assert linear_cka(x, turned) == pytest.approx(1, abs=1e-5)
    assert linear_cka(x, x) == pytest.approx(1, abs=1e-12)
    assert linear_cka(1e30 * x, x) == pytest.approx(1, abs=1e-5)


def test_few_rows_look_alike_and_the_shuffled_ones_say_so():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 20, 200))
    found, chance = cka_beside_chance(x, y)
    assert found > 0.8
    assert chance == pytest.approx(found, abs=0.05)
    x = rng.normal(size=(BATCH + 900, 10))
    found, chance = cka_beside_chance(x, x)
    assert found == pytest.approx(1, abs=1e-6)
    order = np.random.default_rng(0).permutation(len(x))
    assert chance == pytest.approx(direct(x, x[order]), abs=1e-5)
    assert chance < 0.05


def test_what_has_no_answer_is_none():
    x = np.random.default_rng(3).normal(size=(9, 4))
    assert linear_cka(x, np.ones((9, 4))) is None
    assert linear_cka(x[:1], x[:1]) is None
    with pytest.raises(ValueError, match="9 rows"):
        linear_cka(x, x[:3])
    assert cosine(np.zeros(3), np.ones(3)) is None
    assert cosine(np.array([0.1, 0.2]), np.array([0.1, 0.2])) == 1
    assert cosine(np.array([1.0, 0]), np.array([0, 2.0])) == 0

"""How alike two sets of representations of the same inputs are: linear CKA, and cosines."""

import numpy as np

MAX_ROWS = 10_000
"""Rows of a layer that CKA is computed from."""

BATCH = 1024


def linear_cka(x: np.ndarray, y: np.ndarray) -> float | None:
    """Linear centred kernel alignment of two representations of the same inputs, 0 to 1.

        CKA = |Y'X|_F^2 / (|X'X|_F |Y'Y|_F),  columns of X and Y centred

    Kornblith et al., ICML 2019 (arXiv:1905.00414), equation 4 and section 3. It does not change
    with rotations and isotropic scaling of either. With fewer rows than units it is large for
    representations that have nothing in common: see `cka_beside_chance`.

    Args:
        x: (rows, units) of one.
        y: (rows, units) of the other, rows of the same inputs.

    Returns:
        None with fewer than two rows, or where one of them never changes.
    """
    return cka_beside_chance(x, y)[0]


def cka_beside_chance(
    x: np.ndarray, y: np.ndarray, seed: int = 0
) -> tuple[float | None, float | None]:
    """Return `linear_cka`, and what it is with the rows of y in a random order.

    The second is what these sizes give without any relation.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} rows cannot be aligned with {len(y)}")
    if len(x) < 2:
        return None, None
    x, y = _centred(x), _centred(y)
    if not x.any() or not y.any():
        return None, None
    order = np.random.default_rng(seed).permutation(len(y))
    if len(x) < x.shape[1] + y.shape[1]:  # |Y'X|_F^2 = tr(XX' YY')
        k, m = _products(x.T, x.T), _products(y.T, y.T)
        scale = np.sqrt(np.vdot(k, k) * np.vdot(m, m))
        found, chance = np.vdot(k, m), np.vdot(k, m[np.ix_(order, order)])
    else:
        xx, yy = (np.vdot(p, p) for p in (_products(x, x), _products(y, y)))
        scale = np.sqrt(xx * yy)
        found, chance = (np.vdot(p, p) for p in (_products(y, x), _products(y, x, order)))
    return min(float(found / scale), 1.0), min(float(chance / scale), 1.0)


def cosine(a: np.ndarray, b: np.ndarray) -> float | None:
    """Cosine of two vectors; None where one is zero. Exactly 1 for equal ones."""
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    if not lengths > 0:
        return None
    return 1.0 if np.array_equal(a, b) else float(np.clip(a @ b / lengths, -1, 1))


def _centred(x: np.ndarray) -> np.ndarray:
    """Columns less their means, divided by one number so that squares stay within float32."""
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = x.astype(np.float32)
    centred -= mean
    largest = max(float(centred.max()), -float(centred.min()))
    if largest > 0:
        centred /= np.float32(largest)
    return centred


def _products(x: np.ndarray, y: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    """X'Y in float64, summed over batches of float32 products; rows of x in an order, if given."""
    total = np.zeros((x.shape[1], y.shape[1]))
    for start in range(0, len(x), BATCH):
        batch = slice(start, start + BATCH)
        total += x[batch if order is None else order[batch]].T @ y[batch]
    return total

"""From what a caller gives to the array that is stored: checked against the schema, never bent.

Shapes must agree exactly.  Integers may change width when every value fits, floats may lose
precision but not become infinite, a number never becomes a truth value or the reverse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import h5py
import numpy as np

from traces.errors import BadRecord, TextTooLong, UnknownName
from traces.schema import Field

ELLIPSIS = "…"
BLOCK_BYTES = 2**20
"""Statistics are computed over at most this much at a time, as float64."""

HALF_EXPONENT = 0x7C00
"""Exponent of a half; all ones where it is not finite."""

Moments = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Per unit: n (N,) int64, mean (N,) float64, and m2 (N,), the sum of squared deviations."""


def as_table(
    place: str,
    table: Iterable[Field],
    given: Mapping[str, object],
    n_rows: int,
    sizes: dict[str, int],
) -> dict[str, np.ndarray]:
    """Return every column of `table` as stored, `n_rows` long; absent ones get their fill value."""
    columns = {field.name: field for field in table}
    for name in given:
        if name not in columns:
            raise BadRecord(place, f"columns of {place}", str(UnknownName("column", name, columns)))
    return {
        name: as_column(place, field, given.get(name), n_rows, sizes)
        for name, field in columns.items()
    }


def as_column(
    place: str, field: Field, values: object, n_rows: int, sizes: dict[str, int]
) -> np.ndarray:
    """Return one column as stored: (n_rows, *row shape), or bytes for text."""
    column = f"{place}/{field.name}"
    shape = (n_rows, *field.row_shape(sizes))
    if values is None:
        if field.fill is None and n_rows:
            raise BadRecord(column, "values for every row", "nothing")
        values = np.full(shape, "" if field.text_bytes else field.fill or 0)
    if field.text_bytes:
        texts = [encoded(column, field, text) for text in values]
        array = np.array(texts, dtype=h5py.string_dtype("utf-8", field.text_bytes))
    else:
        array = np.asarray(values)
    if array.shape != shape:
        raise BadRecord(column, f"shape {shape} ({', '.join(field.dims)})", array.shape)
    return array if field.text_bytes else as_number(column, array, np.dtype(field.dtype))


def as_number(column: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert to `dtype` if every value survives."""
    if array.size == 0:
        return array.astype(dtype)
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "fiu"}[dtype.kind]
    if array.dtype.kind not in kinds:
        raise BadRecord(column, f"values of type {dtype}", array.dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise BadRecord(column, f"{dtype} ({limits.min} to {limits.max})", f"{low} to {high}")
    with np.errstate(over="ignore"):
        stored = array.astype(dtype)
    if dtype.kind == "f" and np.any(np.isfinite(array) & ~np.isfinite(stored)):
        raise BadRecord(column, f"values within the range of {dtype}", np.nanmax(np.abs(array)))
    return stored


def encoded(column: str, field: Field, text: object) -> bytes:
    """Return UTF-8 that fits the column."""
    if not isinstance(text, str):
        raise BadRecord(column, "text", type(text).__name__)
    if "\0" in text:
        if not field.shorten:
            raise BadRecord(column, "text without NUL characters", repr(text[:40]))
        text = text.replace("\0", "\\x00")
    try:
        raw = text.encode("utf-8", "backslashreplace" if field.shorten else "strict")
    except UnicodeEncodeError:
        raise BadRecord(column, "text that UTF-8 can hold", repr(text[:40])) from None
    limit = field.text_bytes
    if len(raw) <= limit:
        return raw
    if not field.shorten:
        raise TextTooLong(column, text, limit)
    end = ELLIPSIS.encode()
    return raw[: limit - len(end)].decode("utf-8", "ignore").encode() + end


def as_activation(block: np.ndarray, dtype: str) -> tuple[np.ndarray, Moments, int]:
    """Return (values as stored, their moments, how many finite ones became infinite)."""
    with np.errstate(over="ignore"):
        stored = block.astype(dtype, copy=False)
    found = moments(stored)
    if found[0].sum() == stored.size:  # all are finite
        return stored, found, 0
    return stored, found, int(np.count_nonzero(np.isfinite(block) & ~np.isfinite(stored)))


def moments(values: np.ndarray) -> Moments:
    """Return the moments per unit, over all axes but the last; values not finite are left out.

    Args:
        values: (rows, ..., N).
    """
    n_units = values.shape[-1]
    samples = values.reshape(-1, n_units)  # (S, N)
    if not len(samples):
        return no_moments(n_units)
    block = min(len(samples), max(1, BLOCK_BYTES // (8 * n_units)))
    deviation = np.empty((block, n_units))  # used again, for new memory is what takes time
    _as_doubles(samples[:1], out=deviation[:1])
    pivot = deviation[0].copy()  # near the mean: no digits are lost between m2 and the squares
    total, squares = np.zeros((2, n_units))
    for start in range(0, len(samples), block):
        few = samples[start : start + block]
        part = deviation[: len(few)]
        _as_doubles(few, out=part)
        with np.errstate(invalid="ignore"):
            part -= pivot
            total += part.sum(axis=0)
            squares += np.einsum("su,su->u", part, part)
        if not np.isfinite(total).all():
            return _finite_moments(samples.astype(np.float64))
    mean = total / len(samples)
    m2 = np.maximum(squares - total * mean, 0.0)
    return np.full(n_units, len(samples)), pivot + mean, m2


def no_moments(n_units: int) -> Moments:
    """Return the moments of no sample."""
    return np.zeros(n_units, np.int64), np.zeros(n_units), np.zeros(n_units)


def _finite_moments(samples: np.ndarray) -> Moments:
    """Return the moments of samples (S, N) of which some are not finite."""
    finite = np.isfinite(samples)
    n = finite.sum(axis=0)
    mean = np.where(finite, samples, 0.0).sum(axis=0) / np.maximum(n, 1)
    return n, mean, (np.where(finite, samples - mean, 0.0) ** 2).sum(axis=0)


def _as_doubles(values: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` with values as float64.

    numpy converts halves one at a time.  Integers it handles many at a time, so exponent and
    mantissa are shifted to where float64 has them, and the exponent's offset is made up for.
    """
    if values.dtype == np.float16:
        exponent = out.reshape(-1).view(np.uint16)[: values.size].reshape(values.shape)
        np.bitwise_and(values.view(np.uint16), HALF_EXPONENT, out=exponent)
        if exponent.max() < HALF_EXPONENT:  # every value is finite
            bits = out.view(np.int64)
            np.copyto(bits, values.view(np.int16))
            bits <<= 42
            bits &= ~(0x3F << 57)  # copies of the sign
            out *= 2.0 ** (1023 - 15)
            return
    np.copyto(out, values)


def merged(a: Moments, b: Moments) -> Moments:
    """Combine the moments of two samples (Chan, Golub and LeVeque 1979)."""
    (n_a, mean_a, m2_a), (n_b, mean_b, m2_b) = a, b
    n = n_a + n_b
    share = n_b / np.maximum(n, 1)
    delta = mean_b - mean_a
    return n, mean_a + delta * share, m2_a + m2_b + delta**2 * n_a * share

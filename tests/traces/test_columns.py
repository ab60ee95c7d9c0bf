import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from traces import columns
from traces.columns import as_activation, as_column, as_number, as_table, merged, moments
from traces.errors import BadRecord, TextTooLong
from traces.schema import Field

TEXT = Field("name", "text16", ("R",), "1", "a name", fill="")
ERROR = Field("error", "text16", ("R",), "1", "a complaint", fill="", shorten=True)


def stored(field, values, n_rows=1, sizes=None):
    return as_column("table", field, values, n_rows, sizes or {})


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_text_is_stored_whole_or_refused(text):
    if len(text.encode()) <= 16:
        assert stored(TEXT, [text])[0].decode() == text
    else:
        with pytest.raises(TextTooLong, match="table/name holds at most 16 bytes"):
            stored(TEXT, [text])


@given(st.text(alphabet=st.characters()))
def test_an_error_text_is_shortened_in_sight(text):
    raw = bytes(stored(ERROR, [text])[0])
    assert len(raw) <= 16
    plain = text.replace("\0", "\\x00").encode("utf-8", "backslashreplace")
    if len(plain) <= 16:
        assert raw == plain
    else:
        assert raw.decode().endswith("…")
        assert plain.startswith(raw.decode()[:-1].encode())


@pytest.mark.parametrize("text", ["a\0", "\ud800", b"bytes", 3])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(BadRecord, match="table/name: expected text"):
        stored(TEXT, [text])


@given(
    arrays(np.int64, array_shapes(max_dims=2, max_side=4), elements=st.integers(-(2**40), 2**40))
)
def test_integers_keep_their_value_or_are_refused(array):
    if array.min() >= -(2**31) and array.max() < 2**31:
        result = as_number("c", array, np.dtype("int32"))
        assert result.dtype == np.int32
        assert (result == array).all()
    else:
        with pytest.raises(BadRecord, match="c: expected int32"):
            as_number("c", array, np.dtype("int32"))


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("bool", [0, 1]),
        ("int32", [True]),
        ("int32", [1.0]),
        ("float64", [True]),
        ("float32", ["a"]),
    ],
)
def test_kinds_are_not_mixed(dtype, values):
    with pytest.raises(BadRecord, match=f"values of type {dtype}"):
        as_number("c", np.array(values), np.dtype(dtype))


def test_a_float_never_becomes_infinite_in_silence():
    with pytest.raises(BadRecord, match=r"range of float32, found 1e\+39"):
        as_number("c", np.array([1e39, np.nan]), np.dtype("float32"))
    kept = as_number("c", np.array([np.inf, np.nan]), np.dtype("float32"))
    assert np.isinf(kept[0])
    assert np.isnan(kept[1])


def test_shapes_agree_exactly():
    chain = Field("chain", "float32", ("D", "K+1", "2"), "1", "a chain")
    assert stored(chain, np.zeros((3, 5, 2)), 3, {"K": 4}).dtype == np.float32
    with pytest.raises(BadRecord, match=r"table/chain: expected shape \(3, 5, 2\) \(D, K\+1, 2\)"):
        stored(chain, np.zeros((3, 4, 2)), 3, {"K": 4})


def test_absent_columns_are_filled_or_missed():
    required = Field("t", "int32", ("T",), "1", "time")
    optional = Field("force", "float64", ("T", "2"), "N", "force", fill=np.nan)
    number = Field("group", "int32", ("T",), "1", "group", fill=-1)
    table = as_table("steps", (required, optional, number, TEXT), {"t": [0, 1]}, 2, {})
    assert np.isnan(table["force"]).all()
    assert table["force"].shape == (2, 2)
    assert table["group"].tolist() == [-1, -1]
    assert table["name"].tolist() == [b"", b""]
    with pytest.raises(BadRecord, match="steps/t: expected values for every row, found nothing"):
        as_table("steps", (required,), {}, 2, {})
    assert as_table("steps", (required,), {}, 0, {})["t"].shape == (0,)


def test_unknown_columns_are_refused_with_a_near_name():
    with pytest.raises(BadRecord, match="did you mean name"):
        as_table("table", (TEXT,), {"nmae": ["x"]}, 1, {})


def test_overflow_is_counted():
    values = np.array([[1.0, 7e4, np.inf, np.nan, -7e4]], np.float32)
    half, (n, _, _), overflow = as_activation(values, "float16")
    assert overflow == 2
    assert np.isinf(half[0, [1, 2, 4]]).all()
    assert n.tolist() == [1, 0, 0, 0, 0]
    assert as_activation(values, "float32")[2] == 0


def test_every_half_becomes_the_same_double():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    for chosen in (halves, halves[np.isfinite(halves)]):
        doubles = np.empty(chosen.shape)
        columns._as_doubles(chosen, doubles)
        np.testing.assert_array_equal(doubles, chosen.astype(np.float64))
        np.testing.assert_array_equal(np.signbit(doubles), np.signbit(chosen))


samples = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=4, max_side=5),
    elements=st.floats(-100, 100, width=32) | st.sampled_from([np.nan, np.inf]),
)


@given(samples)
def test_moments_are_those_of_the_finite_values(values):
    n, mean, m2 = moments(values)
    for unit, column in enumerate(values.reshape(-1, values.shape[-1]).T.astype(float)):
        column = column[np.isfinite(column)]
        assert n[unit] == len(column)
        if len(column):
            assert mean[unit] == pytest.approx(column.mean(), abs=1e-9)
            assert m2[unit] == pytest.approx(((column - column.mean()) ** 2).sum(), abs=1e-6)


@given(samples, st.integers(0, 5))
def test_moments_of_parts_merge_into_those_of_the_whole(values, cut):
    whole = moments(values)
    parts = merged(moments(values[:cut]), moments(values[cut:]))
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_moments_do_not_depend_on_the_block(monkeypatch):
    values = np.random.default_rng(0).normal(3.0, 2.0, (50, 3, 4))
    whole = moments(values)
    monkeypatch.setattr(columns, "BLOCK_BYTES", 8 * 4 * 7)
    for a, b in zip(whole, moments(values), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)

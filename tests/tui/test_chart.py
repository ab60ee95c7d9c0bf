"""Charts, sparklines and bars as characters."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.data.series import Point
from tui.widgets.chart import Picture, _Canvas, _changed, bar, rule, sparkline
from tui.wording import compact, duration


def drawn(columns=4, rows=2, **picture):
    shown = Picture(**({"end": 7, "low": 0.0, "high": 1.0, "labels": ("", "", "")} | picture))
    return ["".join(c for c, _ in row) for row in _Canvas(shown, columns, rows).cells()]


def test_a_line_from_corner_to_corner():
    """8 dots across and 8 down: one dot a step."""
    line = [Point(0, 0.0), Point(7, 1.0)]
    assert drawn(line=line) == ["  ⡠⠊", "⡠⠊  "]


def test_a_single_point():
    assert drawn(line=[Point(0, 1.0)]) == ["⠁   ", "    "]


def test_values_beyond_the_axes_stay_inside():
    assert drawn(line=[Point(99, 5.0)]) == ["   ⠈", "    "]
    assert drawn(line=[Point(0, -5.0)]) == ["    ", "⡀   "]


def test_a_mark_stands_on_its_interval():
    assert drawn(rows=3, marks=[Point(0, 0.5, 0.0, 1.0)]) == ["│   ", "◆   ", "│   "]


def test_the_band_is_drawn_below_the_line():
    rows = drawn(line=[Point(0, 0.5, 0.0, 1.0), Point(7, 0.5, 0.0, 1.0)])
    assert all(" " not in row for row in rows)


def test_flat_axes():
    assert drawn(low=1.0, high=1.0, line=[Point(0, 1.0)])


@given(
    st.lists(
        st.builds(
            Point,
            st.floats(0, 100),
            st.floats(-1e6, 1e6),
            st.floats(-1e6, 1e6) | st.just(math.nan),
            st.floats(-1e6, 1e6),
        ),
        max_size=6,
    )
)
def test_anything_finite_can_be_drawn(line):
    rows = drawn(5, 3, end=100, line=line, marks=line)
    assert [len(row) for row in rows] == [5, 5, 5]


def test_near_changes_are_one_region():
    before = [(c, "") for c in "abcdefghij"]
    after = [(c, "") for c in "aXcXefghiX"]
    assert _changed(before, after) == [(1, 4), (9, 10)]
    assert _changed(before, before) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([1.0, 1.0], "▃▃"),
        ([0.0, math.nan, 1.0], "▁ █"),
        ([math.nan], ""),
        ([], ""),
        ([9, 9, 0, 1], "▁█"),
    ],
)
def test_sparklines(values, expected):
    assert sparkline(values, 2 if len(values) == 4 else 8) == expected


def test_bars():
    assert [bar(share, 4) for share in (-1, 0.5, 9)] == ["░░░░", "██░░", "████"]


def test_headings_fill_their_line():
    assert "".join(text for text, _ in rule([("one", ""), (" two", "")], 14)) == "─ one two ────"
    assert "".join(text for text, _ in rule([("much too long", "")], 8)) == "─ much …"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.0041, ".004"),
        (0.5, ".500"),
        (-0.25, "-.250"),
        (1.0, "1.00"),
        (12.54, "12.5"),
        (342.4, "342"),
        (99999.0, "99999"),
        (1e-6, "1e-6"),
        (2.5e7, "2e7"),
        (math.nan, "–"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_are_short(value, text):
    assert compact(value) == text


@given(st.floats())
def test_no_number_is_longer_than_seven_characters(value):
    assert len(compact(value)) <= 7


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (7.9, "0:07"), (342, "5:42"), (11100, "3h05"), (324000, "3d18h"), (None, "–")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
    assert duration(math.nan) == duration(-1) == "–"

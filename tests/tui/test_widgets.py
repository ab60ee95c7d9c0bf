"""The widgets by themselves: what they draw, what they cut, and what they leave alone."""

import asyncio

import numpy as np
import pytest
from textual.app import App
from textual.binding import Binding

from tui.widgets.braille import line_cells, text_of, to_dots
from tui.widgets.keys import KeyLine, key_names
from tui.widgets.lines import TextLines, fit, fit_tail, pad, wrap
from tui.widgets.plot import Plot
from tui.widgets.table import Column, Row, Table, widths
from tui.widgets.tracks import Track, Tracks


def show(widget, size, steps):
    """Mount one widget in an empty application and let `steps` drive it."""

    class Bare(App):
        CSS_PATH = None
        CSS = "".join(f".lines--{name} {{ }}" for name in ("dim",))

        def compose(self):
            yield widget

    async def go():
        async with Bare().run_test(size=size) as pilot:
            await pilot.pause()
            await steps(pilot)

    asyncio.run(go())


def texts(widget):
    return [widget.render_line(y).text.rstrip() for y in range(widget.size.height)]


@pytest.fixture
def repainted(monkeypatch):
    """Regions that widgets asked to repaint; None stands for a whole widget."""
    asked = []
    original = TextLines.refresh

    def refresh(self, *regions, **options):
        if not options.get("layout"):
            asked.extend(regions or (None,))
        return original(self, *regions, **options)

    for kind in (TextLines, Table, Plot, Tracks):
        monkeypatch.setattr(kind, "refresh", refresh)
    return asked


def test_texts_are_cut_by_cells_and_say_so():
    assert fit("abcdef", 4) == "abc…"
    assert fit("abc", 3) == "abc"
    assert fit("漢字漢字", 4) == "漢 …"
    assert fit("abc", 0) == ""
    assert fit_tail("/a/long/path/file.h5", 8) == "…file.h5"
    assert pad("ab", 4) == "ab  "
    assert pad("ab", 4, right=True) == "  ab"
    assert wrap("one two three", 7) == ["one two", "three"]
    assert wrap("one two three four", 7, limit=2) == ["one two", "three …"]


def test_numbers_are_never_cut():
    columns = (
        Column("name", least=4),
        Column("n", right=True),
        Column("extra", rank=1),
        Column("more", rank=2),
    )
    rows = [Row(1, (("a long name", ""), ("123456", ""), ("eeeee", ""), ("mmmmm", "")))]
    assert widths(columns, rows, 40) == [11, 6, 5, 5]
    assert widths(columns, rows, 20) == [7, 6, 5, -1]
    assert widths(columns, rows, 11) == [4, 6, -1, -1]
    assert widths(columns, rows, 5)[1] == 6


def test_empty_optional_columns_are_left_out():
    columns = (Column("a"), Column("b", rank=1))
    assert widths(columns, [Row(1, (("x", ""), ("", "")))], 40) == [1, -1]


def some_rows(n):
    return [Row(i, ((f"row {i}", ""),)) for i in range(n)]


def test_table_keeps_its_cursor_on_the_row(repainted):
    table = Table((Column("name"),), id="table")

    async def steps(pilot):
        table.show(some_rows(9))
        table.move_to(4)
        table.show(some_rows(9)[2:])
        assert table.row.key == 4
        table.show(some_rows(2))
        assert table.row.key == 1
        table.show([])
        assert table.row is None
        assert table.place == (0, 0)

    show(table, (20, 5), steps)


def test_table_scrolls_and_pages():
    table = Table((Column("name"),), id="table")

    async def steps(pilot):
        table.show(some_rows(10))
        assert table.page == 4
        table.move_to(99)
        assert texts(table) == ["  name", "  row 6", "  row 7", "  row 8", "▸ row 9"]
        table.move(-3)
        assert texts(table)[1] == "▸ row 6"
        table.move(-1)
        assert texts(table)[1] == "▸ row 5"
        await pilot.click(table, offset=(3, 3))
        assert table.row.key == 7

    show(table, (20, 5), steps)


def test_equal_rows_repaint_nothing_and_one_row_one_line(repainted):
    table = Table((Column("name"),), id="table")

    async def steps(pilot):
        table.show(some_rows(4))
        await pilot.pause()
        repainted.clear()
        table.show(some_rows(4))
        assert repainted == []
        rows = some_rows(4)
        rows[2] = Row(2, (("row x", ""),))
        table.show(rows)
        assert [(region.y, region.height) for region in repainted] == [(3, 1)]
        repainted.clear()
        table.move(1)
        assert [region.y for region in repainted] == [1, 2]

    show(table, (20, 6), steps)


def test_text_lines_repaint_what_differs(repainted):
    text = TextLines(id="text")

    async def steps(pilot):
        text.show([[("a", "")], [("b", "")]])
        repainted.clear()
        text.show([[("a", "")], [("c", "")]])
        assert [region.y for region in repainted] == [1]
        repainted.clear()
        text.show([[("a", "")], [("c", "")]])
        assert repainted == []

    show(text, (20, 4), steps)


def test_braille_draws_a_diagonal():
    across, down = to_dots(np.array([0.0, 1]), np.array([0.0, 1]), 2, 1, (0, 1), (0, 1))
    assert (across.tolist(), down.tolist()) == ([0, 3], [3, 0])
    assert text_of(line_cells(across, down, 2, 1)) == ["⡠⠊"]


def test_braille_of_one_point_is_in_the_middle():
    across, down = to_dots(np.zeros(1), np.zeros(1), 3, 1, (0, 0), (0, 0))
    assert text_of(line_cells(across, down, 3, 1))[0].strip() != ""


def test_plot_repaints_two_cells_when_its_cursor_moves(repainted):
    plot = Plot(id="plot", equal=True)

    async def steps(pilot):
        plot.show("path", np.linspace(0, 1, 20), np.zeros(20), 0)
        assert texts(plot)[0] == "path"
        assert "◆" in "".join(texts(plot))
        repainted.clear()
        plot.move_to(10)
        assert len(repainted) == 2
        assert all((region.width, region.height) == (1, 1) for region in repainted)
        lines = "".join(texts(plot))
        assert lines.count("◆") == lines.count("○") == lines.count("●") == 1

    show(plot, (20, 5), steps)


def test_plot_without_a_finite_point_says_so():
    plot = Plot(id="plot")

    async def steps(pilot):
        plot.show("path", np.full(3, np.nan), np.full(3, np.nan), 0)
        assert texts(plot)[1] == "  no finite position"
        plot.move_to(1)
        plot.show("path", np.array([0, np.nan, 1]), np.array([0, np.nan, 1.0]), 1)
        assert "◆" not in "".join(texts(plot))

    show(plot, (30, 5), steps)


def test_tracks_draw_values_marks_and_reasons():
    tracks = Tracks(id="tracks")
    values = np.linspace(-1, 1, 8)
    some = [
        Track("x", values, -1, 1),
        Track("log p", np.full(8, np.nan), instead="none: an ODE sampler"),
        Track("touch", values > 0, mark="▪"),
    ]

    async def steps(pilot):
        tracks.show(some, 8, 2)
        lines = texts(tracks)
        assert lines[0] == " x       ▁▂▃▄▅▆▇█   -0.43"
        assert lines[1].startswith(" log p   none: a")
        assert lines[2] == " touch     │ ▪▪▪▪      no"
        assert lines[3] == " step    ├─▲────┤     2/7"

    show(tracks, (26, 4), steps)


def test_tracks_repaint_columns_of_the_cursor(repainted):
    tracks = Tracks(id="tracks")

    async def steps(pilot):
        tracks.show([Track("x", np.zeros(100), -1, 1)], 100, 0)
        repainted.clear()
        tracks.move_to(50)
        assert sorted(region.width for region in repainted) == [1] * 6 + [9], "its value stays"

    show(tracks, (60, 3), steps)


@pytest.mark.parametrize("n", [0, 1, 3, 5000])
@pytest.mark.parametrize("size", [(10, 2), (26, 4), (120, 40)])
def test_tracks_of_any_length_in_any_size(n, size):
    tracks = Tracks(id="tracks")

    async def steps(pilot):
        tracks.show([Track("x", np.zeros(n)), Track("m", np.zeros(n, bool))], n, 0)
        texts(tracks)
        tracks.move_to(max(0, n - 1))
        texts(tracks)

    show(tracks, size, steps)


def test_key_line_keeps_help_and_quit():
    bindings = [
        *(Binding(key, "x", f"something {key}") for key in "abcdef"),
        Binding("question_mark", "help", "help"),
        Binding("q", "quit", "quit"),
        Binding("z", "hidden", "hidden", show=False),
    ]
    line = KeyLine(bindings)

    async def steps(pilot):
        assert texts(line)[0] == " a something a  ? help  q quit"
        line.say("no pair")
        assert texts(line)[0] == " no pair"
        line.say()
        assert "q quit" in texts(line)[0]

    show(line, (40, 1), steps)


def test_keys_are_named_as_on_the_keyboard():
    assert key_names(Binding("h,left,comma", "x")) == ["h", "left", ","]

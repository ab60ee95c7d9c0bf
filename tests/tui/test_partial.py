"""Partial updates: what is written is what changed, and the screen is the same as written whole."""

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.segment import Segment
from textual._compositor import ChopsUpdate
from textual.strip import Strip

from tui.partial import CutUpdate


def beside(name):
    path = Path(__file__).parent / "golden" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tui_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scenes = beside("scenes")
PtyTerminal = runpy.run_path(str(Path(__file__).parent / "pty_terminal.py"))["PtyTerminal"]
COMMAND = [sys.executable, "-P", "-c", "import tui.app; tui.app.main()"]


@pytest.mark.parametrize(
    ("span", "written"),
    [
        ((1, 3, 5), "\x1b[2;4Hde"),
        ((1, 0, 10), "\x1b[2;1Habcdef\x1b[2;7Hghij"),
        ((1, 5, 8), "\x1b[2;6Hf\x1b[2;7Hgh"),
        ((1, 6, 6), ""),
        ((0, 0, 10), ""),
    ],
)
def test_a_span_is_cut_at_both_ends(span, written):
    chops = [{0: None, 6: None}, {0: Strip([Segment("abcdef")]), 6: Strip([Segment("ghij")])}]
    update = ChopsUpdate(chops, [span], [[6, 10], [6, 10]])
    assert CutUpdate.of(update).render_segments(Console()) == written


def test_the_screen_is_what_a_whole_repaint_makes_it(tmp_path):
    """Cells with their colours, after many partial updates."""
    scenes.filmed(tmp_path)
    with PtyTerminal([*COMMAND, str(tmp_path)], 100, 30) as terminal:

        def cells():
            return [[terminal.screen.buffer[y][x] for x in range(100)] for y in range(30)]

        terminal.wait_for("11-20 09:30")
        terminal.press("\r")
        terminal.press("\r")
        terminal.wait_for("agentview, step 0")
        terminal.settle()
        before = terminal.n_bytes
        terminal.press("l")
        assert terminal.n_bytes - before < 2500, "the cursor moved by one step"
        terminal.press(">>hb")
        terminal.press("l<l")
        partly = cells()
        terminal.press("?")
        assert cells() != partly
        terminal.press("\x1b")
        terminal.settle()
        assert cells() == partly

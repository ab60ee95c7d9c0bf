"""Pictures by the kitty protocol: asked for, sent, and where nobody answers, half blocks."""

import base64
import importlib.util
import io
import os
import re
import runpy
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len

from tui.app import run
from tui.data.frames import read_frame
from tui.kitty import NUMBERS, PLACEHOLDER, Slot, placeholders, sent
from tui.look import Look


def beside(name):
    path = Path(__file__).parent / "golden" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tui_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scenes = beside("scenes")
PtyTerminal = runpy.run_path(str(Path(__file__).parent / "pty_terminal.py"))["PtyTerminal"]
COMMAND = [sys.executable, "-P", "-c", "import tui.app; tui.app.main()"]
MESSAGE = re.compile(rb"\x1b_G([^;\x1b]*);?([^\x1b]*)\x1b\\")


def received(raw):
    """Pictures that were sent: (settings, (height, width, 3) uint8)."""
    found, settings, data = [], {}, b""
    for head, payload in MESSAGE.findall(raw):
        keys = dict(part.split("=") for part in head.decode().split(","))
        if keys.get("a") == "q":
            continue
        settings, data = (keys if "a" in keys else settings), data + payload
        assert len(payload) <= 4096
        if keys["m"] == "0":
            file = io.BytesIO(base64.b64decode(data))
            found.append((settings, np.asarray(Image.open(file))))
            data = b""
    return found


class Kitty(PtyTerminal):
    """Answers as kitty does, or as a terminal that knows nothing of pictures."""

    knows = True
    asked = 0

    def read(self, timeout_s):
        n = super().read(timeout_s)
        if self.raw.count(b"\x1b[c") > self.asked:
            self.asked += 1
            assert b"a=q" in self.raw
            self.send(("\x1b_Gi=31;OK\x1b\\" if self.knows else "") + "\x1b[?62;c")
        return n


class Knowing(Kitty):
    knows = False


class Mute(PtyTerminal):
    """Answers nothing at all."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return scenes.filmed(tmp_path_factory.mktemp("kitty"))


def test_a_picture_survives_its_way():
    picture = np.random.default_rng(0).integers(0, 255, (120, 90, 3), np.uint8)
    ((settings, arrived),) = received(sent(picture, 95, 30, 20).encode())
    assert (arrived == picture).all()
    assert settings == {
        "a": "T", "U": "1", "q": "2", "f": "100", "i": "95", "c": "30", "r": "20", "m": "1"
    }  # fmt: skip
    ((_, small),) = received(sent(np.zeros((480, 640, 3), np.uint8), 1, 3, 2).encode())
    assert small.shape == (192, 256, 3)


def test_a_placeholder_is_one_cell_with_its_row_and_column():
    assert (len(NUMBERS), len(set(NUMBERS)), NUMBERS[0], NUMBERS[-1]) == (
        297,
        297,
        "̅",
        "\U0001d244",
    )
    cells = placeholders(2, 4)
    assert [cell_len(cell) for cell in cells] == [1] * 4
    assert [(NUMBERS.index(c[1]), NUMBERS.index(c[2])) for c in cells] == [(2, i) for i in range(4)]


def test_the_colour_says_the_number():
    assert Slot.of(17, few_colours=False).number == 0x00005F
    assert Slot.of(17, few_colours=True).number == 17
    assert Slot.of(17, few_colours=True).colour.triplet == (0, 0, 0x5F)
    assert Look(kitty=True, low_bandwidth=True).slot(1, "truecolor").number == 18
    assert Look(kitty=True).slot(1, "256").number == 18
    for none in (Look(), Look(kitty=True, ascii=True)):
        assert none.slot(0, "truecolor") is None
    assert Look(kitty=True).slot(0, None) is None, "NO_COLOR: nothing could say the number"


def test_another_way_is_one_line(capsys):
    assert run(["--pictures", "sixel"]) == 2
    assert capsys.readouterr().err == (
        "error: --pictures sixel: no such way; there are auto, blocks, kitty\n"
    )


def watched(kind, folder, term, *options):
    """Open an episode, go five steps on; return the terminal."""
    env = {"TERM": term, "TMUX": "", "XDG_CONFIG_HOME": str(folder)}
    with kind([*COMMAND, *options, str(folder)], env=env) as terminal:
        terminal.wait_for("11-20 09:30")
        terminal.press("\r")
        terminal.press("\r")
        terminal.wait_for("agentview, step 0")
        terminal.settle()
        for _ in range(5):
            terminal.send("l")
        terminal.wait_for("agentview, step 5")
        terminal.settle()
    return terminal


@pytest.mark.parametrize("options", [(), ("--low-bandwidth",)], ids=["truecolor", "256"])
def test_kitty_gets_the_pictures_themselves(folder, options):
    terminal = watched(Kitty, folder, "xterm-kitty", *options)
    raw = bytes(terminal.raw)
    condition = "fast-8" if "> fast" in terminal.text else "baseline"
    path = folder / "traces" / f"{scenes.RUN}-{condition}.h5"
    pictures = received(raw)
    assert terminal.asked == 1
    for (settings, arrived), step in zip(pictures, (0, 5), strict=True):
        assert (arrived == read_frame(path, 0, "agentview", step)).all()
        assert settings["i"] == ("17" if options else str(0x5F))
    colour = b"38;5;17" if options else b"38;2;0;0;95"
    columns, rows = int(settings["c"]), int(settings["r"])
    text = raw.decode()
    for row in range(rows):
        line = "".join(placeholders(row, columns))
        assert line in re.sub("\x1b\\[[0-9;]*m", "", text), f"row {row}"
        assert PLACEHOLDER + NUMBERS[row] + NUMBERS[0] in text
    assert colour in raw
    assert "▀" not in text
    first, second = (raw.index(b"a=T"), raw.rindex(b"a=T"))
    assert PLACEHOLDER.encode() not in raw[:first], "the picture comes before its cells"
    moved = raw[second:].decode().count(PLACEHOLDER)
    assert moved == rows, "of the next picture one cell a line is written"


@pytest.mark.parametrize(
    ("kind", "term", "options", "asks"),
    [
        (Knowing, "xterm-kitty", (), True),
        (Mute, "xterm-kitty", (), True),
        (Mute, "xterm-256color", (), False),
        (Mute, "tmux-256color", (), False),
        (Mute, "xterm-kitty", ("--pictures", "blocks"), False),
    ],
    ids=["says no", "mute", "xterm", "tmux", "blocks"],
)
def test_others_get_half_blocks_and_nothing_strange(folder, kind, term, options, asks):
    began = time.monotonic()
    terminal = watched(kind, folder, term, *options)
    assert time.monotonic() - began < 30
    raw = bytes(terminal.raw)
    assert (b"a=q" in raw) is asks
    assert received(raw) == []
    assert PLACEHOLDER.encode() not in raw
    assert "▀" in raw.decode()


def test_pictures_can_be_insisted_on(folder):
    raw = bytes(watched(Mute, folder, "xterm-256color", "--pictures", "kitty").raw)
    assert b"a=q" not in raw
    assert len(received(raw)) == 2


def test_keys_work_after_a_terminal_was_asked(folder):
    """The answer is read, whole: nothing of it may reach the screens as keys."""
    with Kitty([*COMMAND, str(folder)], env={"TERM": "xterm-kitty"}) as terminal:
        terminal.wait_for("11-20 09:30")
        terminal.settle()
        assert "typed" not in terminal.text
        assert " 1/1" in terminal.lines[0]
        terminal.press("?")
        terminal.wait_for("show or hide these keys")
    assert os.environ.get("TERM") != "xterm-kitty"

"""ASCII, themes, NO_COLOR: what reaches a terminal that can do less, read from a real one."""

import importlib.util
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.color import Color

import tui.glyphs
from traces.errors import UserError
from tui.app import make_app, run
from tui.glyphs import Colours256, to_ascii
from tui.look import DENSITY, Look, shows_only_ascii, theme_named
from tui.widgets.frame import UPPER, shaded


def beside(name):
    path = Path(__file__).parent / "golden" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tui_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scenes, tables, driver = beside("scenes"), beside("neuron_scenes"), beside("driver")
PtyTerminal = runpy.run_path(str(Path(__file__).parent / "pty_terminal.py"))["PtyTerminal"]
COMMAND = [sys.executable, "-P", "-c", "import tui.app; tui.app.main()"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A training that runs, two filmed conditions, a neuron table."""
    folder = tmp_path_factory.mktemp("look")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        tables.write_table(scenes.SHA, layers=3)
        scenes.training(folder)
        scenes.filmed(folder)
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Path()


def app_over(folder, **look):
    return make_app(folder, lambda: scenes.NOW, Look(**look))


EVERY_SCREEN = {
    "live": "",
    "metrics": "m",
    "alerts": "escape !",
    "help": "escape ?",
    "runs": "escape 1 G",
    "filter": "/ r",
    "rollouts": "escape G enter",
    "episode": "enter l l",
    "beside": "b",
    "neurons inside": "a",
    "playing": "space",
    "pairs": "5",
    "sites": "]",
    "settings": "]",
    "neurons": "4 s s a",
    "card": "enter",
    "palette": "colon",
}
"""What is seen after each key; every screen and list there is."""


def test_no_screen_draws_anything_beyond_ascii(here):
    async def steps(pilot):
        for screen, keys in EVERY_SCREEN.items():
            await driver.press(pilot, *keys.split())
            seen = driver.screen_text(pilot.app)
            assert seen.isascii(), (screen, [c for c in seen if not c.isascii()])
            assert len(seen.split()) > 10, (screen, seen)

    driver.drive(app_over(here, ascii=True), steps)


def test_the_same_screens_do_draw_more_without_the_option(here):
    async def steps(pilot):
        assert not driver.screen_text(pilot.app).isascii()

    driver.drive(app_over(here), steps)


def test_a_slow_line_gets_one_picture_a_second():
    assert (Look().pictures_hz, Look(low_bandwidth=True).pictures_hz) == (5, 1)


def test_a_chart_and_a_picture_can_be_read_in_ascii(here):
    async def steps(pilot):
        text = driver.screen_text(pilot.app)
        assert "rollout ########..." in text
        assert re.search(r"\|[.* ]*\*\*", text), "the curve of success"
        await driver.press(pilot, "1", "G", "enter", "enter")
        lines = driver.screen_text(pilot.app).splitlines()
        assert (lines[4][1:10], lines[10][1:10]) == ("=" * 9, "." * 9), "it darkens downwards"

    driver.drive(app_over(here, ascii=True), steps)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("▁▂▃▄▅▆▇█", "_.:-=+*#"),
        ("✓✗· α=8 Δ 4.1σ", "vx. a=8 d 4.1s"),
        ("┌├└─│", "+|+-|"),
        ("⠀⠁⠅⣀⣿", " ..**"),
        ("Häon", "Haon"),
        ("皿 ok", "?? ok"),
        ("e\u0301", "e"),
    ],
)
def test_every_character_becomes_ascii_of_its_width(text, expected):
    assert to_ascii(text) == expected
    assert cell_len(to_ascii(text)) == cell_len(text)


def test_every_character_that_the_screens_draw_has_one_in_ascii():
    room = Path(tui.glyphs.__file__).parent
    sources = [room / "wording.py", *(room / "screens").glob("*.py"), *(room / "data").glob("*.py")]
    sources += (room / "widgets").glob("*.py")
    drawn = {c for path in sources for c in path.read_text(encoding="utf-8")}
    assert len([c for c in drawn if not c.isascii()]) > 30
    unknown = {c for c in drawn if to_ascii(c) == "?"}
    assert unknown == {"?", UPPER}, "pictures are shaded instead"


def test_any_character_keeps_its_width():
    for code in [*range(0x80, 0x3000), *range(0x1F300, 0x1F700)]:
        seen = to_ascii(chr(code))
        assert seen.isascii()
        assert len(seen) == cell_len(chr(code)), hex(code)


def test_brighter_pixels_are_denser_characters():
    cells = np.repeat(np.array([0, 120, 255], np.uint8), 6).reshape(3, 2, 3)
    assert shaded(cells, DENSITY) == DENSITY[0] + DENSITY[4] + DENSITY[-1]


def test_neighbours_of_the_same_colour_of_256_are_written_once():
    line = [Segment("a", Style.parse("#ff0000")), Segment("b", Style.parse("#fe0101"))]
    (one,) = Colours256().apply(line, Color.parse("black"))
    assert (one.text, one.style.color.number) == ("ab", 196)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"LANG": "en_US.UTF-8"}, False),
        ({"LANG": "C.utf8"}, False),
        ({"LC_CTYPE": "UTF-8"}, False),
        ({"LC_ALL": "C", "LANG": "C.UTF-8"}, True),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),
        ({"LANG": "de_DE.ISO-8859-1"}, True),
        ({"LANG": "C", "LC_CTYPE": "de_DE.UTF-8"}, False),
        ({"LANG": "C.UTF-8", "TERM": "linux"}, True),
    ],
)
def test_a_locale_that_is_not_utf8_gets_ascii(environ, expected):
    assert shows_only_ascii(environ) is expected


def test_the_theme_is_named_by_the_option_then_by_the_environment(monkeypatch):
    monkeypatch.setenv("VLA_TUI_THEME", "light")
    assert theme_named("ansi") == "ansi"
    assert theme_named(None) == "light"
    monkeypatch.setenv("VLA_TUI_THEME", "pink")
    with pytest.raises(UserError, match="VLA_TUI_THEME pink: no such theme; there are dark, li"):
        theme_named(None)


@pytest.mark.parametrize(
    ("asked", "few_colours", "no_color", "expected"),
    [
        ("dark", False, False, "textual-dark"),
        ("light", False, False, "textual-light"),
        ("light", True, False, "ansi-light"),
        ("dark", False, True, "ansi-dark"),
        ("ansi", False, False, "ansi-dark"),
    ],
)
def test_few_colours_are_left_to_the_terminal(asked, few_colours, no_color, expected):
    assert Look(theme=asked, few_colours=few_colours).theme_name(no_color) == expected


def test_a_theme_that_is_none_is_one_line(capsys):
    assert run(["--theme", "pink"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: --theme pink: no such theme; there are dark, light, ansi\n")


def colours(raw):
    """Which kinds of colours were written: 24 bits, of 256, of 16."""
    found = set()
    for codes in re.findall(rb"\x1b\[([\d;]+)m", raw):
        text = codes.decode()
        found |= {"24 bits"} if re.search(r"[34]8;2;", text) else set()
        found |= {"256"} if re.search(r"[34]8;5;", text) else set()
        rest = re.sub(r"[34]8;(2;\d+;\d+;\d+|5;\d+)", "", text).split(";")
        found |= {"16"} if any(re.fullmatch(r"([34]|9|10)[0-7]", code) for code in rest) else set()
    return found


TERMINALS = {
    "truecolor": ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "", {"24 bits"}),
    "xterm": ({"TERM": "xterm-256color", "COLORTERM": ""}, "", {"256"}),
    "screen": ({"TERM": "screen-256color", "COLORTERM": ""}, "", {"256"}),
    "console": ({"TERM": "linux", "COLORTERM": ""}, "", {"16"}),
    "no colour": ({"NO_COLOR": "1", "COLORTERM": "truecolor"}, "--no-mouse", set()),
    "slow": ({"COLORTERM": "truecolor"}, "--low-bandwidth", {"256"}),
    "own colours": ({"COLORTERM": "truecolor"}, "--theme ansi", {"16"}),
}


@pytest.mark.parametrize("name", TERMINALS)
def test_only_colours_that_the_terminal_has_are_written(folder, name):
    env, options, expected = TERMINALS[name]
    with PtyTerminal([*COMMAND, *options.split(), str(folder)], env=env) as terminal:
        terminal.wait_for("smolvla-goal-07")
        terminal.settle()
        raw = bytes(terminal.raw)
    assert colours(raw) == expected
    assert (b"\x1b[?1003h" in raw) is (name != "no colour"), "asks for the mouse"
    assert raw.isascii() is (name == "console")
    if name == "no colour":
        assert re.search(rb"\x1b\[[\d;]*\b7\b[\d;]*m", raw), "the cursor is in reverse"

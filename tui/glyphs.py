"""Filters that every drawn line passes on its way to the screen: ASCII alone, fewer colours."""

import unicodedata
from functools import lru_cache

from rich.cells import cell_len
from rich.color import Color as RichColor
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

PLAIN = str.maketrans(
    {
        **dict(zip("▁▂▃▄▅▆▇█", "_.:-=+*#", strict=True)),
        **dict(zip("░▒▓", ".=%", strict=True)),
        **dict(zip("─━│┤├┴┬┌┐└┘╌", "-=|||++++++-", strict=True)),
        **dict(zip("●○◆▪▸▲▼", "@o+#>^v", strict=True)),
        **dict(zip("✓✗×·…", "vxx.~", strict=True)),
        **dict(zip("←→↑↓", "<>^v", strict=True)),
        **dict(zip("–—−“”‘’", "---\"\"''", strict=True)),
        **dict(zip("αΔσμ", "adsu", strict=True)),
    }
)
"""What stands for each character that the screens draw; the height of a block becomes density."""
BRAILLE = range(0x2800, 0x2900)
LATTICE = (0x05, 0x42)
"""Dots of a braille cell that make an interval's band, and none of which touch."""


class _Ascii(dict):
    """Code point to its one text in ASCII, worked out when it is asked for."""

    def __missing__(self, code: int) -> str:
        self[code] = found = _like(chr(code))
        return found


def _like(character: str) -> str:
    """Return ASCII of the same width: a curve's dots, a bare letter, or question marks."""
    if character.isascii():
        return character
    if ord(character) in BRAILLE:
        dots = ord(character) - BRAILLE.start
        sparse = any(dots & ~band == 0 for band in LATTICE)
        return " " if not dots else "." if sparse else "*"
    width = cell_len(character)
    bare = "".join(c for c in unicodedata.normalize("NFKD", character) if c.isascii())
    return bare if len(bare) == width else "?" * width


_TABLE = _Ascii(PLAIN)


def to_ascii(text: str) -> str:
    """Return a text of the same width in cells, in ASCII."""
    return text if text.isascii() else text.translate(_TABLE)


class AsciiOnly(LineFilter):
    """No character beyond ASCII reaches the screen, whichever widget drew it."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Return the same cells in ASCII."""
        return [Segment(to_ascii(text), style, control) for text, style, control in segments]


class Colours256(LineFilter):
    """The palette of 256 colours: half the bytes, and fewer changes of colour."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Return the same cells in the nearest colours, equal neighbours as one."""
        near = [Segment(text, style and _near(style)) for text, style, _ in segments]
        return list(Segment.simplify(near))


@lru_cache(4096)
def _near(style: Style) -> Style:
    return style + Style.from_color(_nearest(style.color), _nearest(style.bgcolor))


def _nearest(colour: RichColor | None) -> RichColor | None:
    if colour is None or colour.triplet is None:
        return colour
    return RichColor.from_ansi(colour.downgrade(ColorSystem.EIGHT_BIT).number)

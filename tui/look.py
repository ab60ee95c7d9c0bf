"""How the screens are drawn on this terminal: which glyphs, which colours, how many pictures."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from textual.filter import LineFilter, NoColor

from traces.errors import UserError
from tui.glyphs import AsciiOnly, Colours256
from tui.kitty import Slot

THEMES = {
    "dark": ("textual-dark", "ansi-dark"),
    "light": ("textual-light", "ansi-light"),
    "ansi": ("ansi-dark", "ansi-dark"),
}
"""Name to the theme of Textual, and to the one for terminals of 16 colours or none."""
PICTURES = ("auto", "blocks", "kitty")
"""How camera pictures are shown; auto: as kitty does where the terminal answers as kitty does."""
COERCED = ("C.UTF-8", "C.utf8", "UTF-8")
"""What Python itself makes of LC_CTYPE when the locale is C (PEP 538)."""
DENSITY = " .:-=+*#%@"
"""Characters from dark to bright, where a picture can have no colours."""


@dataclass(frozen=True)
class Look:
    """What the options ask for, or the environment where they do not say."""

    ascii: bool = False
    theme: str = "dark"
    low_bandwidth: bool = False
    few_colours: bool = False
    """Whether the terminal has sixteen colours or none."""
    kitty: bool = False
    """Whether it shows pictures by the kitty protocol."""

    @property
    def pictures_hz(self) -> float:
        """Pictures a second while an episode plays."""
        return 1.0 if self.low_bandwidth else 5.0

    def theme_name(self, no_color: bool) -> str:
        """Return the name of Textual's theme; few colours are the terminal's own."""
        many, few = THEMES[self.theme]
        return few if no_color or self.few_colours else many

    def density(self, no_color: bool) -> str:
        """Return the characters of a picture from dark to bright; empty for half blocks."""
        if not (self.ascii or no_color):
            return ""
        return DENSITY[::-1] if self.theme == "light" else DENSITY

    def slot(self, place: int, color_system: str | None) -> Slot | None:
        """Return where the terminal keeps the picture of a place, if it shows pictures.

        Args:
            place: of the picture among all that may be seen at once, from 0.
            color_system: Rich's name for the colours that are written.
        """
        if not self.kitty or self.density(color_system is None):
            return None
        return Slot.of(17 + place, self.low_bandwidth or color_system != "truecolor")

    def filters(self, no_color: bool) -> list[LineFilter]:
        """Return what every line passes after Textual's own filters."""
        found: list[LineFilter] = [AsciiOnly()] if self.ascii else []
        if no_color:
            return [*found, NoColor()]
        return [*found, Colours256()] if self.low_bandwidth else found


def theme_named(asked: str | None) -> str:
    """Return the theme that the option or VLA_TUI_THEME names, else the dark one.

    Raises:
        UserError: there is no such theme.
    """
    name = asked or os.environ.get("VLA_TUI_THEME") or "dark"
    if name not in THEMES:
        whence = "--theme" if asked else "VLA_TUI_THEME"
        raise UserError(f"{whence} {name}: no such theme; there are {', '.join(THEMES)}")
    return name


def checked_pictures(asked: str) -> None:
    """Refuse another way to show pictures than there are.

    Raises:
        UserError: it is one.
    """
    if asked not in PICTURES:
        raise UserError(f"--pictures {asked}: no such way; there are {', '.join(PICTURES)}")


def has_few_colours() -> bool:
    """Tell whether this terminal has sixteen colours or none, by TERM and COLORTERM."""
    return Console(force_terminal=True).color_system in (None, "standard")


def shows_only_ascii(environ: Mapping[str, str]) -> bool:
    """Tell whether glyphs beyond ASCII are unsafe: another encoding, or the Linux console.

    What the locale is called says more of the terminal than what this machine makes of the name:
    over SSH it often is one that is not installed here.  No name at all says nothing.
    """
    if environ.get("TERM") == "linux":  # its font has 256 or 512 glyphs, braille is not among them
        return True
    ctype, lang = environ.get("LC_CTYPE", ""), environ.get("LANG", "")
    named = environ.get("LC_ALL") or (lang if ctype in COERCED else "") or ctype or lang
    return bool(named) and "utf8" not in named.lower().replace("-", "")

"""The keys of a screen, made from its bindings."""

from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen, Screen

from tui.widgets.keys import key, key_names
from tui.widgets.lines import Line, TextLines, pad

KEYS_WIDTH = 18
TOGETHER = {"go": "places", "share": "here", "pane": "here"}
"""First parts of ids whose keys share a line, and which."""


def bindings_of(screen: Screen, kind: type[Screen] | None = None) -> list[Binding]:
    """Return the bindings of a screen and the application in force, the screen's own first.

    Args:
        screen: one of the application.
        kind: another screen, whose bindings are wanted.
    """
    found: list[Binding] = []
    for owner in (*(kind or type(screen)).__mro__, *type(screen.app).__mro__):
        if owner.__module__.startswith("tui."):
            found += [b for b in vars(owner).get("BINDINGS", ()) if isinstance(b, Binding)]
    return [replace(b, key=screen.app.keymap.get(b.id, b.key)) for b in found]


def key_for(screen: Screen, id: str, kind: type[Screen] | None = None) -> str:
    """Return the first key in force of an action, for a sentence that names it."""
    return next(key_names(b)[0] for b in bindings_of(screen, kind) if b.id == id)


def help_lines(bindings: list[Binding]) -> list[Line]:
    """Return one line per action; places share one, and so do panes, copy and export."""
    lines: dict[str, list[Binding]] = {}
    for binding in bindings:
        group = (binding.id or "").partition(".")[0]
        lines.setdefault(TOGETHER.get(group, binding.action), []).append(binding)
    return [
        (
            (pad("  ".join(name for b in alike for name in key_names(b)), KEYS_WIDTH), "accent"),
            (
                ", ".join(b.description for b in alike)
                if name in TOGETHER.values()
                else alike[0].tooltip,
                "",
            ),
        )
        for name, alike in lines.items()
    ]


class HelpScreen(ModalScreen[None]):
    """A list of keys over the screen it explains."""

    BINDINGS: ClassVar[list[BindingType]] = [
        key("help.close", "escape,enter,?", "app.help", "close", "close this help"),
        key("help.down", "j,down,pagedown", "scroll(1)", "down", "further down", show=False),
        key("help.up", "k,up,pageup", "scroll(-1)", "up", "back up", show=False),
        key("help.quit", "q", "app.quit", "quit", "leave; runs go on"),
    ]

    def __init__(self, explained: Screen) -> None:
        super().__init__()
        self._lines = help_lines(bindings_of(explained))
        self._top = 0

    def compose(self) -> ComposeResult:
        """Lay out one list."""
        yield TextLines(id="help")

    def on_mount(self) -> None:
        """Give the list the height of what it holds."""
        text = self.query_one(TextLines)
        text.styles.height = len(self._lines) + 2
        text.border_title = "keys"

    def on_text_lines_resized(self) -> None:
        """Show what fits."""
        text = self.query_one(TextLines)
        fitting = text.size.height
        self._top = max(0, min(self._top, len(self._lines) - fitting))
        more = len(self._lines) > fitting
        down, up, close = (key_for(self, f"help.{name}") for name in ("down", "up", "close"))
        text.border_subtitle = f"{down} {up}: more   {close} closes" if more else f"{close} closes"
        text.show(self._lines[self._top : self._top + fitting])

    def action_scroll(self, pages: int) -> None:
        """Show the lines that did not fit."""
        self._top += pages * self.query_one(TextLines).size.height
        self.on_text_lines_resized()

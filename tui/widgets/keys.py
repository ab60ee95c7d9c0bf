"""The line of keys at the bottom, and the names of keys; both made from the bindings."""

from collections.abc import Iterable

from rich.cells import cell_len
from textual.binding import Binding

from tui.widgets.lines import Span, TextLines, fit

NAMES = {
    "question_mark": "?",
    "slash": "/",
    "comma": ",",
    "full_stop": ".",
    "colon": ":",
    "exclamation_mark": "!",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "escape": "esc",
    "pageup": "pgup",
    "pagedown": "pgdn",
    "plus": "+",
    "underscore": "_",
}


def key(
    id: str, keys: str, action: str, description: str, tooltip: str, *, show: bool = True
) -> Binding:
    """Return a binding that the keymap file may change by its id, such as "runs.open"."""
    return Binding(keys, action, description, show=show, tooltip=tooltip, id=id)


def key_names(binding: Binding) -> list[str]:
    """Return the keys of a binding as printed on a keyboard."""
    return [NAMES.get(key, key) for key in binding.key.split(",")]


class KeyLine(TextLines):
    """Keys of the bindings marked `show`; or a message, until something else is said."""

    def __init__(self, bindings: Iterable[Binding]) -> None:
        super().__init__(id="keys")
        self._hints = [(key_names(b)[0], b.description) for b in bindings if b.show]
        self._message: Span | None = None

    def say(self, text: str = "", style: str = "warn") -> None:
        """Show a message in place of the keys; an empty one brings the keys back."""
        message = (f" {text}", style) if text else None
        if message != self._message:
            self._message = message
            self._draw()

    def on_mount(self) -> None:
        """Draw the keys."""
        self._draw()

    def on_text_lines_resized(self) -> None:
        """Fit the keys into the new width."""
        self._draw()

    def _draw(self) -> None:
        if not self.size.width:  # not laid out yet
            return
        if self._message:
            text, style = self._message
            self.show([[(fit(text, self.size.width), style)]])
            return
        hints = list(self._hints)
        while len(hints) > 1 and self._length(hints) > self.size.width:
            # The last two (help and quit) are kept longest.
            hints.pop(-3 if len(hints) > 2 else 0)
        spans: list[Span] = []
        for key, text in hints:
            spans += [(" ", ""), (key, "accent"), (f" {text} ", "")]
        self.show([spans])

    @staticmethod
    def _length(hints: list[tuple[str, str]]) -> int:
        return sum(3 + cell_len(key) + cell_len(text) for key, text in hints)

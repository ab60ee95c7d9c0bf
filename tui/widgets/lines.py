"""Lines of styled text that repaint only where they differ from what is on the screen."""

from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

Span = tuple[str, str]
"""Text and the name of its style: "" (plain) or one of `STYLES`."""
Line = tuple[Span, ...]

STYLES = ("accent", "bad", "bold", "cursor", "dim", "good", "mark", "title", "warn")
ELLIPSIS = "…"


def fit(text: str, width: int) -> str:
    """Cut a text to a width in cells, marking the cut with an ellipsis."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1) + ELLIPSIS if width > 0 else ""


def fit_tail(text: str, width: int) -> str:
    """Cut a text at its front: the end of a path says most."""
    while cell_len(text) > width > 0:
        text = ELLIPSIS + text[2:] if text.startswith(ELLIPSIS) else ELLIPSIS + text[1:]
    return text


def pad(text: str, width: int, right: bool = False) -> str:
    """Cut or fill a text to exactly `width` cells."""
    text = fit(text, width)
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def wrap(text: str, width: int, limit: int = 99) -> list[str]:
    """Break a text at spaces into lines of at most `width` cells; the rest after `limit` is cut."""
    lines: list[str] = []
    current = ""
    for word in text.split(" "):
        joined = f"{current} {word}" if current else word
        if current and cell_len(joined) > width:
            lines.append(current)
            current = word
        else:
            current = joined
    lines.append(current)
    if len(lines) > limit:
        lines[limit - 1 :] = [" ".join(lines[limit - 1 :])]
    return [fit(line, width) for line in lines]


class LineWidget(Widget):
    """A widget drawn line by line, with the named styles of `STYLES`."""

    COMPONENT_CLASSES = {f"lines--{name}" for name in STYLES}  # noqa: RUF012

    def style_of(self, name: str) -> Style:
        """Return a style by name; plain text for the empty name."""
        return self.get_component_rich_style(f"lines--{name}") if name else self.rich_style

    def strip(self, spans: Iterable[Span], base: str = "") -> Strip:
        """Return one line of the widget's width; `base` styles plain spans and the rest."""
        segments = [Segment(text, self.style_of(name or base)) for text, name in spans if text]
        return Strip(segments).adjust_cell_length(self.size.width, self.style_of(base))

    def refresh_line(self, y: int) -> None:
        """Repaint one line."""
        self.refresh(Region(0, y, self.size.width, 1))


class TextLines(LineWidget):
    """Shows a list of lines from the top."""

    class Resized(Message):
        """There is another width to fit the lines into."""

        def can_replace(self, message: Message) -> bool:
            """Only the latest matters."""
            return isinstance(message, TextLines.Resized)

    def __init__(self, *, id: str, classes: str = "") -> None:
        super().__init__(id=id, classes=classes)
        self._lines: list[Line] = []

    def show(self, lines: Sequence[Sequence[Span]]) -> None:
        """Replace the lines; equal ones are not repainted."""
        old, self._lines = self._lines, [tuple(line) for line in lines]
        for y in range(max(len(old), len(self._lines))):
            if self._at(old, y) != self._at(self._lines, y):
                self.refresh_line(y)

    def on_resize(self) -> None:
        """Ask for lines that fit."""
        self.post_message(self.Resized())

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        return self.strip(self._at(self._lines, y))

    @staticmethod
    def _at(lines: list[Line], y: int) -> Line:
        return lines[y] if y < len(lines) else ()

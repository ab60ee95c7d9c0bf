"""Partial updates of the screen, cut to what changed.

Textual 8.2 writes every changed span from the left edge of its widget: a cursor that moves through
a wide chart would send the whole chart twice.
"""

from rich.console import Console
from rich.control import Control
from textual._compositor import ChopsUpdate


class CutUpdate(ChopsUpdate):
    """The cells of the spans, and no others."""

    @classmethod
    def of(cls, update: ChopsUpdate) -> "CutUpdate":
        """Return the same update, cut."""
        return cls(update.chops, update.spans, update.chop_ends)

    def render_segments(self, console: Console) -> str:
        """Return what is written to the terminal."""
        written: list[str] = []
        for y, first, stop in self.spans:
            for (x, strip), end in zip(self.chops[y].items(), self.chop_ends[y], strict=False):
                left, right = max(x, first), min(end, stop)
                if strip is not None and left < right:
                    written.append(Control.move_to(left, y).segment.text)
                    written.append(strip.crop(left - x, right - x).render(console))
        return "".join(written)

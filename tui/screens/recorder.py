"""What a recording that was started from the Neurons screen says while it runs."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import Screen

from tui.data.recorder import Recorder
from tui.screens.help import bindings_of, key_for
from tui.widgets.keys import KeyLine, key
from tui.widgets.lines import Span, TextLines, wrap


class RecorderScreen(Screen[None]):
    """The end of its output, whether it runs, and the key that stops it."""

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        key("recording.stop", "x", "stop", "stop", "ask the recording to stop, as ctrl-c would"),
        key("recording.back", "escape,enter", "leave", "back", "back to the neurons; it goes on"),
    ]

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def compose(self) -> ComposeResult:
        """Lay out one text between a title and the keys."""
        yield TextLines(id="title")
        yield TextLines(id="output")
        yield KeyLine(bindings_of(self))

    def on_mount(self) -> None:
        """Show what there is."""
        self.looked()

    def looked(self) -> None:
        """Read its output again; the application calls this when it looked at the folder."""
        if not (self.is_mounted and self.query("#output")):
            return
        self.query_one("#title", TextLines).show(
            [[(" Neurons > recording ", "dim"), *recorder_state(self._recorder)]]
        )
        output = self.query_one("#output", TextLines)
        width, height = output.content_size
        lines: list[list[Span]] = [
            [(text, "accent")] for text in wrap(f"$ {self._recorder.command}", max(width, 20), 3)
        ]
        if self._recorder.code is None:
            after = "it goes on when you leave; its run appears in Runs"
        else:
            back = key_for(self, "recording.back")
            after = f"{back}: back; its run is in Runs, its effect in Neurons"
        lines.append([(after, "dim")])
        lines.append([])
        for said in self._recorder.tail(height):
            lines += [[(text, "")] for text in wrap(said, max(width, 20), 4)]
        output.show([*lines[:3], *lines[3:][-max(0, height - 3) :]] if height else lines)

    def runs_read(self) -> None:
        """Its output may go on while runs change."""
        self.looked()

    def on_text_lines_resized(self) -> None:
        """Fit the texts."""
        self.looked()

    def action_stop(self) -> None:
        """Ask it to stop."""
        if self._recorder.code is None:
            self._recorder.stop()
            self.query_one(KeyLine).say("asked it to stop; finished episodes stay")

    def action_leave(self) -> None:
        """Leave it running."""
        self.dismiss()


def recorder_state(recorder: Recorder) -> list[Span]:
    """Return whether it runs, in glyph and word, and for how long."""
    took = f" {int(recorder.seconds) // 60}:{int(recorder.seconds) % 60:02d}"
    if recorder.code is None:
        return [("● running", "good"), (took, "")]
    if recorder.code == 0:
        return [("○ finished", ""), (took, "")]
    if recorder.code in (130, -2):
        return [("○ stopped", "warn"), (took, "")]
    return [(f"✗ failed, exit {recorder.code}", "bad"), (took, "")]

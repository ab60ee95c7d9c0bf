"""Screens that show what takes time to read: one read at a time, the last wish wins."""

from collections.abc import Callable, Hashable

from textual import work
from textual.message import Message

from tui.screens.sharing import SharingScreen
from tui.terminal import one_line
from tui.widgets.keys import KeyLine


class Loaded(Message):
    """What was asked for, or the sentence that says why it cannot be had."""

    def __init__(self, key: Hashable, content: object, error: str) -> None:
        super().__init__()
        self.key = key
        self.content = content
        self.error = error


class LoadingScreen(SharingScreen):
    """A screen with `load`; what arrives is kept, and handed to `content_arrived`."""

    KEPT = 64

    def __init__(self) -> None:
        super().__init__()
        self._contents: dict[Hashable, tuple[object, str]] = {}
        self._wanted: tuple[Hashable, Callable[[], object]] | None = None
        self._busy = False

    @property
    def drawable(self) -> bool:
        """Whether every widget is there: not before they are composed, nor once they are going."""
        return self.is_mounted and bool(self.query("#title")) and bool(self.query(KeyLine))

    def load(self, key: Hashable, read: Callable[[], object]) -> tuple[object, str] | None:
        """Return (content, error) if it is known; else read it on a thread and return None."""
        if key in self._contents:
            self._contents[key] = self._contents.pop(key)  # the least recently used one goes first
            return self._contents[key]
        self._wanted = key, read
        self._start()
        return None

    def _start(self) -> None:
        if self._wanted is not None and not self._busy:
            (key, read), self._wanted = self._wanted, None
            if key not in self._contents:
                self._busy = True
                self._read(key, read)

    @work(thread=True, exclusive=True, group="content")
    def _read(self, key: Hashable, read: Callable[[], object]) -> None:
        content, error = None, ""
        try:
            content = read()
        except Exception as fault:  # any file may be broken in any way; the screen stays
            error = one_line(fault) or type(fault).__name__
        self.post_message(Loaded(key, content, error))

    def on_loaded(self, message: Loaded) -> None:
        """Keep what arrived, show it, and start what was asked for meanwhile."""
        self._busy = False
        self._contents[message.key] = message.content, message.error
        while len(self._contents) > self.KEPT:
            del self._contents[next(iter(self._contents))]
        self.content_arrived()
        self._start()

    def paint(self) -> None:
        """Show what is known now; each screen has its own."""

    def content_arrived(self) -> None:
        """Show what was read."""
        self.paint()

    def runs_read(self) -> None:
        """Show what the application read."""
        self.paint()

    def on_text_lines_resized(self) -> None:
        """Fit the texts into the new size."""
        self.paint()

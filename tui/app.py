"""`vla-tui [FOLDER]`: the screens over runs and traces, and the one timer that keeps them fresh.

A thread reads the folder once a second and posts what it found; widgets repaint only the lines
that differ.  Nothing is written, and no file is locked or kept open.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen

from traces.errors import UserError
from tui.data.library import Library, checked_folder
from tui.data.model import Run
from tui.screens.help import HelpScreen
from tui.screens.runs import RunsScreen
from tui.terminal import Exit, one_line

POLL_S = 1.0


class VlaApp(App[None]):
    """Runs, their rollouts, and single episodes."""

    CSS_PATH = "vla.tcss"
    TITLE = "vla-tui"
    ENABLE_COMMAND_PALETTE = False
    ALLOW_SELECT = False
    HORIZONTAL_BREAKPOINTS: ClassVar = [(0, "-narrow"), (130, "-wide")]
    VERTICAL_BREAKPOINTS: ClassVar = [(0, "-low"), (22, "-tall")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("4", "neurons", show=False, tooltip="neurons of the policy, to accept and steer"),
        Binding("5", "compare", show=False, tooltip="two runs or conditions side by side"),
        Binding("r", "reload", "reload", tooltip="read every file again"),
        Binding("question_mark", "help", "help", tooltip="show or hide these keys"),
        Binding("q", "quit", "quit", tooltip="leave; runs go on"),
        Binding("ctrl+c,ctrl+q", "quit", show=False, priority=True, tooltip="leave, from anywhere"),
    ]

    class Read(Message):
        """The folder was read."""

        def __init__(self, runs: tuple[Run, ...], pending: int) -> None:
            super().__init__()
            self.runs = runs
            self.pending = pending

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        super().__init__()
        self.animation_level = "none"
        self.folder = folder
        self.clock = clock
        self.runs: tuple[Run, ...] = ()
        self.pending = 0
        self.loaded = False
        """Whether the folder was read at least once."""
        self._library = Library(folder)
        self._reading = False
        self._forget = False

    def get_default_screen(self) -> Screen:
        """Start with the list of runs."""
        return RunsScreen()

    def on_mount(self) -> None:
        """Begin to read, after the first frame."""
        self.call_after_refresh(self.poll)
        self.set_interval(POLL_S, self.poll)

    def poll(self) -> None:
        """Read the folder, unless a slow disk is still busy with the last time."""
        if not self._reading:
            self._reading = True
            self._read_folder()

    @work(thread=True, exclusive=True, group="library")
    def _read_folder(self) -> None:
        if self._forget:
            self._forget = False
            self._library.forget()
        runs = self._library.poll(self.clock())
        self.post_message(self.Read(runs, self._library.pending))

    def on_vla_app_read(self, message: Read) -> None:
        """Hand the runs to every open screen."""
        self._reading = False
        self.runs, self.pending, self.loaded = message.runs, message.pending, True
        for screen in self.screen_stack:
            if hasattr(screen, "runs_read"):
                screen.runs_read()
        if message.pending:
            self.poll()

    def run_of(self, key: str) -> Run | None:
        """Return a run by its key; None when its files are gone."""
        return next((run for run in self.runs if run.key == key), None)

    def action_reload(self) -> None:
        """Read every file again."""
        self._forget = True
        self.poll()

    def action_neurons(self) -> None:
        """Show the neurons; the screen keeps its filter, its marks and its recording."""
        from tui.screens.neurons import show_neurons

        show_neurons(self)

    def action_compare(self) -> None:
        """Compare the marked runs, or the conditions of the one at hand."""
        from tui.screens.compare import show_comparison

        show_comparison(self)

    def action_help(self) -> None:
        """Show the keys of the screen."""
        if isinstance(self.screen, HelpScreen):
            self.pop_screen()
        else:
            self.push_screen(HelpScreen(self.screen))


def make_app(folder: Path | str, clock: Callable[[], float] = time.time) -> VlaApp:
    """Return the application for a folder; `clock` gives seconds since 1970."""
    return VlaApp(Path(folder), clock)


def unfit_terminal() -> str:
    """Say why full screens cannot be drawn here; empty when they can."""
    if os.environ.get("TERM", "") in ("", "dumb"):
        return f"vla-tui cannot draw on TERM={os.environ.get('TERM', '')!r}"
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        return "vla-tui needs a terminal (its input, output or errors are redirected)"
    return ""


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="vla-tui", description="Watch runs and browse rollouts in the terminal."
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        help="where the runs and traces are (default: runs/ and traces/ here)",
    )
    try:
        folder, _ = checked_folder(parser.parse_args(args).folder)
        if why := unfit_terminal():
            raise UserError(f"{why}; use: vla-trace show FILE or vla-trace analyze FILES")
    except UserError as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        return Exit.USAGE
    app = make_app(folder)
    app.run()
    return app.return_code or Exit.OK


def main() -> None:
    """Entry point of the `vla-tui` script."""
    sys.exit(run())

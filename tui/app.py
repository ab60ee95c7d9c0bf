"""`vla-tui [FOLDER]`: the screens over runs and traces, and the one timer that keeps them fresh.

A thread looks at the folder once a second and posts what it found.  Screens paint when something
is new, and once a minute for the times they tell: while no file changes, the terminal gets nothing.
No file is written, locked or kept open.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.console import RenderableType
from textual import work
from textual._compositor import ChopsUpdate
from textual._styles_cache import StylesCache
from textual.app import App
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.filter import LineFilter
from textual.message import Message
from textual.screen import ModalScreen, Screen

from traces.errors import UserError
from tui.data import apart
from tui.data.library import Library, checked_folder
from tui.data.model import Run
from tui.keymap import Keymap, keymap_path, keys_text, read_keymap
from tui.kitty import shows_pictures
from tui.look import Look, checked_pictures, has_few_colours, shows_only_ascii, theme_named
from tui.partial import CutUpdate
from tui.places import PLACES
from tui.screens.choice import ChoiceScreen
from tui.screens.help import HelpScreen, bindings_of
from tui.screens.runs import RunsScreen
from tui.terminal import Exit, one_line
from tui.widgets.keys import KeyLine, key, key_names
from tui.widgets.table import Column, Row

if TYPE_CHECKING:
    from tui.widgets.frame import Frame

POLL_S = 1.0
"""Between two looks at the folder, at least."""
REST_S = 5.0
"""Between two looks at a large or slow folder in which nothing changes, at most."""
AT_REST = 0.005
"""Share of the time that may be spent on looking while nothing changes."""
MINUTE_S = 60.0


class VlaApp(App[None]):
    """Runs, their rollouts, and single episodes."""

    CSS_PATH = "vla.tcss"
    TITLE = "vla-tui"
    ENABLE_COMMAND_PALETTE = False
    ALLOW_SELECT = False
    HORIZONTAL_BREAKPOINTS: ClassVar = [(0, "-narrow"), (130, "-wide")]
    VERTICAL_BREAKPOINTS: ClassVar = [(0, "-low"), (22, "-tall"), (34, "-high")]
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            key(f"go.{place}", str(i), f"go('{place}')", place, f"go to the screen {place}")
            for i, place in enumerate(PLACES, start=1)
        ),
        key("app.commands", ":,ctrl+p", "palette", "commands", "find a command by its words"),
        key("app.reload", "r", "reload", "reload", "read every file again"),
        key("app.help", "?", "help", "help", "show or hide these keys"),
        key("app.quit", "q", "quit", "quit", "leave; runs go on"),
        Binding(
            "ctrl+c,ctrl+q",
            "quit",
            show=False,
            priority=True,
            tooltip="leave, from anywhere",
            id="app.leave",
        ),
    ]

    class Read(Message):
        """The folder was read."""

        def __init__(self, runs: tuple[Run, ...], pending: int, took_s: float) -> None:
            super().__init__()
            self.runs = runs
            self.pending = pending
            self.took_s = took_s

    def __init__(
        self, folder: Path, clock: Callable[[], float], look: Look, keymap: Keymap
    ) -> None:
        super().__init__()
        self.animation_level = "none"
        self.folder = folder
        self.clock = clock
        self.look = look
        self.keymap = keymap
        """Keys that are not the usual ones, by id."""
        self.set_keymap(keymap)
        self.theme = look.theme_name(self.no_color)
        self._look_filters = look.filters(self.no_color)
        self.runs: tuple[Run, ...] = ()
        self.pending = 0
        self.loaded = False
        """Whether the folder was read at least once."""
        self._library = Library(folder)
        self._reading = False
        self._forget = False
        self._greeted = False
        """Whether a training that runs was shown, or need not be."""
        self._told = 0.0
        """Time of the clock when screens were last told of the runs."""
        self._rests_until = 0.0

    def frame(self, id: str, place: int) -> "Frame":
        """Return a widget for pictures as this terminal shows them; each has a place of its own."""
        from tui.widgets.frame import Frame

        density = self.look.density(self.no_color)
        system = None if self.no_color else self.console.color_system
        return Frame(id=id, density=density, slot=self.look.slot(place, system))

    def get_line_filters(self) -> list[LineFilter]:
        """Return what every line passes before it is written to the terminal."""
        own = [] if self.no_color else super().get_line_filters()
        return [*own, *self._look_filters]

    def _display(self, screen: Screen, renderable: RenderableType | None) -> None:
        """Write an update, a partial one cut to what changed."""
        if isinstance(renderable, ChopsUpdate):
            renderable = CutUpdate.of(renderable)
        super()._display(screen, renderable)

    def get_default_screen(self) -> Screen:
        """Start with the list of runs."""
        return RunsScreen()

    def on_mount(self) -> None:
        """Begin to read, after the first frame."""
        self.call_after_refresh(self.poll)
        self.set_interval(POLL_S, self._look_again)

    def pop_screen(self) -> AwaitComplete:
        """Leave a screen and let its lines go, to which a cache of Textual 8.2 would hold on."""
        StylesCache.get_inner_outer.cache_clear()  # of a method: it keeps the instances
        return super().pop_screen()

    def on_unmount(self) -> None:
        """Wait for no answer."""
        apart.close()

    def _look_again(self) -> None:
        if time.monotonic() >= self._rests_until:
            self.poll()

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
        began = time.monotonic()
        runs = self._library.poll(self.clock())
        self.post_message(self.Read(runs, self._library.pending, time.monotonic() - began))

    def on_vla_app_read(self, message: Read) -> None:
        """Tell the screen that is seen, below a list that is open over it, whether runs changed.

        Those further down catch up when they are seen again: Textual would paint what is above
        them whenever they change.
        """
        self._reading = False
        changed = not self.loaded or self._differs(message)
        rest_s = 0.0 if changed else min(REST_S, message.took_s / AT_REST)
        self._rests_until = time.monotonic() + rest_s
        self.runs, self.pending, self.loaded = message.runs, message.pending, True
        news = changed or abs(self.clock() - self._told) >= MINUTE_S
        if news:
            self._told = self.clock()
        for screen in reversed(self.screen_stack):
            tell = getattr(screen, "runs_read" if news else "looked", None)
            if tell is not None:
                tell()
            if not isinstance(screen, ModalScreen):
                break
        self._greet()
        if message.pending:
            self.poll()

    def _differs(self, read: Read) -> bool:
        """Whether there is another run, or one changed: one that did not is the same object."""
        same = [*map(id, read.runs)] == [*map(id, self.runs)]
        return not same or read.pending != self.pending

    def _greet(self) -> None:
        """Begin with the training that runs, if somebody waits at the list of runs for it."""
        if self._greeted or len(self.screen_stack) > 1:
            return
        self._greeted = not self.pending
        if any(run.training and run.state == "running" for run in self.runs):
            self._greeted = True
            self.action_go("live")

    def run_of(self, key: str) -> Run | None:
        """Return a run by its key; None when its files are gone."""
        return next((run for run in self.runs if run.key == key), None)

    @property
    def run_in_view(self) -> Run | None:
        """The run that the topmost screen is about."""
        keys = (getattr(screen, "run_key", None) for screen in reversed(self.screen_stack))
        return next((run for key in keys if key and (run := self.run_of(key))), None)

    def action_go(self, place: str) -> None:
        """Go to one of the five screens, or say why there is nothing to show."""
        if getattr(self.screen, "PLACE", "") != place:
            PLACES[place](self)

    def say(self, text: str, style: str = "warn") -> None:
        """Say something in the line of keys."""
        for line in self.screen.query(KeyLine):
            line.say(text, style)

    def action_palette(self) -> None:
        """Offer every command of the screen, found by its words."""
        screen = self.screen
        bindings = [b for b in bindings_of(screen) if b.action != "palette"]
        columns = (Column("command", least=20), Column("key"), Column("in full", least=20, rank=2))
        rows = [
            Row(b, ((b.description, "bold"), ("  ".join(key_names(b)), "accent"), (b.tooltip, "")))
            for b in bindings
        ]

        async def run_command(chosen: object) -> None:
            if isinstance(chosen, Binding):
                name = chosen.action.partition("(")[0]
                owner = screen if hasattr(screen, f"action_{name}") else self
                await self.run_action(chosen.action, default_namespace=owner)

        self.push_screen(ChoiceScreen("commands", columns, rows, typing=True), run_command)

    def action_reload(self) -> None:
        """Read every file again."""
        self._forget = True
        self.poll()

    def action_help(self) -> None:
        """Show the keys of the screen."""
        if isinstance(self.screen, HelpScreen):
            self.pop_screen()
        else:
            self.push_screen(HelpScreen(self.screen))


def make_app(
    folder: Path | str,
    clock: Callable[[], float] = time.time,
    look: Look | None = None,
    keymap: Keymap | None = None,
) -> VlaApp:
    """Return the application for a folder; `clock` gives seconds since 1970."""
    return VlaApp(Path(folder), clock, look or Look(), keymap or {})


def unfit_terminal() -> str:
    """Say why full screens cannot be drawn here; empty when they can."""
    if os.environ.get("TERM", "") in ("", "dumb"):
        return f"vla-tui cannot draw on TERM={os.environ.get('TERM', '')!r}"
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        return "vla-tui needs a terminal (its input, output or errors are redirected)"
    return ""


def print_status(folder: Path, why: str) -> int:
    """Print how the run heard last is, where no screen can be drawn."""
    from tui.data.one_run import log_of
    from tui.status import status_lines

    sys.stderr.write(f"{why}; this is vla-trace status\n")
    try:
        text = "\n".join(status_lines(log_of(None, folder), time.time()))
    except UserError as error:
        text = one_line(error)
    sys.stdout.write(f"{text}\n")
    return Exit.OK


def options() -> argparse.ArgumentParser:
    """Return what the command line may say."""
    parser = argparse.ArgumentParser(
        prog="vla-tui", description="Watch runs and browse rollouts in the terminal."
    )
    add = parser.add_argument
    add(
        "folder",
        metavar="FOLDER",
        nargs="?",
        help="where the runs and traces are (default: runs/ and traces/ here)",
    )
    add(
        "--ascii",
        action=argparse.BooleanOptionalAction,
        help="no character beyond ASCII (the default where the locale is not UTF-8)",
    )
    add("--theme", metavar="dark|light|ansi", help="colours; ansi: the terminal's own 16")
    add("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    add("--low-bandwidth", action="store_true", help="256 colours, one picture a second")
    add(
        "--pictures",
        metavar="auto|blocks|kitty",
        default="auto",
        help="cameras as half blocks, or as pictures where the terminal shows them",
    )
    add("--keys", action="store_true", help="print the keys in force as a keymap file, and leave")
    return parser


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    given = options().parse_args(args)
    try:
        keymap = read_keymap(keymap_path(), VlaApp)
        if given.keys:
            sys.stdout.write(f"{keys_text(keymap, VlaApp)}\n")
            return Exit.OK
        theme = theme_named(given.theme)
        checked_pictures(given.pictures)
        folder, _ = checked_folder(given.folder)
        if why := unfit_terminal():
            return print_status(folder, why)
    except UserError as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        return Exit.USAGE
    only_ascii = shows_only_ascii(os.environ) if given.ascii is None else given.ascii
    kitty = shows_pictures(os.environ) if given.pictures == "auto" else given.pictures == "kitty"
    look = Look(only_ascii, theme, given.low_bandwidth, has_few_colours(), kitty)
    app = make_app(folder, look=look, keymap=keymap)
    app.run(mouse=not given.no_mouse)
    return app.return_code or Exit.OK


def main() -> None:
    """Entry point of the `vla-tui` script."""
    sys.exit(run())

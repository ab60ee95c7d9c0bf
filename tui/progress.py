"""Progress of a recording on stderr: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from tui.terminal import one_line

LINE_EVERY = 10  # episodes, where there is no terminal


class Progress:
    """Shows a run's events; a context manager."""

    def __init__(self, episodes: int):
        self._total, self._done, self._successes, self._in_phase = episodes, 0, 0, 0
        self._phase = ""
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("starting environments", total=episodes)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def on_event(self, kind: str, fields: dict) -> None:
        """Take one event of the run."""
        if kind == "phase":
            self._phase, self._successes, self._in_phase = fields["name"], 0, 0
        if kind == "episode":
            self._done += 1
            self._in_phase += 1
            self._successes += fields["success"]
        if kind == "alert":
            click.echo(f"{fields['level']}: {one_line(fields['text'])}", err=True)
        if kind in ("phase", "episode"):
            self._show()

    def _show(self) -> None:
        text = f"{one_line(self._phase)}: {self._successes}/{self._in_phase} succeeded"
        self._bar.update(self._task, completed=self._done, description=text)
        at_a_line = self._in_phase and (self._done % LINE_EVERY == 0 or self._done == self._total)
        if self._bar.disable and at_a_line:
            click.echo(f"{self._done}/{self._total} episodes, {text}", err=True)


@contextmanager
def counting(what: str, total: int, done: int = 0) -> Iterator[Callable[[int, str], None]]:
    """Show how far something is: yields a function of how much is done, and what to say of it."""
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    task = bar.add_task(what, total=total, completed=done)

    def show(done: int, text: str) -> None:
        bar.update(task, completed=done, description=f"{what}: {one_line(text)}")
        if bar.disable and (done % LINE_EVERY == 0 or done == total):
            click.echo(f"{what}: {done}/{total}, {one_line(text)}", err=True)

    with bar:
        yield show

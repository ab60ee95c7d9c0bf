"""The five screens that the keys 1 to 5 open from anywhere, about the run that is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.screen import Screen

if TYPE_CHECKING:
    from tui.app import VlaApp


def go_to_runs(app: VlaApp) -> None:
    """Close everything over the list of runs."""
    while len(app.screen_stack) > 1:
        app.pop_screen()


def show(app: VlaApp, screen: Screen) -> None:
    """Put a screen over the list of runs, in place of what was there."""
    go_to_runs(app)
    app.push_screen(screen)


def go_to_live(app: VlaApp) -> None:
    """Show the training that is looked at, else one that runs, else the newest."""
    from tui.screens.live import LiveScreen

    seen = app.run_in_view
    if seen is None or seen.training is None:
        trainings = [run for run in app.runs if run.training is not None]
        running = [run for run in trainings if run.state == "running"]
        seen = next(iter(running or trainings), None)
    if seen is None:
        app.say("no training run here; vla-trace train begins one")
    else:
        show(app, LiveScreen(seen.key))


def go_to_rollouts(app: VlaApp) -> None:
    """Show the episodes of the run that is looked at."""
    from tui.screens.rollouts import RolloutsScreen

    if app.run_in_view is None:
        app.say("no run here; vla-trace record makes one")
    else:
        show(app, RolloutsScreen(app.run_in_view.key))


def go_to_neurons(app: VlaApp) -> None:
    """Show the neurons, or the features that were shown in their place."""
    from tui.screens.neuron_tabs import show_neurons

    show_neurons(app)


def go_to_compare(app: VlaApp) -> None:
    """Compare the marked runs, or the conditions of the one at hand."""
    from tui.screens.compare import show_comparison

    show_comparison(app)


PLACES: dict[str, Callable[[VlaApp], None]] = {
    "runs": go_to_runs,
    "live": go_to_live,
    "rollouts": go_to_rollouts,
    "neurons": go_to_neurons,
    "compare": go_to_compare,
}
"""In the order of their keys."""

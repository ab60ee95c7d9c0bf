"""The five screens that the keys 1 to 5 open from anywhere, about the run that is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.screen import Screen

if TYPE_CHECKING:
    from tui.app import VlaApp

PLACES = ("runs", "live", "rollouts", "neurons", "compare")
"""In the order of their keys."""


def open_place(app: VlaApp, place: str) -> Screen | str | None:
    """Return the screen to show over the runs, why there is none, or None for the runs alone."""
    return {
        "runs": lambda app: None,
        "live": _live,
        "rollouts": _rollouts,
        "neurons": lambda app: "no neurons to show; vla-trace neurons lists those of a policy",
        "compare": lambda app: "nothing to compare; vla-trace analyze FILES does it for traces",
    }[place](app)


def _live(app: VlaApp) -> Screen | str:
    from tui.screens.live import LiveScreen

    seen = app.run_in_view
    if seen is None or seen.training is None:
        trainings = [run for run in app.runs if run.training is not None]
        running = [run for run in trainings if run.state == "running"]
        seen = next(iter(running or trainings), None)
    return LiveScreen(seen.key) if seen else "no training run here; vla-trace train begins one"


def _rollouts(app: VlaApp) -> Screen | str:
    from tui.screens.rollouts import RolloutsScreen

    if app.run_in_view is None:
        return "no run here; vla-trace record makes one"
    return RolloutsScreen(app.run_in_view.key)

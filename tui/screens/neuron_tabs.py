"""Neurons and features are two lists in one place: one of them is open at a time."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.app import App
    from textual.screen import Screen

TABS = ("neurons", "features")


def show_neurons(app: "App") -> None:
    """Bring the list that is open to the front, else that of the neurons."""
    screen = next((tab for tab in map(app.get_screen, _made(app)) if tab in app.screen_stack), None)
    if screen is None:
        app.push_screen(_tab(app, TABS[0]))
    else:
        while app.screen is not screen:
            app.pop_screen()


def switch_tab(app: "App", name: str) -> None:
    """Put one list in the place of the other."""
    app.switch_screen(_tab(app, name))


def _made(app: "App") -> list[str]:
    return [name for name in TABS if app.is_screen_installed(name)]


def _tab(app: "App", name: str) -> "Screen":
    """Return the one screen of that name, which keeps its filter, its marks and its recording."""
    if not app.is_screen_installed(name):
        from tui.screens.features import FeaturesScreen
        from tui.screens.neurons import NeuronsScreen

        app.install_screen({"neurons": NeuronsScreen, "features": FeaturesScreen}[name](), name)
    return app.get_screen(name)

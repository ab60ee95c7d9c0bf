"""Panes of a screen: one of them is chosen, and may have the whole window."""

from typing import ClassVar

from textual.binding import BindingType
from textual.screen import Screen
from textual.widget import Widget

from tui.screens.help import key_for
from tui.widgets.keys import KeyLine, key


class PaneScreen(Screen[None]):
    """A screen whose `PANES` can be chosen, by key or click, and enlarged."""

    PANES: ClassVar[dict[str, str]] = {}
    """Id of a widget to what it shows."""
    ALLOW_IN_MAXIMIZED_VIEW = "#title, #filter, #ask, #keys"
    ESCAPE_TO_MINIMIZE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        key("pane.zoom", "+", "zoom_pane", "zoom", "the chosen pane large, or not", show=False),
        key("pane.all", "_", "all_panes", "all panes", "every pane again", show=False),
        key("pane.next", "tab", "next_pane", "next pane", "choose the next pane", show=False),
    ]

    @property
    def panes(self) -> list[Widget]:
        """Those that show anything, in their order."""
        shown = {widget.id: widget for widget in self.focus_chain}
        return [shown[id] for id in self.PANES if id in shown]

    def on_mount(self) -> None:
        """Let a click choose a pane."""
        for widget in self.query(",".join(f"#{id}" for id in self.PANES)):
            widget.can_focus = True

    def action_next_pane(self) -> None:
        """Choose the next pane; where one is large, that one is large instead."""
        panes, large = self.panes, self.maximized is not None
        if not panes:
            return
        at = panes.index(self.focused) if self.focused in panes else -1
        self.minimize()
        self.set_focus(panes[(at + 1) % len(panes)])
        if large:
            self.action_zoom_pane()
        else:
            self._tell("{pane}: {zoom} gives it the window")

    def action_zoom_pane(self) -> None:
        """Give the chosen pane the window, the first one where none is chosen; or give it back."""
        if self.maximized is not None:
            self.minimize()
        elif panes := self.panes:
            if self.focused not in panes:
                self.set_focus(panes[0])
            self.maximize(self.focused, container=False)
            self._tell("{pane}; {zoom} brings the other panes back, {next} shows the next one")

    def action_all_panes(self) -> None:
        """Show every pane."""
        self.minimize()

    def watch_maximized(self, before: Widget | None, large: Widget | None) -> None:
        """Take back what was said about a pane that was large."""
        if before is not None and large is None:
            self.query_one(KeyLine).say()

    def leave_hidden(self) -> None:
        """Show every pane if the large one has nothing to show any more."""
        if self.maximized is not None and not self.maximized.display:
            self.minimize()

    def _tell(self, text: str) -> None:
        keys = {name: key_for(self, f"pane.{name}") for name in ("zoom", "next")}
        self.query_one(KeyLine).say(text.format(pane=self.PANES[self.focused.id], **keys), "accent")

"""Neurons: look through them, choose a cluster by hand, save it, steer with it."""

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import BindingType
from textual.widgets import Input

from traces.errors import UserError
from tui.data import draft
from tui.data.neuron_filter import concept_of
from tui.data.recorder import Recorder
from tui.screens.help import key_for
from tui.screens.neuron_list import NeuronList
from tui.screens.neuron_rows import SORTS, Order
from tui.screens.recorder import RecorderScreen, recorder_state
from tui.terminal import one_line
from tui.widgets.keys import KeyLine, key
from tui.widgets.lines import Span

if TYPE_CHECKING:
    from pathlib import Path

    from textual.app import App

NAME = "neurons"


class NeuronsScreen(NeuronList):
    """The list of neurons with its keys, and the cluster that is being built."""

    PLACE = "neurons"
    CLEAR = "neurons.back"
    BINDINGS: ClassVar[list[BindingType]] = [
        key(
            "neurons.card", "enter", "card", "card", "the neuron's card (beside, in a wide window)"
        ),
        key("neurons.sort", "s", "sort(1)", "sort", "sort by the next column that knows anything"),
        key("neurons.reverse", "S", "reverse", "reverse", "the other way round", show=False),
        key("neurons.accept", "a", "mark(True)", "in", "accept into the cluster; again: no mark"),
        key("neurons.reject", "d", "mark(False)", "out", "reject from the cluster; again: no mark"),
        key("neurons.save", "w", "save", "save", "save the accepted ones as an intervention"),
        key(
            "neurons.record", "R", "record", "record", "steer them in a recording started from here"
        ),
        key("neurons.output", "o", "output", "output", "what that recording says", show=False),
        key("neurons.policy-before", "[", "policy(-1)", "policy", "policy before", show=False),
        key("neurons.policy-next", "]", "policy(1)", "policy", "next policy", show=False),
        key(
            "neurons.back",
            "escape",
            "back",
            "back",
            "close the card or the filter, or go back",
            show=False,
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._saved: tuple[dict, Path] | None = None
        """Marks that were saved, and where."""
        self._asked = ""
        """What the line to type into is for."""
        self._recorder: Recorder | None = None

    def title_spans(self) -> list[Span]:
        """Add the recording that was started from here."""
        spans = super().title_spans()
        if self._recorder is not None:
            spans += [("  ", ""), *recorder_state(self._recorder)]
        return spans

    def looked(self) -> None:
        """Show how long the recording runs."""
        super().looked()
        if self._recorder is not None and self.drawable:
            self.paint_title()

    def on_unmount(self) -> None:
        """Leave a recording to itself."""
        self._stop_listening()

    def action_card(self) -> None:
        """Show the card in place of the table, or the table again."""
        if not self.has_class("-wide"):
            self.minimize()
            self.toggle_class("-card")
            self.paint_preview()

    def action_sort(self, step: int) -> None:
        """Sort by the next column that knows anything, the largest first."""
        if self._neurons is None:
            return
        from tui.data.neurons import known_columns

        names = known_columns(self._neurons, SORTS)
        at = names.index(self._order.by) if self._order.by in names else -1
        name = names[(at + step) % len(names)]
        self._order = Order(name, descending=name != "layer")
        self.paint()
        self.table.move_to(0)

    def action_reverse(self) -> None:
        """Turn the order round."""
        self._order = Order(self._order.by, not self._order.descending)
        self.paint()
        self.table.move_to(0)

    def action_mark(self, accept: bool) -> None:
        """Accept or reject the neuron; the same key again takes the mark off."""
        place = self.place
        if place is None:
            return
        if self.marks.get(place) is accept:
            del self.marks[place]
        else:
            self.marks[place] = accept
        self.paint()

    def action_policy(self, by: int) -> None:
        """Show another policy's neurons."""
        if len(self._sources) > 1:
            known = [source.sha256 for source in self._sources]
            self._show_policy(known[(known.index(self._sha256) + by) % len(known)])
            self.paint()

    def action_back(self) -> None:
        """Close the question, the card or the filter; else leave."""
        if self.query_one("#ask", Input).has_class("-open"):
            self._close_question()
        elif self.has_class("-card"):
            self.action_card()
        elif not self.clear_filter():
            self.dismiss()

    # A cluster of one's own

    def action_save(self) -> None:
        """Ask for a name and a dose."""
        self._ask_name("save")

    def action_record(self) -> None:
        """Show the recording that runs; else ask for the command of a new one."""
        if self._recorder is not None and self._recorder.code is None:
            self.action_output()
        elif self._saved is not None and self._saved[0] == self.marks:
            self._ask_command(self._saved[1])
        else:
            self._ask_name("save, then record")

    def action_output(self) -> None:
        """Show what the recording says."""
        if self._recorder is not None:
            self.app.push_screen(RecorderScreen(self._recorder))

    def _ask_name(self, what: str) -> None:
        accepted = [place for place, kept in self.marks.items() if kept]
        if not accepted:
            accept = key_for(self, "neurons.accept")
            said = f"no neuron is accepted: {accept} accepts the one under the cursor"
            self.query_one(KeyLine).say(said)
            return
        concept = concept_of(self._terms) or "cluster"
        self._ask(what, f"{concept}-L{accepted[0][0]}-x{len(accepted)} {draft.ALPHA:g}")

    def _ask_command(self, path: "Path") -> None:
        run, policy = self.app.run_of(self._under), self.source.path
        self._ask("run", draft.record_command(path, self.app.folder, policy, run))

    def _ask(self, what: str, proposed: str) -> None:
        """Open a line to type into."""
        says = {"run": f"enter starts it, {key_for(self, 'neurons.back')} does not"}
        self._asked = what
        line = self.query_one("#ask", Input)
        line.value, line.cursor_position = proposed, len(proposed)
        line.add_class("-open")
        line.focus()
        self.query_one(KeyLine).say(says.get(what, f"{what}: name and dose; enter saves"), "accent")

    def _close_question(self) -> None:
        self.query_one("#ask", Input).remove_class("-open")
        self.query_one(KeyLine).say()
        self.set_focus(None)

    @on(Input.Submitted, "#ask")
    def _answered(self, message: Input.Submitted) -> None:
        """Do what was asked for; what is wrong with the answer is said, and it can be mended."""
        try:
            said = self._run(message.value) if self._asked == "run" else self._save(message.value)
        except (UserError, OSError) as error:
            self.query_one(KeyLine).say(one_line(error))
            self.query_one("#ask", Input).focus()
            return
        asked = self._asked
        self._close_question()
        self.query_one(KeyLine).say(said, "good")
        if asked == "save, then record":
            self._ask_command(self._saved[1])
        elif asked == "run":
            self.action_output()

    def _save(self, answer: str) -> str:
        name, alpha = draft.named_dose(answer)
        chosen = draft.cluster(name, alpha, self.marks, self._sha256)
        path = draft.save(chosen, draft.home_of(self.app.folder))
        self._saved = dict(self.marks), path
        return f"saved {one_line(path)}; {key_for(self, 'neurons.record')} records with it"

    def _run(self, command: str) -> str:
        recorder = Recorder(command, draft.home_of(self.app.folder))
        self._stop_listening()
        self._recorder = recorder
        return "recording; it goes on when you leave"

    def _stop_listening(self) -> None:
        if self._recorder is not None:
            self._recorder.close()


def show_neurons(app: "App") -> None:
    """Bring the one Neurons screen of the application to the front."""
    if not app.is_screen_installed(NAME):
        app.install_screen(NeuronsScreen(), NAME)
    screen = app.get_screen(NAME)
    if screen not in app.screen_stack:
        app.push_screen(screen)
    while app.screen is not screen:
        app.pop_screen()

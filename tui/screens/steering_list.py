"""A list of what can be steered: sorted, with cards; a choice is saved, and recorded with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.widgets import Input

from traces.errors import UserError
from tui.data import draft
from tui.data.model import Run
from tui.data.recorder import Recorder
from tui.screens.help import bindings_of, key_for
from tui.screens.list_screen import ListScreen
from tui.screens.order import Order
from tui.screens.recorder import RecorderScreen, recorder_state
from tui.terminal import one_line
from tui.widgets.keys import KeyLine, key
from tui.widgets.lines import Span, TextLines
from tui.widgets.table import Row, Table
from tui.widgets.virtual_table import VirtualTable

if TYPE_CHECKING:
    from traces.intervention import Intervention


class SteeringList(ListScreen):
    """What the lists of neurons and of features have in common."""

    PLACE = "neurons"
    CLEAR = "neurons.back"
    RISING: ClassVar[Sequence[str]] = ()
    """Columns that are sorted by the smallest first."""
    BINDINGS: ClassVar[list[BindingType]] = [
        key("neurons.card", "enter", "card", "card", "the card; of a feature, then its episodes"),
        key("neurons.sort", "s", "sort(1)", "sort", "sort by the next column that knows anything"),
        key("neurons.reverse", "S", "reverse", "reverse", "the other way round", show=False),
        key("neurons.save", "w", "save", "save", "save what is chosen as an intervention"),
        key("neurons.record", "R", "record", "record", "steer it in a recording started from here"),
        key("neurons.output", "o", "output", "output", "what that recording says", show=False),
        key(
            "neurons.policy-before",
            "[",
            "source(-1)",
            "before",
            "policy, or autoencoder, before",
            show=False,
        ),
        key(
            "neurons.policy-next",
            "]",
            "source(1)",
            "next",
            "next policy, or autoencoder",
            show=False,
        ),
        key(
            "neurons.back",
            "escape",
            "back",
            "back",
            "close the card or the filter, or go back",
            show=False,
        ),
    ]

    def __init__(self, order: Order) -> None:
        super().__init__()
        self._order = order
        self._under = ""
        """Key of the run from which this screen was opened."""
        self._taken: dict[str, object] = {}
        """Part of what is shown to what it was read from."""
        self._troubles: dict[str, str] = {}
        self._saved: tuple[object, Path] | None = None
        """The choice that was saved last, and where."""
        self._asked = ""
        """What the line to type into is for."""
        self._chosen: object = None
        """The choice that it is about."""
        self._recorder: Recorder | None = None

    def compose(self) -> ComposeResult:
        """Lay the widgets out; vla.tcss puts the card beside the table or in its place."""
        yield TextLines(id="title")
        yield TextLines(id="hint")
        with Container(id="body"):
            yield self.make_table()
            yield TextLines(id="preview")
        yield TextLines(id="legend")
        for id in ("filter", "ask"):
            line = Input(id=id, compact=True, select_on_focus=False)
            line.cursor_blink = False
            yield line
        yield KeyLine(bindings_of(self))

    def make_table(self) -> Table:
        """Return a table whose rows are made when they are drawn."""
        return VirtualTable(self.COLUMNS, id="table")

    # What a list says of itself

    def sortable(self) -> Sequence[str]:
        """Return the names of columns that can be sorted by now."""
        raise NotImplementedError

    def choice(self) -> object:
        """Return what an intervention would be made of now, which may be kept; None for nothing."""
        raise NotImplementedError

    def question(self) -> tuple[str, str]:
        """Return what is asked before it is saved, and a proposal; "" asks for a choice first."""
        raise NotImplementedError

    def drafted(self, choice: object, answer: str) -> "Intervention":
        """Return the intervention, on a thread; raises `UserError` where the answer will not do."""
        raise NotImplementedError

    def policy_path(self) -> str:
        """Return where the policy that is steered was loaded from; "" where that is unknown."""
        raise NotImplementedError

    # The list

    def filtered(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows as they are: the filter was asked already."""
        return rows

    def content_arrived(self) -> None:
        """Take up what arrived."""
        self.paint()

    def run_below(self) -> Run | None:
        """Return the run of the screen under this one if it is another one than before."""
        stack = self.app.screen_stack
        under = stack[stack.index(self) - 1] if self in stack else None
        run = getattr(under, "run_shown", None)
        if run is None or run.key == self._under:
            return None
        self._under = run.key
        return run

    def take(self, name: str, key: object, read: Callable[[], object]) -> object | None:
        """Return one part when it arrives; ask for it when the parts before it are there."""
        if self._taken.get(name) == key:
            return None
        known = self.load((name, key), read)
        if known is None:
            return None
        self._taken[name] = key
        self._contents.pop((name, key))
        content, self._troubles[name] = known
        return content

    @property
    def trouble(self) -> str:
        """What is wrong with any part."""
        return next(filter(None, self._troubles.values()), "")

    @property
    def shows_card(self) -> bool:
        """Whether there is a card to be seen."""
        return self.has_class("-wide") or self.has_class("-card")

    def action_card(self) -> None:
        """Show the card in place of the table, or the table again."""
        if not self.has_class("-wide"):
            self.minimize()
            self.toggle_class("-card")
            self.paint_preview()

    def action_sort(self, step: int) -> None:
        """Sort by the next column that knows anything."""
        names = self.sortable()
        if names:
            at = names.index(self._order.by) if self._order.by in names else -1
            name = names[(at + step) % len(names)]
            self._sort(Order(name, descending=name not in self.RISING))

    def action_reverse(self) -> None:
        """Turn the order round."""
        self._sort(Order(self._order.by, not self._order.descending))

    def _sort(self, order: Order) -> None:
        self._order = order
        self.paint()
        self.table.move_to(0)

    def action_back(self) -> None:
        """Close the question, the card or the filter; else leave."""
        if self.query_one("#ask", Input).has_class("-open"):
            self._close_question()
        elif self.has_class("-card"):
            self.minimize()
            self.remove_class("-card")
        elif not self.clear_filter():
            self.dismiss()

    # The intervention

    def action_save(self) -> None:
        """Ask for what an intervention needs beside the choice."""
        self._ask_about("save")

    def action_record(self) -> None:
        """Show the recording that runs; else ask for the command of a new one."""
        if self._recorder is not None and self._recorder.code is None:
            self.action_output()
        elif self._saved is not None and self._saved[0] == self.choice():
            self._ask_command(self._saved[1])
        else:
            self._ask_about("save, then record")

    def action_output(self) -> None:
        """Show what the recording says."""
        if self._recorder is not None:
            self.app.push_screen(RecorderScreen(self._recorder))

    def _ask_about(self, what: str) -> None:
        asks, proposed = self.question()
        self._chosen = self.choice()
        if self._chosen is None:
            self.query_one(KeyLine).say(asks)
        else:
            self._ask(what, proposed, f"{what}: {asks}; enter saves")

    def _ask_command(self, path: Path) -> None:
        run = self.app.run_of(self._under)
        command = draft.record_command(path, self.app.folder, self.policy_path(), run)
        self._ask("run", command, f"enter starts it, {key_for(self, 'neurons.back')} does not")

    def _ask(self, what: str, proposed: str, says: str) -> None:
        """Open a line to type into."""
        line = self.query_one("#ask", Input)
        line.value, line.cursor_position = proposed, len(proposed)
        self._open_question(what)
        self.query_one(KeyLine).say(says, "accent")

    def _open_question(self, what: str) -> None:
        self._asked = what
        line = self.query_one("#ask", Input)
        line.add_class("-open")
        line.focus()

    def _close_question(self) -> None:
        self.query_one("#ask", Input).remove_class("-open")
        self.query_one(KeyLine).say()
        self.set_focus(None)

    @on(Input.Submitted, "#ask")
    def _answered(self, message: Input.Submitted) -> None:
        """Do what was asked for."""
        self._close_question()
        if self._asked != "run":
            self._save(self._asked, self._chosen, message.value)
            return
        try:
            recorder = Recorder(message.value, draft.home_of(self.app.folder))
        except (UserError, OSError) as error:
            self._refused(error)
            return
        self._stop_listening()
        self._recorder = recorder
        self.query_one(KeyLine).say("recording; it goes on when you leave", "good")
        self.action_output()

    def _refused(self, error: Exception) -> None:
        """Say what is wrong with an answer, which can be mended."""
        self._open_question(self._asked)
        self.query_one(KeyLine).say(one_line(error))

    @work(thread=True, exclusive=True, group="save")
    def _save(self, asked: str, choice: object, answer: str) -> None:
        try:
            intervention = self.drafted(choice, answer)
            path = draft.save(intervention, draft.home_of(self.app.folder))
        except (UserError, OSError, RuntimeError) as error:
            self.app.call_from_thread(self._refused, error)
        else:
            self.app.call_from_thread(self._kept, asked, choice, path)

    def _kept(self, asked: str, choice: object, path: Path) -> None:
        self._saved = choice, path
        said = f"saved {one_line(path)}; {key_for(self, 'neurons.record')} records with it"
        self.query_one(KeyLine).say(said, "good")
        if asked == "save, then record":
            self._ask_command(path)

    # The recording that was started from here

    def recording_spans(self) -> list[Span]:
        """Return how it is, for the title."""
        return [("  ", ""), *recorder_state(self._recorder)] if self._recorder is not None else []

    def looked(self) -> None:
        """Show how long it runs."""
        if self._recorder is not None and self.drawable:
            self.paint_title()

    def on_unmount(self) -> None:
        """Leave it to itself."""
        self._stop_listening()

    def _stop_listening(self) -> None:
        if self._recorder is not None:
            self._recorder.close()

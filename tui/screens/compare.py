"""Two runs or two conditions side by side: A is the base, B what was steered or fine-tuned."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.message import Message
from textual.widgets import Input

from tui.data.comparison import Arm, arms_of, differing, first_choice, read_arms, read_shifts
from tui.screens import compare_rows
from tui.screens.help import bindings_of, key_for
from tui.screens.list_screen import ListScreen
from tui.screens.runs import RunsScreen
from tui.screens.sharing import Records
from tui.terminal import one_line
from tui.widgets.keys import KeyLine, key
from tui.widgets.lines import Span, TextLines, fit
from tui.widgets.table import Column, Row

if TYPE_CHECKING:
    from textual.app import App

TABS = ("pairs", "neurons", "config")


class CompareScreen(ListScreen):
    """Success and MEED pair by pair, neuron shifts, and settings that differ."""

    PLACE = "compare"
    CLEAR = "compare.back"
    BINDINGS: ClassVar[list[BindingType]] = [
        key("compare.tab-next", "]", "tab(1)", "next tab", "pairs, neurons, config"),
        key("compare.tab-before", "[", "tab(-1)", "tab", "the tab before", show=False),
        key("compare.other-a", "a", "arm(0)", "other A", "next condition as A, the base"),
        key("compare.other-b", "b", "arm(1)", "other B", "next condition as B"),
        key("compare.swap", "o", "swap", "swap", "A becomes B, and B becomes A"),
        key("compare.back", "escape", "back", "back", "clear the filter, or go back"),
    ]

    class Progress(Message):
        """How far the reading of activations is."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, run_keys: Sequence[str]) -> None:
        super().__init__()
        self._run_keys = tuple(run_keys)
        self._chosen: list[int] | None = None
        """Places of A and B among the arms."""
        self._arms: tuple[Arm, ...] = ()
        self._tab = "pairs"
        self._progress = ""
        self._rows: tuple[object, list[Row]] = ((), [])

    def compose(self) -> ComposeResult:
        """Lay the widgets out; vla.tcss puts the card below or beside the table."""
        yield TextLines(id="title")
        yield TextLines(id="arms")
        yield TextLines(id="hint")
        with Container(id="body"):
            yield self.make_table()
            yield TextLines(id="preview")
        line = Input(id="filter", placeholder="filter", compact=True, select_on_focus=False)
        line.cursor_blink = False
        yield line
        yield KeyLine(bindings_of(self))

    @property
    def arms(self) -> tuple[Arm, Arm] | None:
        """A and B."""
        if self._chosen is None or max(self._chosen) >= len(self._arms):
            return None
        return self._arms[self._chosen[0]], self._arms[self._chosen[1]]

    def paint(self) -> None:
        """Find the arms again, and show them."""
        if not self.drawable:
            return
        runs = [run for key in self._run_keys if (run := self.app.run_of(key))]
        self._arms = tuple(arm for run in runs for arm in arms_of(run))
        if self._chosen is None and (choice := first_choice(runs)):
            self._chosen = list(choice)
        super().paint()
        self._paint_arms()

    def content_arrived(self) -> None:
        """Show what was read."""
        self.paint()

    def on_table_resized(self) -> None:
        """Give both sides of the settings their half, also when the table comes into sight."""
        self.paint()

    def on_compare_screen_progress(self, message: Progress) -> None:
        """Show how far reading is."""
        self._progress = message.text
        self.paint()

    def _content(self) -> tuple[object, str]:
        """Return what the tab shows, or a sentence why it does not."""
        if self.arms is None:
            return None, "" if self.app.loaded else "reading …"
        a, b = self.arms
        read = {
            "pairs": lambda: read_arms(a, b),
            "neurons": lambda: read_shifts(a, b, self._told),
            "config": lambda: differing(a, b),
        }[self._tab]
        known = self.load((self._tab, a.name, b.name, a.stamp, b.stamp), read)
        progress = self._progress if self._tab == "neurons" else ""
        return known or (None, f"reading … {progress}".strip())

    def _told(self, site: str, done: int, total: int) -> None:
        """Pass progress from the thread that reads."""
        self.post_message(self.Progress(f"{one_line(site)}, {done + 1} of {total}"))

    def hint(self) -> list[list[Span]]:
        """Say in one line why there is no table."""
        if self.arms is None and self.app.loaded:
            return [[(self._how_to_choose(), "bold")]]
        content, said = self._content()
        if said:
            return [[(said, "dim" if content is None and said.startswith("reading") else "warn")]]
        if self._tab == "pairs" and not content.n_pairs:
            a, b = self.arms
            return [
                [
                    (f"no common scenes (A: {a.scenes}; B: {b.scenes}): ", "bold"),
                    ("record both with the same --task and --seed", "accent"),
                ]
            ]
        if self._tab == "config" and not content:
            return [[("no setting differs", "bold")]]
        return []

    def _how_to_choose(self) -> str:
        mark, compare = (key_for(self, f"runs.{name}", RunsScreen) for name in ("mark", "compare"))
        return (
            f"mark two runs with {mark} in Runs, then {compare}; "
            "or put the cursor on one that has traces"
        )

    def columns(self) -> Sequence[Column]:
        """Return the columns of the tab."""
        if self._tab == "config":
            return compare_rows.setting_columns(self.table.size.width)
        return compare_rows.PAIRS if self._tab == "pairs" else compare_rows.SITES

    def rows(self) -> list[Row]:
        """Return the rows of the tab; the same list while nothing changed."""
        content, _ = self._content()
        if self._rows[0] is not content:
            make = {
                "pairs": compare_rows.pair_rows,
                "neurons": compare_rows.site_rows,
                "config": compare_rows.setting_rows,
            }[self._tab]
            self._rows = content, make(content)
        return self._rows[1]

    def title_spans(self) -> list[Span]:
        """Return the tabs, the one that is shown in brackets."""
        spans: list[Span] = [(" Compare ", "bold")]
        for tab in TABS:
            here = tab == self._tab
            spans.append((f" [{tab}]" if here else f"  {tab} ", "accent" if here else "dim"))
        return spans

    def _paint_arms(self) -> None:
        lines = self.query_one("#arms", TextLines)
        if self.arms is None:
            lines.show([])
            return
        shown = []
        for letter, arm in zip("AB", self.arms, strict=True):
            shown.append([(f" {letter} ", "mark"), (fit(arm.name, lines.size.width - 4), "")])
        lines.show(shown)

    def card(self, row: Row, width: int) -> list[list[Span]]:
        """Return the card of a row."""
        content, _ = self._content()
        if content is None:
            return []
        if self._tab == "pairs":
            return compare_rows.pair_card(content, row.key, width)
        if self._tab == "neurons":
            return compare_rows.site_card(content, row.key, width)
        return compare_rows.setting_card(row, width)

    def source_of(self, row: Row) -> object:
        """Return the first trace of either side."""
        return ", ".join(str(arm.paths[0]) for arm in self.arms if arm.paths)

    def exported(self) -> tuple[str, Records]:
        """Return the rows of the tab, with what is compared."""
        tab, (content, _), rows = self._tab, self._content(), self.table.rows
        arms = dict(zip("AB", (arm.name for arm in self.arms or ()), strict=False))
        return f"{self.PLACE}-{tab}", lambda: [
            arms | compare_rows.record(tab, content, row) for row in rows
        ]

    def action_tab(self, by: int) -> None:
        """Show another tab."""
        self._tab = TABS[(TABS.index(self._tab) + by) % len(TABS)]
        self.paint()

    def action_arm(self, side: int) -> None:
        """Take the next condition on one side."""
        if self._chosen is not None:
            self._chosen[side] = (self._chosen[side] + 1) % len(self._arms)
            self.paint()

    def action_swap(self) -> None:
        """Exchange A and B."""
        if self._chosen is not None:
            self._chosen.reverse()
            self.paint()

    def action_back(self) -> None:
        """Clear the filter, or leave."""
        if not self.clear_filter():
            self.dismiss()


def show_comparison(app: "App") -> None:
    """Compare the runs that are marked in Runs, else the run at hand."""
    stack = app.screen_stack
    for screen in stack:
        if isinstance(screen, CompareScreen):
            while app.screen is not screen:
                app.pop_screen()
            return
    marked = next((list(screen.marked) for screen in stack if hasattr(screen, "marked")), [])
    at_hand = getattr(stack[-1], "run_shown", None)
    if len(marked) < 2 and at_hand is not None:
        marked = [at_hand.key]
    app.push_screen(CompareScreen(marked))

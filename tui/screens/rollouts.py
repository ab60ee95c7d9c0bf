"""Episodes of one run, those of a pair one below the other."""

from itertools import groupby
from typing import ClassVar

from textual.binding import BindingType

from tui.data.model import Episode, Run
from tui.data.records import episode_record, run_path
from tui.screens.list_screen import ListScreen
from tui.screens.run_card import summary_lines
from tui.screens.sharing import Records
from tui.terminal import one_line
from tui.widgets.keys import KeyLine, key
from tui.widgets.lines import Span, wrap
from tui.widgets.table import Column, Row
from tui.wording import count, number, outcome, short_id, state_mark


class RolloutsScreen(ListScreen):
    """All episodes of a run: from closed traces, and while it records from its log."""

    PLACE = "rollouts"
    CLEAR = "rollouts.back"
    COLUMNS: ClassVar = (
        Column(""),
        Column("condition", least=8, most=24),
        Column("#", right=True),
        Column("success"),
        Column("task", least=8, most=24, rank=7),
        Column("init", right=True),
        Column("scene", right=True),
        Column("steps", right=True),
        Column("MEED cm", right=True),
        Column("Δ base", right=True, rank=3),
        Column("return", right=True, rank=4),
        Column("from", rank=2),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        key("rollouts.open", "enter,l,right", "open", "open", "the episode, step by step"),
        key("rollouts.pair", "p", "pair", "pair", "next episode of the same pair"),
        key("rollouts.back", "escape,h,left", "back", "back", "clear the filter, or back"),
    ]

    def __init__(self, run_key: str, within: str = "", crumb: str = "") -> None:
        """Show a run's episodes.

        Args:
            run_key: the run.
            within: only episodes with this in their uid.
            crumb: what those are, for the title.
        """
        super().__init__()
        self.run_key = run_key
        self._within, self._crumb = within, crumb
        self._run: Run | None = None
        self._rows_of: Run | None = None
        self._rows: list[Row] = []
        """Rows of that run, which are worked out once."""

    @property
    def run_shown(self) -> Run | None:
        """The run as it was read last; it outlives its files."""
        self._run = self.app.run_of(self.run_key) or self._run
        return self._run

    def hint(self) -> list[list[Span]]:
        """Say why there are no episodes."""
        run = self.run_shown
        if run is None or run.episodes:
            return []
        why = run.trouble or run.last or "nothing happened yet"
        return [[("no finished episode", "bold")], [(one_line(why), "dim")]]

    def title_spans(self) -> list[Span]:
        """Return the way back, and how far the run is."""
        run = self.run_shown
        if run is None:
            return [(" Runs > gone", "")]
        if self._crumb:
            name, crumb = short_id(run.run_id), self._crumb
            return [(f" Runs > {name} > ", "dim"), (crumb, "bold")]
        mark, style = state_mark(run.state)
        done = f"{run.done}/{run.total}" if run.total is not None else f"{run.done}"
        return [
            (" Runs > ", "dim"),
            (f"{short_id(run.run_id)} ", "bold"),
            (f"{mark}", style),
            (f"  {done} episodes", ""),
        ]

    def rows(self) -> list[Row]:
        """Return one row per episode; a bracket joins those of a pair."""
        run = self.run_shown
        if run is None or run is self._rows_of:
            return self._rows
        rows = []
        chosen = [episode for episode in run.episodes if self._within in episode.uid]
        for _, group in groupby(chosen, key=lambda e: e.pair_key or e.key):
            pair = list(group)
            base = next((e.meed_cm for e in pair if e.is_baseline), None)
            for place, episode in enumerate(pair):
                rows.append(episode_row(episode, _bracket(place, len(pair)), base))
        self._rows_of, self._rows = run, rows
        return rows

    def episode_of(self, key: object) -> Episode | None:
        """Return an episode by its key."""
        run = self.run_shown
        return next((e for e in run.episodes if e.key == key), None) if run else None

    def searched(self, row: Row) -> str:
        """Search instruction, pair and error too."""
        episode = self.episode_of(row.key)
        more = (episode.instruction, one_line(episode.pair_key), episode.error) if episode else ()
        return " ".join((super().searched(row), *more))

    def card(self, row: Row, width: int) -> list[list[Span]]:
        """Return what the row has no room for, and in a wide window what the conditions did."""
        run, episode = self.run_shown, self.episode_of(row.key)
        if run is None or episode is None:
            return []
        lines = episode_lines(episode, run.partner(episode), width)
        if self.has_class("-wide"):
            content, error = self.summary_of(run)
            lines += [[], *summary_lines(content, error, width)]
            if content is not None:
                notes = (t for note in content.notes for t in wrap(f"note: {note}", width, 3))
                lines += [[], *([(text, "dim")] for text in notes)]
        return lines

    def source_of(self, row: Row) -> object:
        """Return its trace and its place there, else the log that knows of it."""
        run, episode = self.run_shown, self.episode_of(row.key)
        if episode is not None and episode.path is not None:
            return f"{episode.path} episodes/{episode.row}"
        return run_path(run) if run else ""

    def exported(self) -> tuple[str, Records]:
        """Return the episodes shown."""
        run, rows = self.run_shown, self.table.rows
        known = {episode.key: episode for episode in run.episodes} if run else {}
        name = f"{self.PLACE}-{run.run_id if run else ''}"
        return name, lambda: [episode_record(known[row.key]) for row in rows if row.key in known]

    def action_open(self) -> None:
        """Open the episode."""
        from tui.screens.episode import EpisodeScreen

        episode = self.episode_of(self.table.row.key) if self.table.row else None
        if episode is None:
            return
        if episode.live:
            self.query_one(KeyLine).say("its trace is not closed yet: try again a little later")
            return
        self.app.push_screen(EpisodeScreen(self.run_key, episode), self.move_to)

    def move_to(self, key: object) -> None:
        """Move the cursor to the episode that was looked at last."""
        self.table.move_to_key(key)

    def action_pair(self) -> None:
        """Move to the next episode of the same pair."""
        run, row = self.run_shown, self.table.row
        episode = self.episode_of(row.key) if row else None
        if run is None or episode is None:
            return
        partner = run.next_of_pair(episode)
        if partner is None:
            self.query_one(KeyLine).say("no other episode has its pair key")
        elif not self.table.move_to_key(partner.key):
            self.query_one(KeyLine).say("the filter hides the other episode of the pair")

    def action_back(self) -> None:
        """Clear the filter, or go back to the runs."""
        if not self.clear_filter():
            self.dismiss()


def _bracket(place: int, n: int) -> str:
    if n == 1:
        return " "
    return "┌" if place == 0 else "└" if place == n - 1 else "├"


def episode_row(episode: Episode, bracket: str, base_meed_cm: float | None) -> Row:
    """Return the row of an episode."""
    delta = ""
    if not episode.is_baseline and episode.meed_cm is not None and base_meed_cm is not None:
        delta = number(episode.meed_cm - base_meed_cm, sign="+")
    cells = (
        (bracket, "dim"),
        (episode.condition, ""),
        (count(episode.number), "dim"),
        outcome(episode.success, episode.error),
        (episode.task, ""),
        (count(episode.init_state), ""),
        (count(episode.scene_seed), ""),
        (count(episode.n_steps), ""),
        (number(episode.meed_cm), ""),
        (delta, ""),
        (number(episode.total_return, 1), ""),
        ("● log", "good") if episode.live else ("trace", "dim"),
    )
    return Row(episode.key, cells)


def episode_lines(episode: Episode, partners: list[Episode], width: int) -> list[list[Span]]:
    """Return instruction, pair and place of an episode."""
    lines: list[list[Span]] = []
    if episode.instruction:
        said = wrap(f"“{episode.instruction}”", width, limit=2)
        lines += [[(text, "bold")] for text in said]
    if episode.error:
        lines += [[(text, "bad")] for text in wrap(episode.error, width, limit=3)]
    for other in partners[:3]:
        text, style = outcome(other.success, other.error)
        lines.append(
            [
                ("pair ", "dim"),
                (f"{other.condition} #{count(other.number)} ", ""),
                (text, style),
                (f"  {count(other.n_steps)} steps  MEED {number(other.meed_cm)} cm", ""),
            ]
        )
    where = one_line(episode.path) if episode.path else "known from the log only"
    lines += [[(text, "dim")] for text in wrap(f"{one_line(episode.uid)} {where}", width, limit=3)]
    return lines

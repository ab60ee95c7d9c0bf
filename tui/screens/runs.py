"""The first screen: one row per run, newest first."""

import math
from collections.abc import Callable
from typing import ClassVar

from textual.binding import BindingType

from tui.data.model import Run
from tui.data.records import run_path, run_record
from tui.screens.list_screen import ListScreen
from tui.screens.run_card import run_card
from tui.screens.sharing import Records
from tui.terminal import one_line
from tui.widgets.keys import key
from tui.widgets.lines import Span
from tui.widgets.table import Column, Row
from tui.wording import (
    compact,
    joined_conditions,
    number,
    share,
    short_id,
    state_mark,
    whole_minutes,
)

HOW_TO_RECORD = "vla-trace record --steer fast --alpha 8"


class RunsScreen(ListScreen):
    """Runs of a folder, with a preview of the one under the cursor."""

    PLACE = "runs"
    CLEAR = "runs.clear"
    COLUMNS: ClassVar = (
        Column("mark", rank=1),
        Column("state"),
        Column("run", least=16, most=30),
        Column("kind", rank=7),
        Column("task", least=12, most=24, rank=5),
        Column("conditions", least=15, most=30),
        Column("done", right=True),
        Column("success"),
        Column("MEED cm", rank=3),
        Column("zero%", right=True, rank=2),
        Column("kl", right=True, rank=2),
        Column("age", right=True),
        Column("last", least=12, most=40, rank=6),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        key("runs.open", "enter,l,right", "open", "open", "the training, or the rollouts"),
        key("runs.mark", "space", "mark", "mark", "mark as A, the next one as B; again: no mark"),
        key(
            "runs.compare",
            "c",
            "app.go('compare')",
            "compare",
            "the two marked runs, or what this one holds",
        ),
        key("runs.clear", "escape", "clear", "clear", "clear the filter", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.marked: list[str] = []
        """Keys of at most two runs: A and B of a comparison."""

    @property
    def run_key(self) -> str:
        """Key of the run under the cursor."""
        return self.table.row.key if self.table.row else ""

    @property
    def run_shown(self) -> Run | None:
        """The run under the cursor."""
        return self.app.run_of(self.run_key)

    def hint(self) -> list[list[Span]]:
        """Say how to get a first run."""
        if self.app.runs:
            return []
        if not self.app.loaded or self.app.pending:
            return [[("reading …", "dim")]]
        where = "here" if str(self.app.folder) == "." else f"in {one_line(self.app.folder)}"
        return [
            [(f"no runs or traces {where} yet", "bold")],
            [],
            [("record some, in another terminal:", "")],
            [(f"    {HOW_TO_RECORD}", "accent")],
            [],
            [("they appear in this list while they run", "dim")],
        ]

    def title_spans(self) -> list[Span]:
        """Say where this is, and whether files are still being read."""
        where = "runs/ and traces/ here" if str(self.app.folder) == "." else str(self.app.folder)
        spans = [(" vla-tui ", "bold"), (f" {one_line(where)}", "")]
        running = sum(run.state == "running" for run in self.app.runs)
        if running:
            spans.append((f"  {running} running", "good"))
        spans.append(("  intervals 95 %", "dim"))
        if self.app.pending:
            spans.append((f"  reading {self.app.pending} more …", "dim"))
        return spans

    def rows(self) -> list[Row]:
        """Return one row per run."""
        now = self.app.clock()
        wide = self.has_class("-wide") and self.size.width >= 160
        self.marked = [key for key in self.marked if self.app.run_of(key)]
        letters = dict(zip(self.marked, "AB", strict=False))
        return [
            run_row(run, now, full_id=wide, mark=letters.get(run.key, "")) for run in self.app.runs
        ]

    def searched(self, row: Row) -> str:
        """Search the full run id, policy and suite too."""
        run = self.app.run_of(row.key)
        more = (run.run_id, run.policy, run.suite, run.kind, *run.tasks) if run else ()
        return " ".join((super().searched(row), *more))

    def card(self, row: Row, width: int) -> list[list[Span]]:
        """Return the preview of a run."""
        run = self.app.run_of(row.key)
        if run is None:
            return []
        recorded = run.episodes and run.training is None
        return run_card(run, *(self.summary_of(run) if recorded else (None, "")), width)

    def source_of(self, row: Row) -> object:
        """Return its log, else its first trace."""
        run = self.app.run_of(row.key)
        return run_path(run) if run else row.key

    def exported(self) -> tuple[str, Records]:
        """Return the runs shown."""
        runs = [run for row in self.table.rows if (run := self.app.run_of(row.key))]
        return self.PLACE, lambda: [run_record(run) for run in runs]

    def action_open(self) -> None:
        """Open the rollouts of the run."""
        from tui.screens.live import LiveScreen
        from tui.screens.rollouts import RolloutsScreen

        run = self.app.run_of(self.run_key)
        if run is not None:
            opened = LiveScreen if run.training else RolloutsScreen
            self.app.push_screen(opened(run.key))

    def action_mark(self) -> None:
        """Mark the run for Compare; a third one takes the place of the first."""
        if self.table.row is not None:
            key = self.run_key
            others = [other for other in self.marked if other != key]
            self.marked = others if key in self.marked else [*others[-1:], key]
            self.paint()

    def action_clear(self) -> None:
        """Clear the filter."""
        self.clear_filter()


def run_row(run: Run, now: float, full_id: bool = False, mark: str = "") -> Row:
    """Return the row of a run."""
    task = ", ".join(run.tasks)
    where = f"{run.suite}/{task}" if run.suite and task else run.suite or task
    done = f"{run.done}/{run.total}" if run.total is not None else str(run.done)
    if run.training is not None:
        wanted = f"/{run.training.total}" if run.training.total else ""
        done = f"{run.training.done}{wanted}"
    cells = (
        (mark, "mark"),
        state_mark(run.state),
        (one_line(run.run_id) if full_id else short_id(run.run_id), ""),
        (run.kind, ""),
        (where, ""),
        (_conditions(run), ""),
        (done if run.state != "broken" else "", ""),
        (_success(run), ""),
        (_meed(run), ""),
        (_latest(run, "rollout/frac_reward_zero_std", lambda value: f"{100 * value:.0f}"), ""),
        (_latest(run, "train/actor/approx_kl", compact), ""),
        (whole_minutes(now - run.heard), "dim"),
        (run.last, "bad" if run.trouble else "dim"),
    )
    return Row(run.key, cells)


def _conditions(run: Run) -> str:
    """Name the arms of a recording, the likelihood of a training."""
    if run.training is not None:
        return one_line(run.config.get("likelihood") or "")
    return joined_conditions(run.conditions).replace("+ baseline", "+ base")


def _latest(run: Run, metric: str, shown: Callable[[float], str]) -> str:
    """A metric of the last update of a training."""
    value = run.training.at(run.training.done, metric) if run.training else math.nan
    return shown(value) if math.isfinite(value) else ""


def _success(run: Run) -> str:
    """Success of all episodes that count, of a training's last update, with its interval."""
    if run.success_rate is None or run.success_ci is None:
        return ""
    low, high = run.success_ci
    return f"{share(run.success_rate)} [{share(low)},{share(high)}]"


def _meed(run: Run) -> str:
    """MEED of each condition, from the baseline to the largest dose."""
    values = [number(value) for value in run.meed_by_condition().values()]
    return "→".join(values if len(values) <= 3 else [values[0], "…", values[-1]])

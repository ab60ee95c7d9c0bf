"""A training as it goes: success, the update that is being made, its groups, what the step did."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical

from tui.data.machine import Load, Machine
from tui.data.model import Run
from tui.data.records import run_path, update_records
from tui.data.series import (
    MODES,
    axis_end,
    evaluation_points,
    metric_points,
    nice_range,
    success_points,
)
from tui.data.training import Training
from tui.screens import live_panels as panels
from tui.screens.choice import ChoiceScreen
from tui.screens.help import bindings_of, key_for
from tui.screens.live_choices import alert_rows, metric_rows
from tui.screens.live_film import FilmScreen
from tui.screens.sharing import Records
from tui.terminal import one_line
from tui.widgets.chart import Chart, Picture, rule
from tui.widgets.keys import KeyLine, key
from tui.widgets.lines import TextLines
from tui.widgets.table import Column, Table
from tui.wording import compact

ALIVE = ("running", "silent")


class LiveScreen(FilmScreen):
    """One training run, the present update or an earlier one."""

    PLACE = "live"
    AUTO_FOCUS = ""
    PANES: ClassVar = {
        "course": "success",
        "scenes": "groups",
        "step": "update",
        "strip": "optimiser",
        "news": "events",
        "film": "newest episode",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        key("live.open", "enter", "open", "group", "the episodes of the group"),
        key("live.down", "j,down", "move(1)", "down", "next group", show=False),
        key("live.up", "k,up", "move(-1)", "up", "previous group", show=False),
        key("live.earlier", "[", "earlier", "back", "the update before"),
        key("live.later", "]", "later", "on", "the update after", show=False),
        key("live.follow", "f", "follow", "follow", "follow the update that is being made"),
        key("live.alerts", "!", "alerts", "alerts", "alerts; the chosen one shows its update"),
        key("live.metric", "m", "metric", "metric", "choose what the chart shows"),
        key("live.mode", "v", "mode", "lin/log", "linear, logarithmic or smoothed chart"),
        key("live.pause", "space", "pause", "pause", "stop or go on drawing; the run goes on"),
        key("live.back", "escape", "back", "back", "back to the runs", show=False),
    ]

    def __init__(self, run_key: str) -> None:
        super().__init__()
        self.run_key = run_key
        self._run: Run | None = None
        self._paused = False
        self._viewed: int | None = None
        """The update that is looked at; None follows the run."""
        self._metric = ""
        """What the chart shows; empty for success."""
        self._mode = MODES[0]
        self._machine = Machine()

    def compose(self) -> ComposeResult:
        """Lay the panels out; vla.tcss says which have room."""
        yield TextLines(id="title")
        with Container(id="body"):
            with Vertical(id="left"):
                with Vertical(id="course"):
                    yield TextLines(id="success")
                    yield Chart(id="chart")
                with Vertical(id="scenes"):
                    yield TextLines(id="heading")
                    yield Table(panels.GROUP_COLUMNS, id="groups")
            with Vertical(id="right"):
                yield TextLines(id="step")
                yield TextLines(id="strip")
                with Container(id="below"):
                    yield TextLines(id="news")
        yield TextLines(id="machine")
        yield TextLines(id="last")
        yield KeyLine(bindings_of(self))

    @property
    def run_shown(self) -> Run | None:
        """The run as it was read last, or as it was when drawing was stopped."""
        if not (self._paused and self._run):
            self._run = self.app.run_of(self.run_key) or self._run
        return self._run

    @property
    def training(self) -> Training:
        """What is known of its updates."""
        run = self.run_shown
        return run.training if run and run.training else Training()

    @property
    def update(self) -> int:
        """The update whose groups are shown."""
        return self._viewed or self.training.present

    @property
    def judged(self) -> int:
        """The update whose numbers are shown: the one looked at, else the last that is over."""
        return self._viewed or self.training.done

    def on_mount(self) -> None:
        """Draw what is known."""
        self.paint()

    def on_screen_resume(self) -> None:
        """Catch up with what happened under another screen."""
        if self.is_mounted and self.query(KeyLine):
            self._say()
            self.paint()

    def runs_read(self) -> None:
        """Draw what was read, unless drawing is stopped or there is nothing new to draw."""
        before, run = self._run, self.run_shown
        rests = run is before and run is not None and run.state in ("finished", "failed")
        if not self._paused and not rests:
            self.paint(play=True)

    def looked(self) -> None:
        """Go on with the film, which plays while nothing is logged."""
        run = self.run_shown
        if run is not None and self.drawable and not self._paused:
            self.paint_film(run, play=True)

    def on_text_lines_resized(self) -> None:
        """Fit the texts into the new size."""
        self.paint()

    def paint(self, play: bool = False) -> None:
        """Draw everything; only what differs is repainted. `play` goes on in the film."""
        run = self.run_shown
        if run is None or not self.query(KeyLine) or not self._text("title").size.width:
            return  # nothing to show, or nowhere yet
        now = self.app.clock()
        keys = (key_for(self, f"live.{name}") for name in ("follow", "alerts"))
        self._text("title").show([panels.title(run, self._viewed, self._paused, now, *keys)])
        self._paint_chart()
        self._paint_groups()
        step, strip, news = self._text("step"), self._text("strip"), self._text("news")
        step.show(panels.step_lines(run, self._viewed, now, *step.content_size))
        strip.show(panels.strip_lines(self.training, self.judged, *strip.content_size))
        news.show(panels.news_lines(self.training, *news.content_size))
        load = self._load(run)
        machine = panels.machine_line(self.training, self.judged, load, now, self.size.width)
        self._text("machine").show([machine])
        self.paint_film(run, play)
        last = self._text("last")
        last.show([panels.last_news(self.training, self.judged, last.content_size.width)])

    def _load(self, run: Run) -> Load | None:
        """Look at the machine while something runs: a screen that rests sends nothing."""
        return self._machine.look() if run.state in ALIVE else None

    def _text(self, name: str) -> TextLines:
        return self.query_one(f"#{name}", TextLines)

    def _paint_chart(self) -> None:
        training, chart, success = self.training, self.query_one(Chart), self._text("success")
        width, end = success.content_size.width, axis_end(self.training)
        if self._metric:
            points = metric_points(training, self._metric, chart.dots, self._mode)
            low, high = nice_range(points)
            middle = (low + high) / 2
            log = self._mode == "log"
            labels = tuple(compact(10**y if log else y) for y in (high, middle, low))
            heading = [(f"{one_line(self._metric)}, {self._mode}", "title")]
            value = compact(training.at(self.judged, self._metric))
            success.show([rule(heading, width), [(" now ", "dim"), (value, "bold")]])
            chart.show(Picture(end, low, high, labels, points, cursor=self._viewed))
            return
        smooth = self._mode == "smoothed"
        heading = [(f"success, 95 % intervals{', smoothed' if smooth else ''}", "title")]
        success.show([rule(heading, width), panels.success_line(training, self.judged, width)])
        points = success_points(training, chart.dots, smooth)
        marks = evaluation_points(training)
        labels = ("100%", "50%", "0%")
        chart.show(Picture(end, 0.0, 1.0, labels, points, marks, self._viewed))

    def _paint_groups(self) -> None:
        training, heading = self.training, self._text("heading")
        groups = training.groups.get(self.update, ())
        width = heading.content_size.width
        heading.show([panels.groups_heading(training, self.update, width)])
        rows = [panels.group_row(group, training.advantage) for group in groups]
        self.query_one("#groups", Table).show(rows)

    def on_table_moved(self) -> None:
        """Forget what was said about another group."""
        self._say()

    def _say(self, text: str = "") -> None:
        self.query_one(KeyLine).say(text)

    def _view(self, update: int | None) -> None:
        self._viewed = update
        self._say()
        self.paint()

    def copied(self) -> tuple[str, object]:
        """Return the group under the cursor and the numbers of the update."""
        run, row = self.run_shown, self.query_one("#groups", Table).row
        if run is None:
            return "", ""
        return panels.copied(self.training, self.update, self.judged, row), run_path(run)

    def exported(self) -> tuple[str, Records]:
        """Return the metrics of every update."""
        training, run = self.training, self.run_shown
        return f"live-{run.run_id if run else ''}", lambda: update_records(training)

    def action_move(self, by: int) -> None:
        """Move among the groups."""
        self.query_one("#groups", Table).move(by)

    def action_earlier(self) -> None:
        """Look at the update before."""
        if self.update > 1:
            self._view(self.update - 1)
        else:
            self._say("the first update")

    def action_later(self) -> None:
        """Look at the update after; after the last one, follow."""
        if self._viewed is not None:
            self._view(self._viewed + 1 if self._viewed < self.training.done else None)

    def action_follow(self) -> None:
        """Follow the run."""
        self._paused = False
        self._view(None)

    def action_pause(self) -> None:
        """Stop drawing, or go on."""
        self._paused = not self._paused
        self.paint()

    def action_mode(self) -> None:
        """Draw the chart another way; success has no logarithm."""
        modes = MODES if self._metric else ("linear", "smoothed")
        self._mode = modes[(modes.index(self._mode) + 1) % len(modes)]
        self.paint()

    def action_alerts(self) -> None:
        """List the alerts."""
        columns = (Column("level"), Column("update", right=True), Column("what", least=20))
        rows = alert_rows(self.training.alerts)
        self.app.push_screen(ChoiceScreen("alerts", columns, rows, "no alert so far"), self._go_to)

    def _go_to(self, key: object) -> None:
        if isinstance(key, tuple):
            self._view(max(1, int(key[0])))

    def action_metric(self) -> None:
        """List the metrics."""
        columns = (
            Column("metric", least=12),
            Column("now", right=True),
            Column("course", rank=3),
            Column("elsewhere", least=8, rank=2),
        )
        rows = metric_rows(self.training, self.judged)
        self.app.push_screen(ChoiceScreen("chart", columns, rows, "no update yet"), self._show)

    def _show(self, key: object) -> None:
        if isinstance(key, str):
            self._metric, self._mode = key, MODES[0]
            self.paint()

    def action_open(self) -> None:
        """Open the episodes of a group, if they were kept."""
        from tui.screens.rollouts import RolloutsScreen

        run, row = self.run_shown, self.query_one("#groups", Table).row
        if run is None or row is None:
            self._say("no group of this update is known")
            return
        within = f"/u{self.update - 1:05d}/g{row.key:04d}/"
        if any(within in episode.uid for episode in run.episodes if not episode.live):
            crumb = f"update {self.update} > group {row.key}"
            self.app.push_screen(RolloutsScreen(run.key, within, crumb))
        else:
            self._say(why_no_trace(self.training, self.update))

    def action_back(self) -> None:
        """Go back to the runs."""
        self.dismiss()


def why_no_trace(training: Training, update: int) -> str:
    """Say why the episodes of an update cannot be opened."""
    every = training.config.get("traces")
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        return "this run keeps no episodes (vla-trace train --traces N does, every Nth update)"
    if (update - 1) % every:
        kept = (update - 1) // every * every + 1
        return f"kept are updates 1, {1 + every}, {1 + 2 * every} …: the one before is {kept}"
    if update > training.done:
        return "its trace is written when the update is over"
    return f"the trace of update {update} is not there or cannot be read"

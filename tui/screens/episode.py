"""One episode: where the hand went, what was sent, and one cursor through all of it."""

from typing import ClassVar

import numpy as np
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container

from tui.data.model import Episode, Run
from tui.data.tracks import EpisodeTracks, read_tracks
from tui.screens.help import bindings_of
from tui.screens.loading import LoadingScreen
from tui.widgets.keys import KeyLine
from tui.widgets.lines import Span, TextLines, fit
from tui.widgets.plot import Plot
from tui.widgets.tracks import Track, Tracks
from tui.wording import count, number, outcome, short_id


class EpisodeScreen(LoadingScreen):
    """Path, actions, gripper, log-probability, contacts and interventions of an episode."""

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("h,left,comma", "step(-1)", "-1", tooltip="one step back"),
        Binding("l,right,full_stop", "step(1)", "+1", tooltip="one step on"),
        Binding("less_than_sign", "step(-10)", "-10", show=False, tooltip="ten steps back"),
        Binding("greater_than_sign", "step(10)", "+10", show=False, tooltip="ten steps on"),
        Binding("g,home", "to(0)", "start", show=False, tooltip="first step"),
        Binding("G,end", "to(1)", "end", show=False, tooltip="last step"),
        Binding("p", "pair", "pair", tooltip="the paired episode, at the same step"),
        Binding("left_square_bracket,k,up", "episode(-1)", "prev", tooltip="previous episode"),
        Binding("right_square_bracket,j,down", "episode(1)", "next", tooltip="next episode"),
        Binding("escape", "back", "back", tooltip="back to the rollouts"),
    ]

    def __init__(self, run_key: str, episode: Episode) -> None:
        super().__init__()
        self._run_key = run_key
        self._run: Run | None = None
        self._episode = episode
        self._cursor = 0
        self._tracks: EpisodeTracks | None = None
        self._shown: object = None
        """What the plots show."""

    def compose(self) -> ComposeResult:
        """Lay the widgets out; vla.tcss puts plots and tracks above or beside each other."""
        yield TextLines(id="title")
        yield TextLines(id="facts")
        with Container(id="body"):
            with Container(id="plots"):
                yield Plot(id="top", equal=True)
                yield Plot(id="side")
            yield Tracks(id="tracks")
        yield KeyLine(bindings_of(self))

    @property
    def run_shown(self) -> Run | None:
        """The run as it was read last."""
        self._run = self.app.run_of(self._run_key) or self._run
        return self._run

    def on_mount(self) -> None:
        """Begin to read."""
        self.paint()

    def paint(self) -> None:
        """Show the episode; texts repaint where they differ, plots when it is another one."""
        if not self.drawable:
            return
        episode = self._episode
        run = self.run_shown
        stamps = [file.stamp for file in run.files if episode.path in file.paths] if run else []
        key = (episode.key, episode.path, episode.row, *stamps)
        known = self.load(key, lambda: read_tracks(episode.path, episode.row))
        tracks, error = known or (None, "")
        self._paint_texts(error or ("" if tracks is not None else "reading …"))
        if tracks is not None and self._shown != key:
            self._shown, self._tracks = key, tracks
            self._cursor = max(0, min(self._cursor, tracks.n_steps - 1))
            self._paint_plots(tracks)

    def _paint_texts(self, news: str) -> None:
        run, episode = self.run_shown, self._episode
        text, style = outcome(episode.success, episode.error)
        title: list[Span] = [
            (" Runs > ", "dim"),
            (short_id(run.run_id) if run else "gone", ""),
            (" > ", "dim"),
            (f"{episode.condition} #{episode.number} ", "bold"),
            (text, style),
            (f"  {episode.n_steps} steps  MEED {number(episode.meed_cm)} cm", ""),
            (f"  return {number(episode.total_return, 1)}", "dim"),
        ]
        self.query_one("#title", TextLines).show([title])
        facts = self.query_one("#facts", TextLines)
        width = facts.content_size.width
        place = (
            f"  {episode.task}  init {count(episode.init_state)}  scene {count(episode.scene_seed)}"
        )
        said = fit(f"“{episode.instruction}”", max(10, width - len(place)))
        second: list[Span]
        if news or episode.error:
            second = [(fit(news or episode.error, width), "warn")]
        else:
            second = _pair_spans(run, episode)
        facts.show([[(said, "bold"), (place, "dim")], second])

    def _paint_plots(self, tracks: EpisodeTracks) -> None:
        path_cm = 100 * tracks.path_m  # (T+1, 3)
        x, y, z = path_cm.T
        self.query_one("#top", Plot).show(
            f"from above: x {_extent(x)}, y {_extent(y)} cm", x, y, self._cursor
        )
        t = np.arange(len(z))
        self.query_one("#side", Plot).show(f"height z {_extent(z)} cm over t", t, z, self._cursor)
        self.query_one(Tracks).show(tracks_of(tracks), tracks.n_steps, self._cursor)

    def _move(self, step: int) -> None:
        if self._tracks is None or not self._tracks.n_steps:
            return
        self._cursor = max(0, min(step, self._tracks.n_steps - 1))
        for plot in self.query(Plot):
            plot.move_to(self._cursor)
        self.query_one(Tracks).move_to(self._cursor)

    def _open(self, episode: Episode) -> None:
        """Show another episode at the same step."""
        self._episode = episode
        self.query_one(KeyLine).say()
        self.paint()

    def on_tracks_picked(self, message: Tracks.Picked) -> None:
        """Go to the step that was clicked."""
        self._move(message.step)

    def action_step(self, by: int) -> None:
        """Move the cursor."""
        self._move(self._cursor + by)

    def action_to(self, end: int) -> None:
        """Move the cursor to the first or the last step."""
        self._move(self._tracks.n_steps if self._tracks and end else 0)

    def action_pair(self) -> None:
        """Switch to the next episode of the pair."""
        run = self.run_shown
        partner = run.next_of_pair(self._episode) if run else None
        if partner is None:
            self.query_one(KeyLine).say("no other episode has its pair key")
        elif partner.live:
            self.query_one(KeyLine).say("the trace of its partner is still being written")
        else:
            self._open(partner)

    def action_episode(self, by: int) -> None:
        """Switch to the next or previous episode whose trace is closed."""
        run = self.run_shown
        episodes = [e for e in run.episodes if not e.live] if run else []
        places = {e.key: i for i, e in enumerate(episodes)}
        place = places.get(self._episode.key, 0) + by
        if 0 <= place < len(episodes):
            self._open(episodes[place])
        else:
            self.query_one(KeyLine).say("the last episode" if by > 0 else "the first episode")

    def action_back(self) -> None:
        """Go back to the rollouts, to this episode's row."""
        self.dismiss(self._episode.key)


def tracks_of(tracks: EpisodeTracks) -> list[Track]:
    """Return what is drawn, from top to bottom."""
    actions = [
        Track(name, tracks.action[:, i], -1.0, 1.0, style="accent")
        for i, name in enumerate(tracks.action_names)
    ]
    opening_cm = 100 * tracks.opening_m
    log_prob = tracks.log_prob
    return [
        *actions,
        Track("open cm", opening_cm, 0.0, _top(opening_cm), text="{:.2f}"),
        Track(
            "log p",
            log_prob,
            *_range(log_prob),
            text="{:.2f}",
            instead=f"none: {tracks.why_no_log_prob}" if tracks.why_no_log_prob else "",
        ),
        Track("contact", tracks.contact, style="warn", mark="▪"),
        Track("steered", tracks.intervened, style="accent"),
    ]


def _pair_spans(run: Run | None, episode: Episode) -> list[Span]:
    partner = run.next_of_pair(episode) if run else None
    if partner is None:
        return [("no paired episode", "dim")]
    text, style = outcome(partner.success, partner.error)
    return [
        ("pair: ", "dim"),
        (f"{partner.condition} #{count(partner.number)} ", ""),
        (text, style),
        (f"  {count(partner.n_steps)} steps  MEED {number(partner.meed_cm)} cm", ""),
    ]


def _extent(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    return f"{known.min():.0f}…{known.max():.0f}" if len(known) else "unknown"


def _range(values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)


def _top(values: np.ndarray) -> float:
    return max(_range(values)[1], 1e-6)

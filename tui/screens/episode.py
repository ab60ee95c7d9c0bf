"""One episode, or two beside each other: what was seen, where the hand went, what was sent."""

from typing import ClassVar

import numpy as np
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.timer import Timer

from tui.data.episode import EpisodeContent, read_episode
from tui.data.frames import newest, read_frame
from tui.data.inside import read_site
from tui.data.model import Episode, Run
from tui.data.records import Record, in_words, step_record, step_records
from tui.screens.episode_texts import extent, pair_spans, parted_spans, ranges
from tui.screens.episode_tracks import (
    APART_CM,
    parted_at,
    tracks_beside,
    tracks_inside,
    tracks_of,
)
from tui.screens.help import bindings_of, key_for
from tui.screens.loading import LoadingScreen
from tui.screens.sharing import Records
from tui.widgets.frame import Frame
from tui.widgets.keys import KeyLine, key
from tui.widgets.lines import Span, TextLines, fit
from tui.widgets.plot import Plot
from tui.widgets.tracks import Tracks
from tui.wording import count, number, outcome, short_id

CONTROL_HZ = 20


class EpisodeScreen(LoadingScreen):
    """Pictures, path, actions, log-probability, contacts, interventions, neurons."""

    AUTO_FOCUS = ""
    PANES: ClassVar = {
        "seen": "picture",
        "seen-beside": "picture beside it",
        "top": "path",
        "top-beside": "path beside it",
        "side": "height",
        "tracks": "tracks",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        key("episode.step-back", "h,left,comma", "step(-1)", "-1", "one step back"),
        key("episode.step-on", "l,right,.", "step(1)", "+1", "one step on"),
        key("episode.ten-back", "<", "step(-10)", "-10", "ten steps back", show=False),
        key("episode.ten-on", ">", "step(10)", "+10", "ten steps on", show=False),
        key("episode.start", "g,home", "to(0)", "start", "first step", show=False),
        key("episode.end", "G,end", "to(1)", "end", "last step", show=False),
        key("episode.play", "space", "play", "play", "play from here, or stop"),
        key("episode.pair", "p", "pair", "pair", "the paired episode, at the same step"),
        key("episode.beside", "b", "beside", "beside", "its baseline or pair beside it"),
        key("episode.parted", "n", "parted", "parted", "where the two hands part", show=False),
        key("episode.camera", "w", "camera", "camera", "next camera, then the height", show=False),
        key("episode.inside", "a", "inside", "inside", "neurons of the next recorded site"),
        key("episode.zoom", "z", "zoom", "large", "pictures and paths large, or not", show=False),
        key("episode.previous", "[,k,up", "episode(-1)", "prev", "previous episode"),
        key("episode.next", "],j,down", "episode(1)", "next", "next episode"),
        key("episode.back", "escape", "back", "back", "back to the rollouts"),
    ]

    def __init__(self, run_key: str, episode: Episode, step: int = 0) -> None:
        """Show an episode of a run, first at one of its control steps."""
        super().__init__()
        self.run_key = run_key
        self._run: Run | None = None
        self._episodes = [episode]
        """The episode, and the one beside it."""
        self._contents_shown: list[EpisodeContent] = []
        self._cursor = step
        self._view = 0
        """Which camera; after the last one the height."""
        self._site = 0
        """Which site, counted from 1; 0 shows actions."""
        self._shown: object = None
        """What plots and tracks show."""
        self._playing: Timer | None = None

    def compose(self) -> ComposeResult:
        """Lay the widgets out; vla.tcss puts plots and tracks above or beside each other."""
        yield TextLines(id="title")
        yield TextLines(id="facts")
        with Container(id="body"):
            with Container(id="plots"):
                yield self.app.frame("seen", 0)
                yield self.app.frame("seen-beside", 1)
                yield Plot(id="top", equal=True)
                yield Plot(id="top-beside", equal=True)
                yield Plot(id="side")
            yield Tracks(id="tracks")
        yield KeyLine(bindings_of(self))

    @property
    def run_shown(self) -> Run | None:
        """The run as it was read last."""
        self._run = self.app.run_of(self.run_key) or self._run
        return self._run

    @property
    def _episode(self) -> Episode:
        return self._episodes[0]

    @property
    def _n_steps(self) -> int:
        return max((content.tracks.n_steps for content in self._contents_shown), default=0)

    def on_mount(self) -> None:
        """Begin to read."""
        self.paint()

    def paint(self) -> None:
        """Show the episodes; texts repaint where they differ, plots when these are others."""
        if not self.drawable:
            return
        known = [self._loaded(episode) for episode in self._episodes]
        errors = [error for content in known if content for error in content[1:] if error]
        contents = [content[0] for content in known if content and content[0]]
        whole = len(contents) == len(self._episodes)
        if whole:
            self._contents_shown = contents
        self._paint_texts(errors[0] if errors else "" if whole else "reading …")
        shown = ([self._key(episode) for episode in self._episodes], self._site, self._view)
        if whole and self._shown != shown and self._paint_tracks():
            self._shown = shown
            self._cursor = max(0, min(self._cursor, self._n_steps - 1))
            self._paint_plots()
            self._move(self._cursor)
        if whole:
            self._paint_frames()

    def _key(self, episode: Episode) -> tuple:
        """Changes when the episode or its file does."""
        run = self.run_shown
        stamps = [file.stamp for file in run.files if episode.path in file.paths] if run else []
        return (episode.key, episode.path, episode.row, *stamps)

    def _loaded(self, episode: Episode) -> tuple[EpisodeContent | None, str] | None:
        path, row = episode.path, episode.row
        return self.load(self._key(episode), lambda: read_episode(path, row))

    def _paint_texts(self, news: str) -> None:
        run, episode = self.run_shown, self._episode
        title: list[Span] = [(" Runs > ", "dim"), (short_id(run.run_id) if run else "gone", "")]
        for between, one in zip((" > ", " beside "), self._episodes, strict=False):
            mark, style = outcome(one.success, one.error)
            title += [(between, "dim"), (f"{one.condition} #{count(one.number)} ", "bold")]
            title += [(mark, style), (f"  {one.n_steps} steps", "")]
        if len(self._episodes) == 1:
            title.append((f"  MEED {number(episode.meed_cm)} cm", ""))
            title.append((f"  return {number(episode.total_return, 1)}", "dim"))
        self.query_one("#title", TextLines).show([title])
        facts = self.query_one("#facts", TextLines)
        width = facts.content_size.width
        place = (
            f"  {episode.task}  init {count(episode.init_state)}  scene {count(episode.scene_seed)}"
        )
        said = fit(f"“{episode.instruction}”", max(10, width - len(place)))
        errors = [one.error for one in self._episodes if one.error]
        if news or errors:
            second: list[Span] = [(fit(news or errors[0], width), "warn")]
        elif len(self._episodes) > 1:
            second = parted_spans(self._contents_shown)
        else:
            second = pair_spans(run, episode)
        facts.show([[(said, "bold"), (place, "dim")], second])

    def _paint_tracks(self) -> bool:
        """Show actions or neurons; return whether they were there to be shown."""
        tracks = [content.tracks for content in self._contents_shown]
        site = self._site_name()
        if site:
            inside = self._load_inside(site)
            if inside is None:
                return False
            found = tracks_inside(inside, self._n_steps) if inside else []
        else:
            found = tracks_beside(*tracks) if len(tracks) > 1 else tracks_of(tracks[0])
        self.query_one(Tracks).show(found, self._n_steps, self._cursor)
        return True

    def _site_name(self) -> str:
        sites = self._contents_shown[0].sites
        return sites[self._site - 1] if 0 < self._site <= len(sites) else ""

    def _load_inside(self, site: str) -> list | None:
        """Return the same neurons of every episode shown; None until they are read."""
        found = []
        for episode in self._episodes:
            neurons = found[0].neurons if found else ()
            known = self.load(
                (self._key(episode), site, neurons),
                lambda one=episode, n=neurons: read_site(one.path, one.row, site, n),
            )
            if known is None:
                return None
            if known[0] is None:
                self.query_one(KeyLine).say(known[1])
                return []
            found.append(known[0])
        steered = ", × is steered" if found[0].steered else ""
        self.query_one(KeyLine).say(f"{site}: σ from the recording's mean{steered}", "dim")
        return found

    def _paint_plots(self) -> None:
        """Draw the paths, those of two episodes on one scale."""
        paths_cm = [100 * content.tracks.path_m for content in self._contents_shown]  # (T+1, 3)
        within = ranges(paths_cm) if len(paths_cm) > 1 else None
        for plot, path_cm in zip(("#top", "#top-beside"), paths_cm, strict=False):
            x, y, _ = path_cm.T
            title = f"from above: x {extent(x)}, y {extent(y)} cm"
            self.query_one(plot, Plot).show(title, x, y, self._cursor, within)
        z = paths_cm[0][:, 2]
        title = f"height z {extent(z)} cm over t"
        self.query_one("#side", Plot).show(title, np.arange(len(z)), z, self._cursor)
        self.set_class(len(paths_cm) > 1, "-beside")
        self.set_class(self._camera() != "", "-filmed")
        self.call_after_refresh(self.leave_hidden)

    def _camera(self) -> str:
        cameras = list(self._contents_shown[0].cameras) if self._contents_shown else []
        return cameras[self._view] if self._view < len(cameras) else ""

    def _paint_frames(self) -> None:
        """Show the newest picture at the cursor, as soon as it is read."""
        camera = self._camera()
        if not camera:
            return
        shown = zip(("#seen", "#seen-beside"), self._episodes, self._contents_shown, strict=False)
        for frame, episode, content in shown:
            widget = self.query_one(frame, Frame)
            if camera not in content.cameras:
                widget.show(camera, "no pictures of it")
                continue
            step = newest(content.cameras[camera], self._cursor)
            known = self.load(
                (self._key(episode), camera, step),
                lambda one=episode, at=step: read_frame(one.path, one.row, camera, at),
            )
            if known is not None:
                widget.show(f"{camera}, step {step}", known[1] or known[0])

    def _move(self, step: int) -> None:
        if not self._n_steps:
            return
        self._cursor = max(0, min(step, self._n_steps - 1))
        for plot in self.query(Plot):
            plot.move_to(self._cursor)
        self.query_one(Tracks).move_to(self._cursor)
        self._paint_frames()

    def _open(self, *episodes: Episode) -> None:
        """Show other episodes at the same step."""
        self._episodes = list(episodes)
        self.query_one(KeyLine).say()
        self.paint()

    def on_tracks_picked(self, message: Tracks.Picked) -> None:
        """Go to the step that was clicked."""
        self._move(message.step)

    def copied(self) -> tuple[str, object]:
        """Return the step under the cursor, of either episode."""
        shown = list(zip(self._episodes, self._contents_shown, strict=False))
        steps = [
            f"{one.uid}: {in_words(step_record(content.tracks, self._cursor))}"
            for one, content in shown
            if self._cursor < content.tracks.n_steps
        ]
        return "; ".join(steps), ", ".join(f"{one.path} episodes/{one.row}" for one, _ in shown)

    def exported(self) -> tuple[str, Records]:
        """Return every step, with the neurons that are shown."""
        sites = self._load_inside(self._site_name()) if self._site_name() else None
        shown = list(zip(self._episodes, self._contents_shown, sites or (None, None), strict=False))
        name = f"episode-{self._episode.condition}-{self._episode.number}"

        def records() -> list[Record]:
            return [
                record
                for episode, content, site in shown
                for record in step_records(episode, content.tracks, site)
            ]

        return name, records

    def action_step(self, by: int) -> None:
        """Move the cursor."""
        self._move(self._cursor + by)

    def action_to(self, end: int) -> None:
        """Move the cursor to the first or the last step."""
        self._move(self._n_steps if end else 0)

    def action_play(self) -> None:
        """Play in the time of the robot, from the start when it is at the end; or stop."""
        if self._playing is not None:
            self._stop()
            return
        if self._cursor >= self._n_steps - 1:
            self._move(0)
        self._playing = self.set_interval(1 / self.app.look.pictures_hz, self._play_on)

    def _play_on(self) -> None:
        self._move(self._cursor + round(CONTROL_HZ / self.app.look.pictures_hz))
        if self._cursor >= self._n_steps - 1:
            self._stop()

    def _stop(self) -> None:
        if self._playing is not None:
            self._playing.stop()
            self._playing = None

    def on_screen_suspend(self) -> None:
        """Do not play under another screen."""
        self._stop()

    def _partner(self, *, baseline: bool = False) -> Episode | None:
        """Return the next episode of the pair or its baseline, or say why neither is shown."""
        run = self.run_shown
        partner = run.next_of_pair(self._episode) if run else None
        if baseline and run:
            others = run.partner(self._episode)
            partner = next((one for one in others if one.is_baseline), partner)
        if partner is None:
            self.query_one(KeyLine).say("no other episode has its pair key")
        elif partner.live:
            self.query_one(KeyLine).say("the trace of its partner is still being written")
            return None
        return partner

    def action_pair(self) -> None:
        """Switch to the next episode of the pair; two beside each other change places."""
        if len(self._episodes) > 1:
            self._open(*self._episodes[::-1])
        elif partner := self._partner():
            self._open(partner)

    def action_beside(self) -> None:
        """Show the pair beside the episode, or the episode alone again."""
        if len(self._episodes) > 1:
            self._open(self._episode)
        elif partner := self._partner(baseline=True):
            self._open(self._episode, partner)

    def action_parted(self) -> None:
        """Go to the first step at which the hands of two episodes are apart."""
        say = self.query_one(KeyLine).say
        if len(self._contents_shown) < 2:
            beside, parted = (key_for(self, f"episode.{name}") for name in ("beside", "parted"))
            say(f"{beside} shows its pair beside it; then {parted} goes to where they part")
            return
        step = parted_at(*(content.tracks for content in self._contents_shown))
        if step is None:
            say(f"the hands are never {APART_CM:g} cm apart")
        else:
            self._move(step)

    def action_camera(self) -> None:
        """Show the next camera, after the last one the height of the hand."""
        cameras = self._contents_shown[0].cameras if self._contents_shown else ()
        if not cameras:
            self.query_one(KeyLine).say("its trace kept no pictures (record --keep frames)")
            return
        self._view = (self._view + 1) % (len(cameras) + 1)
        self.paint()

    def action_inside(self) -> None:
        """Show neurons of the next site, after the last one the actions."""
        sites = self._contents_shown[0].sites if self._contents_shown else ()
        self.query_one(KeyLine).say("" if sites else "its trace recorded no neurons by decision")
        self._site = (self._site + 1) % (len(sites) + 1)
        self.paint()

    def action_zoom(self) -> None:
        """Give pictures and paths the room of the tracks, or give it back."""
        self.toggle_class("-zoomed")

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

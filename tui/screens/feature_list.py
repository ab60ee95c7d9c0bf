"""What the list of features shows: the table and the card, read on a thread."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tui.data.apart import apart
from tui.data.feature_filter import matching, parse, signal_of
from tui.data.feature_sources import COVERAGE, FeatureSource, feature_sources
from tui.data.filter_words import Term
from tui.data.model import Episode, Run
from tui.data.records import Record, feature_record
from tui.screens.feature_card import feature_card
from tui.screens.feature_rows import COLUMNS, SORTED_BY, FeatureRows
from tui.screens.help import key_for
from tui.screens.order import Order
from tui.screens.sharing import Records
from tui.screens.steering_list import SteeringList
from tui.terminal import one_line
from tui.widgets.lines import Span, TextLines, fit, wrap
from tui.widgets.table import Column, Row

if TYPE_CHECKING:
    from tui.data.features import FeatureCard, Features

LEGEND = "signal: the strongest it follows; p: beyond other episodes, BH over features"
EXAMPLE = Path("sae/vlm.2.resid_post")
"""Where `vla-trace sae train` puts the autoencoders of that site."""


class FeatureList(SteeringList):
    """Every feature of an autoencoder: when it comes, what it follows, how high it peaks."""

    COLUMNS = COLUMNS

    def __init__(self) -> None:
        super().__init__(Order("feature"))
        self._all: tuple[FeatureSource, ...] = ()
        self._looks = 0
        """Times that the folder was looked at."""
        self._folder: Path | None = None
        """The autoencoder that is shown."""
        self._features: Features | None = None
        self._terms: tuple[Term, ...] = ()
        self._unreadable = ""
        """What is wrong with the filter."""
        self._rows: tuple[object, list[Row] | FeatureRows] = ((), [])
        self._here: tuple[object, dict[str, tuple[Run, Episode]]] = ((), {})

    @property
    def sources(self) -> tuple[FeatureSource, ...]:
        """The autoencoders that were described."""
        return tuple(source for source in self._all if source.stamp is not None)

    @property
    def source(self) -> FeatureSource | None:
        """The autoencoder that is shown."""
        return next((s for s in self.sources if s.folder == self._folder), None)

    @property
    def feature(self) -> int | None:
        """Number of the feature under the cursor."""
        row = self.table.row
        return int(self._features.feature[row.key]) if row and self._features is not None else None

    def paint(self) -> None:
        """Show what is known, and ask for what is not."""
        if self.drawable:
            self.run_below()
            self._read_on()
            self._terms, self._unreadable = parse(self.needle)
            super().paint()
            self._paint_legend()

    def looked(self) -> None:
        """Look for autoencoders that were described meanwhile: they are in no folder of runs."""
        super().looked()
        if self._taken.get("sources") == self._looks:  # else it is still being looked at
            self._looks += 1
        if self.drawable:
            self.paint()

    def _read_on(self) -> None:
        """Find the autoencoders, then read the one that is shown."""
        folder = self.app.folder
        found = self.take("sources", self._looks, lambda: feature_sources(folder))
        if found is not None:
            self._all = found
        if self.source is None:
            self.show_source(self.sources[0].folder if self.sources else None)
        source = self.source
        if source is None:
            return

        def columns() -> object:
            return apart("tui.data.feature_table:read_features", source.folder)

        key = source.folder, source.stamp
        if (new := self.take("features", key, columns)) is not None:
            self._features = new

    def show_source(self, folder: Path | None) -> None:
        """Show another autoencoder."""
        if folder != self._folder:
            self._folder, self._features = folder, None
            self._taken.pop("features", None)
            self._troubles.pop("features", None)

    def hint(self) -> list[list[Span]]:
        """Say how to get features where there are none."""
        if self._features is not None:
            return []
        width = max(20, self.size.width - 4)
        if self.source is not None:
            said = self.trouble or "reading the features …"
            style = "warn" if self.trouble else "dim"
            return [[(text, style)] for text in wrap(one_line(said), width, 4)]
        if "sources" not in self._taken:
            return [[("reading …", "dim")]]
        train = f"vla-trace sae train traces/*.h5 --site {EXAMPLE.name}"
        folder = shlex.quote(str(self._all[0].folder if self._all else EXAMPLE / "seed0"))
        describe = f'vla-trace sae features {folder} --traces "traces/*.h5"'
        what = "was described yet; do it" if self._all else "is here yet; train one and describe it"
        said = wrap(f"no sparse autoencoder {what}:", width, 2)
        lines: list[list[Span]] = [[(text, "bold")] for text in said]
        for command in (describe,) if self._all else (train, describe):
            lines += [[(f"  {text}", "accent")] for text in wrap(one_line(command), width - 2, 4)]
        return [*lines, [(f"{key_for(self, 'features.neurons')} shows the neurons again", "dim")]]

    def rows(self) -> list[Row] | FeatureRows:
        """Return the features that the filter keeps, in order; the same object while they are."""
        features = self._features
        if features is None:
            return []
        key = features, self._order, self._terms
        if self._rows[0] != key:
            signal = signal_of(self._terms)
            shown = _sorted(
                features.numbers(self._order.by, signal),
                matching(features, self._terms),
                self._order,
            )
            self._rows = key, FeatureRows(features, shown, signal)
        return self._rows[1]

    def columns(self) -> Sequence[Column]:
        """Return the columns with an arrow at the one they are sorted by."""
        return self._order.titled(COLUMNS, SORTED_BY)

    def title_spans(self) -> list[Span]:
        """Return the autoencoder, and how many there are."""
        spans: list[Span] = [(" Neurons > ", "dim"), ("features ", "bold")]
        sources = self.sources
        if self.source is not None:
            spans.append((f" {self.source.name}", ""))
        if len(sources) > 1:
            at = sources.index(self.source) + 1
            keys = (key_for(self, f"neurons.policy-{name}") for name in ("before", "next"))
            spans.append((f" {at} of {len(sources)} {' '.join(keys)}", "dim"))
        return [*spans, *self.recording_spans()]

    def _paint_legend(self) -> None:
        """Say what was described, or what is wrong."""
        legend = self.query_one("#legend", TextLines)
        said, style = LEGEND, "dim"
        if trouble := self._unreadable or self.trouble:
            said, style = one_line(trouble), "warn"
        shown = self._features is not None
        legend.show([[(fit(f" {said}", legend.size.width), style)]] if shown else [])

    def card(self, row: Row, width: int) -> list[list[Span]]:
        """Return the card of a feature, where it is to be seen."""
        if not self.shows_card:
            return []
        card, error = self.card_of(int(self._features.feature[row.key]))
        if card is None:
            return [[(text, "dim")] for text in wrap(one_line(error), width, 3)]
        size = width, self.query_one("#preview").content_size.height
        here = {uid: episode for uid, (_, episode) in self.episodes_of(card).items()}
        return feature_card(card, here, size, key_for(self, "neurons.card"))

    def card_of(self, feature: int) -> "tuple[FeatureCard | None, str]":
        """Return what was written of a feature; else why it is not there, or that it is read."""
        source = self.source

        def read() -> object:
            return apart("tui.data.feature_table:read_card", source.folder, feature)

        return self.load((source.folder, source.stamp, feature), read) or (None, "reading …")

    def episodes_of(self, card: "FeatureCard") -> dict[str, tuple[Run, Episode]]:
        """Return uid to episode, of those of a card whose traces are in the folder."""
        if self._here[0] != (card, self.app.runs):
            wanted = {row["uid"] for row in card.top}
            all_of_them = ((run, episode) for run in self.app.runs for episode in run.episodes)
            here = {e.uid: (run, e) for run, e in all_of_them if e.uid in wanted and e.path}
            self._here = (card, self.app.runs), here
        return self._here[1]

    def source_of(self, row: Row) -> object:
        """Return the table of the features."""
        return self.source.folder / COVERAGE

    def exported(self) -> tuple[str, Records]:
        """Return the features shown, in their order."""
        features, rows, signal = self._features, self.table.rows, signal_of(self._terms)

        def records() -> list[Record]:
            return [feature_record(features, row.key, signal) for row in rows]

        return f"features-{self.source.name if self.source else ''}", records


def _sorted(values: np.ndarray, rows: np.ndarray, order: Order) -> np.ndarray:
    from tui.data.neurons import ordered

    return ordered(values, rows, order.descending, absolute=order.by == "r")

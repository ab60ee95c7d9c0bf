"""What the Neurons screen shows: the table and the card, read part by part on a thread."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tui.data.apart import apart
from tui.data.draft import EMBEDDED
from tui.data.neuron_filter import Term, concept_of, matching, parse
from tui.data.neuron_sources import PolicySource, policy_sources
from tui.data.records import Record, neuron_record
from tui.screens.help import key_for
from tui.screens.neuron_card import Known, neuron_card
from tui.screens.neuron_rows import COLUMNS, SORTED_BY, NeuronRows
from tui.screens.order import Order
from tui.screens.sharing import Records
from tui.screens.steering_list import SteeringList
from tui.terminal import one_line
from tui.widgets.lines import Span, TextLines, fit, wrap
from tui.widgets.table import Column, Row

if TYPE_CHECKING:
    from tui.data.neurons import Neurons

LEGEND = "effect: ΔMEED of a cluster it was in, against the baseline; n/a = not steered"


class NeuronList(SteeringList):
    """Every neuron of a policy, with what it writes, how it fires and what steering it did."""

    COLUMNS = COLUMNS

    def __init__(self) -> None:
        super().__init__(Order("layer"))
        self._sources: tuple[PolicySource, ...] = ()
        self._sha256 = ""
        self._neurons: Neurons | None = None
        self._terms: tuple[Term, ...] = ()
        self._unreadable = ""
        """What is wrong with the filter."""
        self._shown: tuple[object, np.ndarray] = ((), np.zeros(0, int))
        self._rows: tuple[object, list[Row] | NeuronRows] = ((), [])
        self._marks: dict[str, dict[tuple[int, int], bool]] = {}

    @property
    def source(self) -> PolicySource | None:
        """The policy that is shown."""
        return next((s for s in self._sources if s.sha256 == self._sha256), None)

    @property
    def marks(self) -> dict[tuple[int, int], bool]:
        """Neuron of the policy to whether it was accepted (else rejected)."""
        return self._marks.setdefault(self._sha256, {})

    @property
    def place(self) -> tuple[int, int] | None:
        """Layer and number of the neuron under the cursor."""
        row = self.table.row
        return self._neurons.place(row.key) if row and self._neurons is not None else None

    def paint(self) -> None:
        """Show what is known, and ask for what is not."""
        if self.drawable:
            self._look_around()
            self._read_on()
            self._terms, self._unreadable = parse(self.needle)
            super().paint()
            self._paint_legend()

    def looked(self) -> None:
        """Show a table that was made meanwhile: it is in no folder of runs."""
        super().looked()
        table = self.source.stamp if self.source else None
        if table != self._taken.get("columns") or policy_sources(self.app.runs) != self._sources:
            self.paint()

    def _look_around(self) -> None:
        """Find the policies; one opened from another run shows that run's."""
        self._sources = policy_sources(self.app.runs)
        known = {source.sha256 for source in self._sources}
        if (run := self.run_below()) is not None:
            of_run = [sha for file in run.files for sha, _ in file.policies if sha in known]
            self._show_policy(of_run[0] if of_run else self._sha256)
        if self._sha256 not in known:
            self._show_policy(self._sources[0].sha256 if self._sources else "")

    def _show_policy(self, sha256: str) -> None:
        if sha256 != self._sha256:
            self._sha256, self._neurons = sha256, None
            self._taken, self._troubles = {}, {}

    def _read_on(self) -> None:
        """Read the columns part by part: what is quick comes first."""
        source = self.source
        table = source.stamp if source else None
        if table is None:
            self._neurons = None
            self._taken.clear()
            return
        path, sha256 = source.table, source.sha256

        def columns() -> object:
            return apart("tui.data.neuron_table:read_neurons", path, sha256)

        def words() -> object:
            return apart("tui.data.neuron_table:read_words", path)

        def doses() -> object:
            from tui.data.effects import read_doses

            return read_doses(source.files)

        def fired() -> object:
            from tui.data.neuron_evidence import read_firing

            return read_firing(source)

        stamps = tuple((file.path, file.stamp) for file in source.files)
        if (new := self.take("columns", table, columns)) is not None:
            self._neurons, self._taken = new, {"columns": table}
        if self._taken.get("columns") != table or self._neurons is None:
            return
        if (new := self.take("words", table, words)) is not None:
            self._neurons = replace(self._neurons, words=new)
        if (new := self.take("doses", (sha256, stamps), doses)) is not None:
            self._neurons = replace(self._neurons, doses=new)
        if (new := self.take("fired", (sha256, stamps), fired)) is not None:
            self._neurons = self._neurons.with_firing(*new)

    def hint(self) -> list[list[Span]]:
        """Say how to make a neuron table where there is none."""
        if self._neurons is not None:
            return []
        if not self.app.loaded:
            return [[("reading …", "dim")]]
        source, width = self.source, max(20, self.size.width - 4)
        if source is not None and source.stamp is not None:
            trouble = self._troubles.get("columns")
            said = wrap(trouble or "reading the neuron table …", width, 4)
            return [[(text, "warn" if trouble else "dim")] for text in said]
        policy = shlex.quote(source.path) if source and source.path != EMBEDDED else ""
        of = f" of {source.name}" if source else ""
        command = one_line(f"vla-trace neurons {policy}")
        lines: list[list[Span]] = [[(f"no neuron table{of} yet; make it:", "bold")]]
        lines += [[(text, "accent")] for text in wrap(command, width, 4)]
        if len(self._sources) > 1:
            before, next_one = self._policy_keys()
            said = f"{before} and {next_one} show the other policies, {len(self._sources)} in all"
            lines.append([(said, "dim")])
        return lines

    def rows(self) -> list[Row] | NeuronRows:
        """Return the neurons that the filter keeps, in order; the same object while they are."""
        neurons = self._neurons
        if neurons is None:
            return []
        marked = tuple(self.marks.items())
        by_mark = marked if any(term.field == "mark" for term in self._terms) else ()
        key = neurons, self._order, self._terms, by_mark
        if self._shown[0] != key:
            rows = matching(neurons, self._terms, self.marks)
            values = neurons.numbers(self._order.by, concept_of(self._terms))
            self._shown = key, _sorted(values, rows, self._order)
        if self._rows[0] != (key, marked):
            order, concept = self._shown[1], concept_of(self._terms)
            self._rows = (key, marked), NeuronRows(neurons, order, self.marks, concept)
        return self._rows[1]

    def columns(self) -> Sequence[Column]:
        """Return the columns with an arrow at the one they are sorted by."""
        return self._order.titled(COLUMNS, SORTED_BY)

    def title_spans(self) -> list[Span]:
        """Return the policy, the order and the cluster so far."""
        spans: list[Span] = [(" Neurons ", "bold")]
        source = self.source
        if source is not None:
            name = source.name if source.path or self._neurons is None else self._named_by_table()
            spans.append((f" {name}", ""))
        if len(self._sources) > 1:
            at = [s.sha256 for s in self._sources].index(self._sha256) + 1
            keys = " ".join(self._policy_keys())
            spans.append((f" {at} of {len(self._sources)} {keys}", "dim"))
        accepted = sum(self.marks.values())
        if self.marks:
            spans.append((f"  {accepted} in", "good"))
            spans.append((f" {len(self.marks) - accepted} out", "dim"))
        return spans

    def _policy_keys(self) -> tuple[str, str]:
        return key_for(self, "neurons.policy-before"), key_for(self, "neurons.policy-next")

    def _named_by_table(self) -> str:
        policy = str(self._neurons.facts.get("policy", "")).rstrip("/").rsplit("/", 1)[-1]
        return one_line(f"{policy}@{self._sha256[:8]}")

    def _paint_legend(self) -> None:
        """Say what the last column means, or what is being read, or what is wrong."""
        legend = self.query_one("#legend", TextLines)
        said, style = LEGEND, "dim"
        neurons = self._neurons
        trouble = self._unreadable or self.trouble
        if trouble:
            said, style = one_line(trouble), "warn"
        elif neurons is not None and neurons.words is None:
            said = "reading tokens …"
        elif neurons is not None and neurons.doses is None:
            said = "reading what steering did …"
        legend.show([[(fit(f" {said}", legend.size.width), style)]] if neurons else [])

    def card(self, row: Row, width: int) -> list[list[Span]]:
        """Return the card of a neuron, where it is to be seen."""
        if not self.shows_card:
            return []
        place = self._neurons.place(row.key)
        known = self._known_of(place)
        size = width, self.query_one("#preview").size.height
        return neuron_card(self._neurons, row.key, self.marks.get(place), known, size)

    def source_of(self, row: Row) -> object:
        """Return the neuron table."""
        return self.source.table

    def exported(self) -> tuple[str, Records]:
        """Return the neurons shown, in their order."""
        neurons, rows, marks = self._neurons, self.table.rows, dict(self.marks)

        def records() -> list[Record]:
            return [
                neuron_record(neurons, row.key, marks.get(neurons.place(row.key))) for row in rows
            ]

        return f"neurons-{self.source.name if self.source else ''}", records

    def _known_of(self, place: tuple[int, int]) -> Known:
        """Return what was read of a neuron; what was not is asked for, one after the other."""
        source, (layer, neuron) = self.source, place
        others = [s for s in self._sources if s.sha256 != source.sha256 and s.unsteered]
        compared = [source, *others[:1]]
        stamps = tuple(file.stamp for one in compared for file in one.unsteered)

        def spelling() -> object:
            return apart("tui.data.neuron_table:read_spelling", source.table, place)

        def fired() -> object:
            from tui.data.neuron_evidence import read_fired

            return read_fired(compared, layer, neuron)

        def shifts() -> object:
            from tui.data.neuron_evidence import read_shift

            return read_shift(source, others[0], layer)

        found = []
        wanted = [
            (("spelling", self._sha256, place), spelling),
            (("fired", self._sha256, place, stamps), fired),
        ]
        if others and source.unsteered:
            wanted.append((("shifts", self._sha256, layer, stamps), shifts))
        for key, read in wanted:
            content, error = self.load(key, read) or (None, "reading …")
            found.append(error or content)
            if content is None and not error:
                break
        said = "reading …" if others else "shift: needs recordings of a fine-tuned policy here, too"
        found += [said] * (3 - len(found))
        if isinstance(found[2], str):
            return Known(*found)
        from tui.data.neuron_evidence import moved

        return Known(found[0], found[1], moved(found[2], neuron, source, others[0]))


def _sorted(values: np.ndarray, rows: np.ndarray, order: Order) -> np.ndarray:
    from tui.data.neurons import ordered

    return ordered(values, rows, order.descending, absolute=order.by == "effect")

"""Neurons: look through them, choose a cluster by hand, save it, steer with it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType

from tui.data import draft
from tui.data.neuron_filter import concept_of
from tui.screens.help import key_for
from tui.screens.neuron_list import NeuronList
from tui.screens.neuron_rows import SORTS
from tui.screens.neuron_tabs import switch_tab
from tui.widgets.keys import key
from tui.widgets.lines import Span

if TYPE_CHECKING:
    from traces.intervention import Intervention


class NeuronsScreen(NeuronList):
    """The list of neurons with its keys, and the cluster that is being built."""

    RISING = ("layer",)
    BINDINGS: ClassVar[list[BindingType]] = [
        key("neurons.features", "f", "features", "features", "features of sparse autoencoders"),
        key("neurons.accept", "a", "mark(True)", "in", "accept into the cluster; again: no mark"),
        key("neurons.reject", "d", "mark(False)", "out", "reject from the cluster; again: no mark"),
    ]

    def title_spans(self) -> list[Span]:
        """Add the recording that was started from here."""
        return [*super().title_spans(), *self.recording_spans()]

    def sortable(self) -> Sequence[str]:
        """Return the columns in which anything is known."""
        if self._neurons is None:
            return ()
        from tui.data.neurons import known_columns

        return known_columns(self._neurons, SORTS)

    def action_features(self) -> None:
        """Show the features of autoencoders instead."""
        switch_tab(self.app, "features")

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

    def action_source(self, by: int) -> None:
        """Show another policy's neurons."""
        if len(self._sources) > 1:
            known = [source.sha256 for source in self._sources]
            self._show_policy(known[(known.index(self._sha256) + by) % len(known)])
            self.paint()

    # A cluster of one's own

    def choice(self) -> tuple[str, dict[tuple[int, int], bool]] | None:
        """Return the policy and its marks."""
        return (self._sha256, dict(self.marks)) if any(self.marks.values()) else None

    def question(self) -> tuple[str, str]:
        """Ask for a name and a dose."""
        accepted = [place for place, kept in self.marks.items() if kept]
        if not accepted:
            accept = key_for(self, "neurons.accept")
            return f"no neuron is accepted: {accept} accepts the one under the cursor", ""
        concept = concept_of(self._terms) or "cluster"
        name = f"{concept}-L{accepted[0][0]}-x{len(accepted)}"
        return "name and dose", f"{name} {draft.ALPHA:g}"

    def drafted(
        self, choice: tuple[str, dict[tuple[int, int], bool]], answer: str
    ) -> "Intervention":
        """Return the overwrite of the accepted neurons."""
        name, alpha = draft.named_dose(answer)
        sha256, marks = choice
        return draft.cluster(name, alpha, marks, sha256)

    def policy_path(self) -> str:
        """Return where the policy was loaded from."""
        return self.source.path if self.source else ""

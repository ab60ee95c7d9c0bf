"""Features of sparse autoencoders: look through them, see where they peak, steer with one."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType

from tui.data import draft
from tui.data.apart import apart
from tui.data.neuron_sources import policy_sources
from tui.screens.choice import ChoiceScreen
from tui.screens.feature_card import EPISODES, episode_rows
from tui.screens.feature_list import FeatureList
from tui.screens.feature_rows import SORTS
from tui.screens.neuron_tabs import switch_tab
from tui.widgets.keys import KeyLine, key

if TYPE_CHECKING:
    from traces.intervention import Intervention
    from tui.data.features import FeatureCard

ASKS = "way (add, project_out, set or scale) and dose"
PROPOSED = "add 1"


class FeaturesScreen(FeatureList):
    """The list of features with its keys."""

    RISING = ("feature", "p")
    BINDINGS: ClassVar[list[BindingType]] = [
        key("features.neurons", "f", "neurons", "neurons", "the neurons again"),
    ]

    def sortable(self) -> Sequence[str]:
        """Return the columns in which anything is known."""
        if self._features is None:
            return ()
        from tui.data.neurons import known_columns

        return known_columns(self._features, SORTS)

    def action_neurons(self) -> None:
        """Show the neurons instead."""
        switch_tab(self.app, "neurons")

    def action_source(self, by: int) -> None:
        """Show another autoencoder."""
        known = [source.folder for source in self.sources]
        if len(known) > 1:
            self.show_source(known[(known.index(self._folder) + by) % len(known)])
            self.paint()

    def action_card(self) -> None:
        """Show the card; where it is shown, the episodes in which the feature peaks highest."""
        if not self.shows_card:
            super().action_card()
        elif self.feature is not None:
            card, _ = self.card_of(self.feature)
            if card is not None:
                self._choose_episode(card)

    def _choose_episode(self, card: "FeatureCard") -> None:
        here = self.episodes_of(card)

        def open_episode(place: object) -> None:
            if place is None:
                return
            row = card.top[place]
            if row["uid"] not in here:
                self.query_one(KeyLine).say("the trace of that episode is not in this folder")
                return
            from tui.screens.episode import EpisodeScreen

            run, episode = here[row["uid"]]
            self.app.push_screen(EpisodeScreen(run.key, episode, row["step"]))

        heading = f"feature {card.about['feature']} peaks in"
        episodes = {uid: episode for uid, (_, episode) in here.items()}
        choice = ChoiceScreen(heading, EPISODES, episode_rows(card, episodes), "nowhere")
        self.app.push_screen(choice, open_episode)

    # The intervention

    def choice(self) -> tuple[Path, int] | None:
        """Return the autoencoder and the feature under the cursor."""
        feature = self.feature
        return None if feature is None else (self._folder, feature)

    def question(self) -> tuple[str, str]:
        """Ask for the way and the dose; 1 is what the feature reaches by itself."""
        if self.feature is None:
            return "no feature is shown", ""
        return f"feature {self.feature}, {ASKS}", PROPOSED

    def drafted(self, choice: tuple[Path, int], answer: str) -> "Intervention":
        """Return what `vla-trace sae steer` writes."""
        way, dose = draft.named_dose(answer, f"{ASKS}, such as: {PROPOSED}")
        folder, feature = choice
        home = draft.home_of(self.app.folder)
        draw = "tui.data.feature_table:draft_feature"
        return apart(draw, folder, home, feature, way, dose)

    def policy_path(self) -> str:
        """Return where the policy that it was trained on was loaded from, else its name."""
        sha256 = self.source.policy_sha256 if self.source else ""
        known = {source.sha256: source.path for source in policy_sources(self.app.runs)}
        named = str(self._features.facts.get("policy", "")) if self._features else ""
        return known.get(sha256) or named.partition("@")[0]

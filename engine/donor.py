"""What `patch` puts in: activations that another recording kept token by token.

Decision n of an episode takes the values of decision n of its donor's episode. Where the donor has
none (it was over, or the token is padding there) the natural value stays.
"""

from collections.abc import Iterable

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from engine import sites
from traces.collection import open_traces
from traces.errors import UserError
from traces.intervention import Intervention, Site

Scene = tuple[int, int]  # scene seed and initial state


class DonorTrace:
    """The recording that an intervention takes its values from.

    Args:
        policy: the policy that is patched.
        intervention: a `patch`.
        n_executed: action rows of each chunk that are sent.

    Raises:
        UserError: the recording lacks a site token by token, or is of another policy's shape, or
            was asked at other control steps.
    """

    def __init__(self, policy: PreTrainedPolicy, intervention: Intervention, n_executed: int):
        self.donor = intervention.donor
        self._traces = open_traces(self.donor.path)
        recordings = self._traces.recordings()
        if len(recordings) != 1:
            raise UserError(
                f"donor {self.donor.path} holds {len(recordings)} recordings; name the file of one"
            )
        if (replan := recordings[0].header.n_action_steps) != n_executed:
            raise UserError(
                f"donor {self.donor.path} was recorded with --replan {replan}, this is "
                f"--replan {n_executed}; decisions must fall on the same control steps"
            )
        self._values = {
            site: self._activation(policy, site, intervention.kind(site))
            for site in intervention.sites
        }
        episodes = self._traces.episodes(
            "uid", "scene_seed", "init_state", "first_decision", "n_decisions"
        )
        self._spans = list(
            zip(episodes["first_decision"].tolist(), episodes["n_decisions"].tolist(), strict=True)
        )
        self._by_uid = {str(uid): i for i, uid in enumerate(episodes["uid"])}
        scenes = zip(episodes["scene_seed"].tolist(), episodes["init_state"].tolist(), strict=True)
        self._by_scene = {scene: i for i, scene in enumerate(scenes)}

    def expect(self, scenes: Iterable[Scene]) -> None:
        """Check that every episode to come has its donor.

        Raises:
            UserError: one has none.
        """
        for scene in scenes:
            self._episode(scene)

    def values(self, scene: Scene, decision: int) -> dict[Site, Tensor] | None:
        """Site to the donor's values in a decision, (tokens, N) or (K, tokens, N); None: none."""
        first, count = self._spans[self._episode(scene)]
        if decision >= count:
            return None
        found = {}
        for site, rows in self._values.items():
            place = int(np.searchsorted(rows.decisions, first + decision))
            if place == len(rows) or rows.decisions[place] != first + decision:
                return None
            value = torch.from_numpy(np.asarray(rows[place], np.float32))
            found[site] = value[..., list(site.neurons)] if site.neurons else value
        return found

    def _episode(self, scene: Scene) -> int:
        chosen = self.donor.episodes.get(str(scene[0]), self.donor.episodes.get("*"))
        place = self._by_scene.get(scene) if chosen is None else self._by_uid.get(chosen)
        if place is None:
            wanted = f"of scene seed {scene[0]} and initial state {scene[1]}"
            raise UserError(
                f"donor {self.donor.path} has no episode "
                f"{wanted if chosen is None else repr(chosen)}; it has the scene seeds "
                f"{sorted(seed for seed, _ in self._by_scene)[:10]}; other pairs are named in the "
                "intervention's donor.episodes"
            )
        return place

    def _activation(self, policy: PreTrainedPolicy, site: Site, kind: str) -> object:
        place = sites.place(policy, site.tower, site.layer, kind)
        vlm = site.tower == "vlm"
        name = f"{place.name}.each" if vlm else f"{place.name}.chunk.each"
        shape = (place.tokens, place.width)
        shape = shape if vlm else (place.calls, *shape)
        found = {info.name: info for info in self._traces.sites()}
        if name not in found:
            options = "keep=each" if vlm else "tokens=chunk,keep=each"
            raise UserError(
                f"donor {self.donor.path} did not record {name}; record it with: vla-trace record "
                f"--capture {site.tower}.{site.layer}.{kind}:{options},dtype=float32"
            )
        if found[name].shape != shape:
            raise UserError(
                f"donor {self.donor.path}: {name} has the shape {found[name].shape}, this policy "
                f"{shape}"
            )
        return self._traces.activation(name)

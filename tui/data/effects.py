"""What steering did, by neuron: every recorded intervention with the neurons that were in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tui.data.model import TraceFile
from tui.data.summary import Interval, analysed

ROLES = ("steered", "random", "null")


@dataclass(frozen=True)
class Dose:
    """One intervention at one dose on one task, beside its baseline."""

    label: str
    role: str
    """steered, random (a control drawn by chance) or null (where nothing reads)."""
    task: str
    alpha: float | None
    places: tuple[tuple[int, int], ...]
    """(layer, neuron) of all that it acted on."""
    successes: int
    n: int
    n_pairs: int
    delta_cm: float
    """MEED, mean over pairs of steered minus baseline [cm per control step]."""
    delta_ci: Interval | None
    p_value: float | None


def read_doses(files: Sequence[TraceFile]) -> tuple[Dose, ...]:
    """Analyse the traces of one policy and return the interventions on clusters of its VLM.

    Those without a baseline partner tell no effect and are left out, as are whole layers and
    directions, which are no cluster of neurons.
    """
    interventions = {}
    for file in files:
        if (found := file.header.intervention) is not None:
            interventions[found.fingerprint()] = found
    if not interventions:
        return ()
    doses = []
    for condition in analysed(tuple((file.paths, file.stamp) for file in files)).conditions:
        intervention = interventions.get(condition.fingerprint)
        if intervention is None or condition.delta_cm is None:
            continue
        places = tuple(
            (site.layer, neuron)
            for site in intervention.sites
            if site.tower == "vlm" and intervention.kind(site) == "ffn_act" and not intervention.sae
            for neuron in site.neurons
        )
        if places:
            doses.append(
                Dose(
                    label=condition.label,
                    role=condition.role,
                    task=condition.task,
                    alpha=condition.alpha,
                    places=places,
                    successes=condition.successes,
                    n=condition.n,
                    n_pairs=condition.n_pairs,
                    delta_cm=condition.delta_cm,
                    delta_ci=condition.delta_ci,
                    p_value=condition.p_value,
                )
            )
    return tuple(doses)


def chosen_dose(doses: Sequence[Dose]) -> Dose:
    """Return the one that a list shows: a chosen cluster before a control, then the largest dose.

    Never the one with the largest effect, which chance would have chosen.
    """
    return min(doses, key=lambda d: (ROLES.index(d.role), -abs(d.alpha or 0.0), -d.n_pairs))

"""Which FFN can change the action: by how the towers are wired, and by trying.

Every FFN's activations are scaled by 1 + epsilon at real observations, the noise kept. What cannot
reach the action must leave it as it was, bit for bit; what can must move it. How much is said per
unit of relative change, |da| / epsilon, in the units of the action that is sent.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from engine import sites
from engine.actor import BATCH, Actor, Request
from engine.envs import load_suite
from engine.likelihoods.flow_sde import FlowSDE
from engine.noise import NoiseKey
from engine.policies.smolvla import LoadedPolicy, policy_state
from traces.intervention import Intervention, Site

EPSILON = 0.1


@dataclass(frozen=True)
class Reach:
    """What is known of one FFN."""

    site: str
    tower: str
    layer: int
    structure: bool
    """whether anything that leads to the action reads what it writes"""
    trial: bool
    """whether the perturbation changed a bit of an action"""
    max_change: float
    """largest |da| / epsilon over observations, chunk rows and action entries"""
    rms_change: float
    """root mean square of da / epsilon over the same"""

    @property
    def agrees(self) -> bool:
        """Whether structure and trial say the same."""
        return self.structure == self.trial

    def to_dict(self) -> dict:
        """As `reach --json` prints it."""
        return asdict(self) | {"agrees": self.agrees}


def reach(
    loaded: LoadedPolicy,
    requests: Sequence[Request],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Reach]:
    """Try every FFN of both towers.

    Args:
        loaded: the policy.
        requests: real observations, up to BATCH; one policy call a site sees them all.
        progress: told sites done and in all.
    """
    chunk = loaded.policy.config.chunk_size
    actor = Actor(loaded, FlowSDE(sites.denoise_steps(loaded.policy), 0.0), chunk, wanted=())
    natural = _actions(actor, requests, None)
    places = [p for p in sites.places(loaded.policy) if p.kind == "ffn_act"]
    found = []
    for done, place in enumerate(places, start=1):
        change = np.abs(_actions(actor, requests, _perturbation(place)) - natural)
        found.append(
            Reach(
                site=place.name,
                tower=place.tower,
                layer=place.layer,
                structure=place.reaches_action,
                trial=bool(change.any()),
                max_change=float(change.max()) / EPSILON,
                rms_change=float(np.sqrt(np.mean(np.square(change)))) / EPSILON,
            )
        )
        progress(done, len(places))
    return found


def first_observations(suite_name: str, task_id: int, n: int, seed: int = 0) -> list[Request]:
    """What the policy sees first in `n` scenes of a suite, the instruction as the task has it."""
    suite = load_suite(suite_name)
    env, requests = suite.make_env(task_id), []
    try:
        for scene in range(seed, seed + n):
            init_state = scene % suite.N_INIT_STATES
            seen, _ = env.reset(seed=scene, options={"init_state": init_state})
            requests.append(
                Request(
                    pixels=seen["pixels"],
                    state=policy_state(seen["robot_state"]),
                    instruction=suite.instruction_of(task_id, init_state),
                    key=NoiseKey(seed, 0, scene, 0),
                    decision=0,
                    scene=(scene, init_state),
                )
            )
    finally:
        env.close()
    return requests


def _perturbation(place: sites.Place) -> Intervention:
    """The whole layer, 1 + epsilon times as large; where nothing reads it, declared a null."""
    provenance = {} if place.reaches_action else {"control": "null"}
    site = Site(place.tower, place.layer)
    return Intervention("reach", "scale", (site,), 1 + EPSILON, provenance=provenance)


def _actions(actor: Actor, requests: Sequence[Request], chosen: Intervention | None) -> np.ndarray:
    """(observations, chunk, A)."""
    given = (chosen,) if chosen else ()
    rows = [replace(request, interventions=given) for request in requests]
    decisions = actor.decide([*rows, *[None] * (BATCH - len(rows))])
    return np.stack([d.action for d in decisions[: len(rows)]]).astype(np.float64)

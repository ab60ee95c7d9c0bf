"""What each decision drove: how fast, how open the hand, in which phase.

A decision is a policy call; the control steps it drove are those that executed rows of its chunk
(`decisions/n_executed` of them). A signal of a decision is the mean over these steps.

    speed             distance the hand moved in a control step [cm]
    moves x           how far it moved along each axis of the world [cm]
    moves y
    moves z
    opening           distance between the fingers [cm]
    closing           share of steps in which the hand is told to close
    contact           share in which a finger touches something
    phase approach    share in each phase of `analysis.phases`
    phase contact
    phase transport
    time              share of the episode's control steps that passed before the decision: a clock,
                      for comparison
"""

import numpy as np

from analysis.motion import displacements_of
from analysis.phases import PHASES, phases, told_to_close
from analysis.spans import Spans
from traces.collection import TraceCollection

SIGNALS = {
    "speed": "cm per control step",
    **{f"moves {axis}": f"cm per control step along world {axis}" for axis in "xyz"},
    "opening": "cm between the fingers",
    "closing": "share of steps told to close",
    "contact": "share of steps that touch something",
    **{f"phase {name}": "share of steps in this phase" for name in PHASES},
    "time": "share of the episode passed",
}
"""Name to what it is, in the order of `decision_signals`."""

CLOCK = "time"


def decision_signals(traces: TraceCollection) -> np.ndarray:
    """Return (signals, D), in the order of `SIGNALS`; NaN where a decision drove no step."""
    episodes = traces.episodes("first_step", "n_steps", "final_ee_pos")
    steps = traces.steps("decision", "ee_pos", "gripper", "action", "contact")
    spans = Spans.of(episodes)
    closing = told_to_close(steps["action"])
    marked = phases(steps["contact"], closing, spans)
    moved = 100 * displacements_of(steps["ee_pos"], episodes["final_ee_pos"], spans)
    of_steps = [
        np.sqrt((moved * moved).sum(axis=1)),
        *moved.T,
        100 * np.abs(steps["gripper"][:, 0] - steps["gripper"][:, 1]),
        closing,
        steps["contact"],
        *(marked[name] for name in PHASES),
    ]
    decision, n = steps["decision"], traces.n_decisions
    count = np.bincount(decision, minlength=n)
    driven = np.where(count > 0, count, np.nan)
    means = [np.bincount(decision, values, minlength=n) / driven for values in of_steps]
    made = traces.decisions("episode", "t")
    clock = made["t"] / np.maximum(episodes["n_steps"], 1)[made["episode"]]
    return np.stack([*means, clock])

"""What steering costs: policy calls with and without it, in interleaved rounds.

Asked: at most 3 % more. Every round times one call of each arm, in changing order, on the same
observations; the ratio is the median over rounds of arm / unsteered, with the quartiles. `same`
is a second unsteered arm: what the machine itself adds. Captured is the `standard` preset without
the steered neurons' own recording, so that only steering differs.
"""

import os
import platform
import statistics
import sys
import time
from dataclasses import replace

import numpy as np

ROUNDS = int(sys.argv[1]) if sys.argv[1:] else 150
NEURONS = tuple(range(0, 200, 10))


def main() -> None:
    """Print one table."""
    from engine import sites
    from engine.actor import Actor
    from engine.likelihoods.flow_sde import FlowSDE
    from engine.policies.smolvla import EMBEDDED, load_policy
    from engine.reach import first_observations
    from traces.intervention import Intervention, Site

    loaded = load_policy(EMBEDDED)
    requests = first_observations("tabletop", 0, 8)
    actor = Actor(loaded, FlowSDE(sites.denoise_steps(loaded.policy)))
    width = sites.place(loaded.policy, "vlm", 2, "resid_post").width
    direction = tuple(np.random.default_rng(0).normal(size=width) / width)
    arms = {
        "unsteered": (),
        "same": (),
        "20 vlm neurons": (Intervention("n", "overwrite", (Site("vlm", 1, NEURONS),), 8.0),),
        "a direction": (Intervention("d", "add_direction", (Site("vlm", 2, (), direction),), 1.0),),
        "project out": (Intervention("p", "project_out", (Site("vlm", 2, (), direction),), 1.0),),
        "20 expert neurons": (Intervention("e", "overwrite", (Site("expert", 2, NEURONS),), 1.0),),
        "20 neurons of 3 layers": (
            Intervention("m", "overwrite", tuple(Site("vlm", i, NEURONS) for i in (1, 2, 3)), 8.0),
        ),
        "another set in each row": None,
    }
    rows = {
        name: [replace(r, interventions=chosen) for r in requests]
        for name, chosen in arms.items()
        if chosen is not None
    }
    rows["another set in each row"] = [
        replace(
            r,
            interventions=(
                Intervention(f"r{i}", "overwrite", (Site("vlm", 1, (i, i + 50)),), 8.0),
            ),
        )
        for i, r in enumerate(requests)
    ]
    names = list(rows)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(ROUNDS + 5):
        turn = round_ % len(names)
        for name in names[turn:] + names[:turn]:
            began = time.perf_counter()
            actor.decide(rows[name])
            if round_ >= 5:  # the first ones warm up
                seconds[name].append(time.perf_counter() - began)
    print(f"steering_overhead on {platform.machine()}, {os.cpu_count()} cores: {ROUNDS} rounds")
    print(f"{'arm':26}{'ms/call':>9}{'ratio':>8}{'25 %':>8}{'75 %':>8}")
    for name in names:
        ratios = [a / b for a, b in zip(seconds[name], seconds["unsteered"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        ms = 1000 * statistics.median(seconds[name])
        print(f"{name:26}{ms:9.2f}{middle:8.3f}{low:8.3f}{high:8.3f}")


if __name__ == "__main__":
    main()

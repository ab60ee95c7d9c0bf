"""What steering costs: policy calls with and without it, in interleaved rounds.

Asked: at most 3 % more. Every round times one call of each arm, in changing order, on the same
observations; the ratio is the median over rounds of arm / unsteered, with the quartiles. Calls run
on one thread and are timed by its CPU clock, which other processes disturb less than the wall's;
both are given. `same` is a second unsteered arm: what the machine itself adds. Captured is the
`standard` preset without the steered neurons' own recording, so that only steering differs.
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
    cpu: dict[str, list[float]] = {name: [] for name in names}
    wall: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(ROUNDS + 5):
        turn = round_ % len(names)
        for name in names[turn:] + names[:turn]:
            began = time.thread_time(), time.perf_counter()
            actor.decide(rows[name])
            if round_ >= 5:  # the first ones warm up
                cpu[name].append(time.thread_time() - began[0])
                wall[name].append(time.perf_counter() - began[1])
    print(f"steering_overhead on {platform.machine()}, {os.cpu_count()} cores: {ROUNDS} rounds")
    print(f"{'arm':24}{'CPU ms':>8}{'ratio':>8}{'25 %':>8}{'75 %':>8}{'wall ms':>9}{'ratio':>8}")
    for name in names:
        low, middle, high = _quartiles(cpu[name], cpu["unsteered"])
        print(
            f"{name:24}{1000 * statistics.median(cpu[name]):8.2f}"
            f"{middle:8.3f}{low:8.3f}{high:8.3f}"
            f"{1000 * statistics.median(wall[name]):9.2f}"
            f"{_quartiles(wall[name], wall['unsteered'])[1]:8.3f}"
        )


def _quartiles(arm: list[float], unsteered: list[float]) -> list[float]:
    """Quartiles of the ratio round by round."""
    return statistics.quantiles([a / b for a, b in zip(arm, unsteered, strict=True)], n=4)


if __name__ == "__main__":
    main()

"""Measure what steering does to the embedded policy and write docs/steering.md: `make steering`.

Two rounds, so that no effect is judged on the scenes it was chosen on. The search goes through live
layers and doses on scene seeds 200 and up, and picks per concept the cell with the largest effect
in the concept's direction among those that keep at least half of the baseline's success. The test
plays the picked cell, the prompt that says the same in words, and random clusters matched in
layer, size and value-vector norm on held-out scenes 0 and up: same scenes, same noise.
"""

import argparse
import functools
import hashlib
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from analysis.clusters import choose_cluster
from analysis.controls import beyond, random_clusters
from analysis.stats import paired_difference, wilson
from engine.actor import BATCH, Actor
from engine.envs.tabletop import SUITE, TASKS
from engine.envs.vector import VectorEnv
from engine.evaluate import rollouts
from engine.likelihoods.flow_sde import FlowSDE
from engine.neurons import neuron_table
from engine.policies.smolvla import EMBEDDED, load_policy
from traces.errors import UserError
from traces.intervention import Intervention, Site

TEMPLATE = Path(__file__).with_suffix(".md")
DOSES = (4.0, 8.0)
CONCEPTS = {"fast": 1.0, "slow": -1.0}  # name and the sign its effect on MEED should have
WORDS = {"fast": "quickly", "slow": "slowly"}
SEARCH_FROM, TEST_FROM = 200, 0  # first scene seeds of the two rounds
TASK = 0
REPLAN = 5


@dataclass(frozen=True)
class Arm:
    """One condition on one range of scenes."""

    name: str
    first: int
    n: int
    intervention: Intervention | None = None
    say: str = ""
    dead: bool = False
    """Apply it although it cannot act, which the actor would refuse."""


@functools.cache
def _loaded(policy: str):
    return load_policy(policy)


@functools.cache
def _env() -> VectorEnv:
    """The environments; they end with this process."""
    return VectorEnv(SUITE, TASK, BATCH, 1)


def play(policy: str, arm: Arm) -> dict:
    """MEED in cm, success and a digest of all actions, per episode."""
    loaded = _loaded(policy)
    refused = arm.intervention if arm.dead else None
    actor = Actor(
        loaded,
        FlowSDE(loaded.policy.config.num_steps),
        REPLAN,
        None if refused else arm.intervention,
    )
    actor.intervention = refused or actor.intervention
    scenes = range(arm.first, arm.first + arm.n)
    meed, success, actions = [], [], hashlib.sha256()
    for _, record, _ in rollouts(
        actor, SUITE, TASK, scenes, told=lambda text, _: f"{text} {arm.say}".strip(), env=_env()
    ):
        path = np.vstack([record.steps["ee_pos"], record.episode["final_ee_pos"]])
        meed.append(100 * float(np.linalg.norm(np.diff(path, axis=0), axis=1).mean()))
        success.append(bool(record.episode["success"]))
        actions.update(record.steps["action"].tobytes())
    return {"meed": meed, "success": success, "actions": actions.hexdigest()}


def search_arms(policy: str, n: int) -> Iterator[tuple[str, int, Arm]]:
    """The baseline, then every concept in every live layer that has such a neuron, at each dose."""
    loaded = _loaded(policy)
    table = neuron_table(loaded)
    yield "", -1, Arm("baseline", SEARCH_FROM, n)
    for concept in CONCEPTS:
        for layer in table.filter("reach")["layer"].unique().sort().to_list():
            try:
                cluster = choose_cluster(
                    table, concept, alpha=1.0, checkpoint_sha256=loaded.sha256, layer=layer
                )
            except UserError:
                continue
            for dose in DOSES:
                arm = Arm(
                    f"{concept} {layer} {dose:g}", SEARCH_FROM, n, cluster.with_coefficient(dose)
                )
                yield concept, layer, arm


def compared(name: str, played: dict, baseline: dict, **more: object) -> dict:
    """One row of a table: success, MEED and its paired difference from the baseline."""
    difference = paired_difference(played["meed"], baseline["meed"])
    return {
        "name": name,
        "n": len(played["meed"]),
        "successes": int(sum(played["success"])),
        "meed_cm": float(np.mean(played["meed"])),
        "difference": difference.mean,
        "ci": difference.ci,
        "p": difference.p_value,
        **more,
    }


def measure(policy: str, n_search: int, n_test: int, n_random: int) -> dict:
    """Both rounds, two arms at a time."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:

        def played(arms: list[Arm], what: str) -> list[dict]:
            results = pool.map(functools.partial(play, policy), arms)
            return list(tqdm(results, what, len(arms)))

        wanted = list(search_arms(policy, n_search))
        found = played([arm for _, _, arm in wanted], "search")
        rows = [
            compared(
                concept,
                result,
                found[0],
                layer=layer,
                dose=arm.intervention.coefficient,
                hits=arm.intervention.provenance["hits"],
            )
            for (concept, layer, arm), result in zip(wanted[1:], found[1:], strict=True)
        ]
        baseline = compared("baseline", found[0], found[0])
        tests = {}
        for concept, sign in CONCEPTS.items():
            best = pick(rows, concept, sign, baseline["successes"])
            if best is None:
                tests[concept] = None
                continue
            arms = test_arms(policy, concept, best, n_test, n_random)
            tests[concept] = judged(arms, played(arms, f"test {concept}"), best)
    return {
        "sha256": _loaded(policy).sha256,
        "task": TASKS[TASK].name,
        "search_baseline": baseline,
        "search": rows,
        "tests": tests,
    }


def pick(rows: list[dict], concept: str, sign: float, baseline_successes: int) -> dict | None:
    """The largest effect in the concept's direction among cells that keep half the success."""
    cells = [
        row
        for row in rows
        if row["name"] == concept
        and sign * row["difference"] > 0
        and 2 * row["successes"] >= baseline_successes
    ]
    return max(cells, key=lambda row: sign * row["difference"], default=None)


def test_arms(policy: str, concept: str, best: dict, n: int, n_random: int) -> list[Arm]:
    """Baseline, the picked cluster, its prompt, the same neurons in the last layer, controls."""
    loaded = _loaded(policy)
    table = neuron_table(loaded)
    cluster = choose_cluster(
        table,
        concept,
        alpha=best["dose"],
        checkpoint_sha256=loaded.sha256,
        layer=best["layer"],
    )
    last = int(table["layer"].max())
    dead = replace(cluster, sites=(Site("vlm", last, cluster.sites[0].neurons),))
    return [
        Arm("baseline", TEST_FROM, n),
        Arm(f"{concept} cluster", TEST_FROM, n, cluster),
        Arm(f'instruction ends in "{WORDS[concept]}"', TEST_FROM, n, say=WORDS[concept]),
        Arm("same neurons, last layer", TEST_FROM, n, dead, dead=True),
        *(
            Arm(control.name, TEST_FROM, n, control)
            for control in random_clusters(table, cluster, n_random)
        ),
    ]


def judged(arms: list[Arm], results: list[dict], best: dict) -> dict:
    """Rows of the test table, and the rank of the effect among the random clusters."""
    rows = [
        compared(arm.name, result, results[0]) for arm, result in zip(arms, results, strict=True)
    ]
    controls = [row["difference"] for row in rows[4:]]
    return {
        "layer": best["layer"],
        "dose": best["dose"],
        "hits": best["hits"],
        "neurons": list(arms[1].intervention.sites[0].neurons),
        "rows": rows[:4],
        "last_layer_bit_equal": results[3]["actions"] == results[0]["actions"],
        "controls": controls,
        "controls_success": float(np.mean([row["successes"] / row["n"] for row in rows[4:]])),
        "beyond": beyond(rows[1]["difference"], controls),
    }


def page(results: dict) -> str:
    """The page, from the measured numbers."""
    tests = [
        judgement(concept, results["tests"][concept], results["search_baseline"])
        for concept in CONCEPTS
    ]
    base = results["search_baseline"]
    return TEMPLATE.read_text().format(
        sha256=results["sha256"][:8],
        task=results["task"],
        replan=REPLAN,
        search_from=SEARCH_FROM,
        search_last=SEARCH_FROM + base["n"] - 1,
        search_n=base["n"],
        search_meed=base["meed_cm"],
        search_success=_share(base),
        cells=len(results["search"]),
        search="\n".join(
            f"| {row['name']} | {row['layer']} | {row['hits']} | {row['dose']:g} | "
            f"{_share(row)} | {_difference(row)} |"
            for row in results["search"]
        ),
        tests="\n\n".join(tests),
    )


def judgement(concept: str, test: dict | None, search_baseline: dict) -> str:
    """One concept's test in words and a table."""
    if test is None:
        return (
            f"### {concept}\n\nNo cell moved MEED in the concept's direction and kept half of the "
            f"baseline's success ({_share(search_baseline)}): the causal effect is missing."
        )
    baseline, cluster = test["rows"][:2]
    n = len(test["controls"])
    kept = cluster["successes"] / max(baseline["successes"], 1)
    dead = "change nothing, bit for bit" if test["last_layer_bit_equal"] else "CHANGE THE ACTIONS"
    table = "\n".join(
        f"| {row['name']} | {_share(row)} | {row['meed_cm']:.3f} | {_difference(row)} |"
        for row in test["rows"]
    )
    controls = np.array(test["controls"])
    return (
        f"### {concept}: layer {test['layer']}, alpha {test['dose']:g}, "
        f"{len(test['neurons'])} neurons\n\n"
        f"| condition | success | MEED | difference from baseline |\n|---|---|---|---|\n{table}\n"
        f"| {n} random clusters, mean | {100 * test['controls_success']:.0f} % | | "
        f"{controls.mean():+.3f} (from {controls.min():+.3f} to {controls.max():+.3f}) |\n\n"
        f"The effect lies beyond {test['beyond']} of {n} random clusters; success is "
        f"{100 * kept:.0f} % of the baseline's. At the last layer the same numbers at the "
        f"same dose {dead}."
    )


def _share(row: dict) -> str:
    low, high = wilson(row["successes"], row["n"])
    return (
        f"{100 * row['successes'] / row['n']:.0f} % [{100 * low:.0f}, {100 * high:.0f}] "
        f"({row['successes']}/{row['n']})"
    )


def _difference(row: dict) -> str:
    if row["ci"] is None:
        return f"{row['difference']:+.3f}"
    return f"{row['difference']:+.3f} [{row['ci'][0]:+.3f}, {row['ci'][1]:+.3f}]"


def main() -> None:
    """Measure and write, or only write again from the last measurement."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--policy", default=EMBEDDED)
    parser.add_argument("--search-scenes", type=int, default=24)
    parser.add_argument("--test-scenes", type=int, default=40)
    parser.add_argument("--random", type=int, default=20, help="random clusters a concept")
    parser.add_argument("--numbers", type=Path, default=Path("docs/steering.json"))
    parser.add_argument("--rewrite", action="store_true", help="take the numbers as they are")
    args = parser.parse_args()
    if not args.rewrite:
        results = measure(args.policy, args.search_scenes, args.test_scenes, args.random)
        args.numbers.write_text(json.dumps(results, indent=1) + "\n")
    args.numbers.with_suffix(".md").write_text(page(json.loads(args.numbers.read_text())))


if __name__ == "__main__":
    main()

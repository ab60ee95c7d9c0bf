"""Measure the embedded policy on held-out scenes and write its model card: `make card`.

Scene seeds 0 to 99 and the suite's own initial states; behaviour cloning saw neither. The sampler
is the shipped one (flow-SDE); the first column calls the policy at every step, as `vla-trace
record` does, the others every five steps, because there are many.
"""

import argparse
import functools
import json
import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from tqdm import tqdm

from analysis.stats import wilson
from engine.actor import BATCH, Actor, Decision, Request
from engine.envs.tabletop import COLOURS, N_INIT_STATES, SUITE, TASKS, instruction_of, targets_of
from engine.envs.vector import VectorEnv
from engine.evaluate import rollouts
from engine.likelihoods.flow_sde import FlowSDE
from engine.policies.smolvla import EMBEDDED, load_policy
from engine.policies.tiny import new_policy
from engine.policies.words import SPEED_WORDS
from engine.rollout import EpisodePlan
from traces.writer import EpisodeRecord

TEMPLATE = Path(__file__).with_suffix(".md")
WORDS = ("none", "quickly", "slowly")
REPLAN = 5  # steps a policy call where many conditions are compared
LIFTED = 0.045  # m, a cube's centre above this has been picked up


@dataclass(frozen=True)
class Outcome:
    """One episode in numbers."""

    success: bool
    meed_cm: float
    n_steps: int
    grasped: str
    """colour of the first cube lifted off the table; empty if none"""
    named: str
    """first colour in the instruction"""


class RandomActor(Actor):
    """Uniform actions instead of the policy's: what chance alone achieves."""

    def decide(self, requests: list[Request | None]) -> list[Decision | None]:
        """As the policy, with the action replaced."""
        decisions = super().decide(requests)
        return [
            d and replace(d, action=_uniform(r, d.action.shape))
            for d, r in zip(decisions, requests, strict=True)
        ]


def _uniform(request: Request, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform on [-1, 1], from the episode's own noise."""
    rng = np.random.default_rng([request.key.run_seed, request.key.group, request.decision])
    return rng.uniform(-1, 1, shape).astype(np.float32)


def evaluate(
    actor: Actor, task_id: int, seeds: Iterable[int], say: str = "", shift: int = 0
) -> list[Outcome]:
    """Roll out held-out scenes.

    Args:
        actor: the policy.
        task_id: the task.
        seeds: scene seeds.
        say: speed word put at the end of the instruction.
        shift: name the colour this many places further on than the scene's own.
    """

    def told(text: str, init_state: int) -> str:
        named = targets_of(task_id, init_state)[0]
        other = COLOURS[(COLOURS.index(named) + shift) % len(COLOURS)]
        return f"{text.replace(named, other)} {say}".strip()

    played = rollouts(actor, SUITE, task_id, seeds, told=told, env=env_of(task_id))
    return [_outcome(plan, record) for plan, record, _ in played]


def _outcome(plan: EpisodePlan, record: EpisodeRecord) -> Outcome:
    path = np.vstack([record.steps["ee_pos"], record.episode["final_ee_pos"]])
    heights = record.objects["pos"][:, 2].reshape(len(path) - 1, -1)[:, : len(COLOURS)]
    up = heights > LIFTED
    first = int(up.any(axis=1).argmax())
    return Outcome(
        success=bool(record.episode["success"]),
        meed_cm=100 * float(np.linalg.norm(np.diff(path, axis=0), axis=1).mean()),
        n_steps=len(path) - 1,
        grasped=COLOURS[int(heights[first].argmax())] if up.any() else "",
        named=next(w for w in plan.instruction.split() if w in COLOURS),
    )


@dataclass(frozen=True)
class Cell:
    """One measurement: which actor on which scenes, told what."""

    name: str
    task_id: int
    n: int
    actor: str = "policy"
    replan: int = REPLAN
    say: str = ""
    shift: int = 0


def cells(n: int, n_words: int) -> list[Cell]:
    """Every measurement of the card: n scenes each, n_words for each synonym."""
    chosen = [Cell("0/other colour", 0, n, shift=1)]
    for task_id in reversed(range(len(TASKS))):  # the long one first: it takes longest
        chosen.append(Cell(f"{task_id}/every step", task_id, n, replan=1))
        chosen += [
            Cell(f"{task_id}/{word or 'none'}", task_id, n, say=word)
            for word in ("", "quickly", "slowly")
        ]
        chosen += [
            Cell(f"{task_id}/{name}", task_id, n // 2, actor=name)
            for name in ("untrained", "random", "ode")
        ]
    for speed, words in SPEED_WORDS.items():
        chosen += [Cell(f"word/{speed}/{word}", 0, n_words, say=word) for word in words]
    return chosen


@functools.cache
def actor_of(policy: str, kind: str, replan: int) -> Actor:
    """The shipped policy, or a control of the same shape."""
    loaded = load_policy(policy)
    sampler = FlowSDE(loaded.policy.config.num_steps)
    if kind == "ode":
        return Actor(loaded, FlowSDE(sampler.steps, 0.0), replan)
    if kind == "random":
        return RandomActor(loaded, sampler, replan)
    if kind == "untrained":
        blank = new_policy(loaded.path / "vlm", seed=0).eval().requires_grad_(False)
        loaded = replace(loaded, policy=blank)
    return Actor(loaded, sampler, replan)


@functools.cache
def env_of(task_id: int) -> VectorEnv:
    """The environments of a task; they end with this process."""
    return VectorEnv(SUITE, task_id, BATCH, 1)


def run_cell(policy: str, cell: Cell) -> dict:
    """One measurement as plain numbers."""
    actor = actor_of(policy, cell.actor, cell.replan)
    outcomes = evaluate(actor, cell.task_id, range(cell.n), cell.say, cell.shift)
    grasps = [o for o in outcomes if o.grasped]
    return {
        "n": len(outcomes),
        "successes": sum(o.success for o in outcomes),
        "meed_cm": float(np.mean([o.meed_cm for o in outcomes])),
        "meed_sd": float(np.std([o.meed_cm for o in outcomes], ddof=1)),
        "steps": float(np.mean([o.n_steps for o in outcomes])),
        "grasps": len(grasps),
        "grasps_named": sum(o.grasped == o.named for o in grasps),
    }


def measure(policy: str, n: int, n_words: int) -> dict:
    """All measurements, two at a time."""
    chosen = cells(n, n_words)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        results = pool.map(functools.partial(run_cell, policy), chosen)
        measured = {
            cell.name: result
            for cell, result in tqdm(zip(chosen, results, strict=True), "card", len(chosen))
        }
    order = {cell.name: measured[cell.name] for cell in sorted(chosen, key=lambda c: c.name)}
    return {"sha256": load_policy(policy).sha256, "n": n, "n_words": n_words, "cells": order}


def card(results: dict, training: dict) -> str:
    """The page, from the measured numbers and the training record that ships with the weights."""
    cells, clone = results["cells"], training["clone"]
    instructions = {
        instruction_of(task_id, init_state)
        for task_id in range(len(TASKS))
        for init_state in range(N_INIT_STATES)
    }
    every = [cells[f"{task_id}/every step"] for task_id in range(len(TASKS))]
    overall = sum(c["successes"] for c in every), sum(c["n"] for c in every)
    named = [cells[f"{task_id}/every step"] for task_id in (0, 2, 3)]
    grasps = sum(c["grasps_named"] for c in named), sum(c["grasps"] for c in named)
    other = cells["0/other colour"]
    meed = {w: [cells[f"{t}/{w}"]["meed_cm"] for t in range(len(TASKS))] for w in WORDS}
    return TEMPLATE.read_text().format(
        version=training["version"],
        sha256=results["sha256"],
        last_seed=results["n"] - 1,
        scenes=results["n"],
        n_phrases=len(instructions),
        n_words=results["n_words"],
        frames=training["frames"],
        demos=clone["demos"],
        steps=clone["steps"],
        batch=clone["batch"],
        draws=clone["draws"],
        seed=clone["seed"],
        language=clone["language"],
        auxiliary=clone["auxiliary"],
        retold=100 * clone["retold"],
        bf16=100 * clone["bf16_share"],
        ema=clone["ema"],
        overall=share(*overall),
        grasps=share(*grasps),
        other=share(other["grasps_named"], other["grasps"]),
        ratio=np.mean(meed["quickly"]) / np.mean(meed["slowly"]),
        table=task_table(cells),
        meed=meed_table(cells),
        words=word_table(cells),
        episodes="; ".join(
            f"`{task.name}`: {results['episodes'][str(i)]}" for i, task in enumerate(TASKS)
        ),
        curve=curve_table(training["curve"]),
    )


def curve_table(curve: list[dict]) -> str:
    """Ten points of the curve."""
    names = [name for name in curve[0] if name != "step"]
    chosen = [curve[i] for i in np.linspace(0, len(curve) - 1, 10).round().astype(int)]
    lines = [f"| step | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for point in chosen:
        lines.append(f"| {point['step']} | {' | '.join(f'{point[n]:.4f}' for n in names)} |")
    return "\n".join(lines)


def draw_curve(curve: list[dict], bf16_steps: int, path: Path) -> None:
    """Every loss over the steps, on a logarithmic scale, weights included."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.2), dpi=110, layout="constrained")
    steps = [point["step"] for point in curve]
    for name in (key for key in curve[0] if key != "step"):
        axes.plot(steps, [point[name] for point in curve], label=name, linewidth=1.2)
    axes.axvline(bf16_steps, color="0.6", linewidth=0.8, linestyle=":")
    axes.set(xlabel="step", ylabel="loss, weighted", yscale="log")
    axes.legend(frameon=False, ncols=5, loc="upper center", fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def draw_episodes(policy: str, path: Path, n_frames: int = 8, n_scenes: int = 24) -> dict[int, str]:
    """A filmed success, and a failure where there is one, of each task: frames from start to end.

    Returns:
        Per task what its strips show, such as "scene 0 succeeds, scene 5 fails".
    """
    actor, strips, told = actor_of(policy, "policy", REPLAN), [], {}
    for task_id in range(len(TASKS)):
        shown: dict[bool, int] = {}
        for plan, record, frames in rollouts(actor, SUITE, task_id, range(n_scenes), film=True):
            success = bool(record.episode["success"])
            if success not in shown:
                shown[success] = plan.scene_seed
                at = np.linspace(0, len(frames) - 1, n_frames).round().astype(int)
                strips.append(np.hstack([frames[i][::2, ::2] for i in at]))
            if len(shown) == 2:
                break
        told[task_id] = ", ".join(
            f"scene {seed} {'succeeds' if success else 'fails'}" for success, seed in shown.items()
        )
    iio.imwrite(path, np.vstack(strips))
    return told


def share(successes: int, n: int) -> str:
    """`45 % [38, 52] (90/200)`: a proportion never without its interval and n."""
    if n == 0:
        return "none (0)"
    low, high = wilson(successes, n)
    return f"{100 * successes / n:.0f} % [{100 * low:.0f}, {100 * high:.0f}] ({successes}/{n})"


def task_table(cells: dict) -> str:
    """Success per task: by speed word, by sampler, and of the two controls."""
    names = ["every step", *WORDS, "ode", "untrained", "random"]
    lines = [
        "| task | every step | every 5 | quickly | slowly | ODE | untrained | random actions |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task_id, task in enumerate(TASKS):
        row = (cells[f"{task_id}/{name}"] for name in names)
        values = " | ".join(share(c["successes"], c["n"]) for c in row)
        lines.append(f"| {task_id} `{task.name}` | {values} |")
    return "\n".join(lines)


def meed_table(cells: dict) -> str:
    """MEED per task and speed word, mean and its 95 % interval (normal, over episodes)."""
    lines = ["| task | slowly | no speed word | quickly |", "|---|---|---|---|"]
    for task_id, task in enumerate(TASKS):
        row = (cells[f"{task_id}/{word}"] for word in ("slowly", "none", "quickly"))
        lines.append(f"| {task_id} `{task.name}` | {' | '.join(map(_meed, row))} |")
    return "\n".join(lines)


def word_table(cells: dict) -> str:
    """MEED of every synonym on task 0."""
    lines = ["| class | word | MEED cm | success |", "|---|---|---|---|"]
    lines.append(f"| none | | {_meed(cells['0/none'])} | {_success(cells['0/none'])} |")
    for name, cell in cells.items():
        if name.startswith("word/"):
            _, speed, word = name.split("/")
            lines.append(f"| {speed} | {word} | {_meed(cell)} | {_success(cell)} |")
    return "\n".join(lines)


def _meed(cell: dict) -> str:
    half = 1.96 * cell["meed_sd"] / np.sqrt(cell["n"])
    return f"{cell['meed_cm']:.2f} ± {half:.2f}"


def _success(cell: dict) -> str:
    return share(cell["successes"], cell["n"])


def main() -> None:
    """Measure and write, or only write again from the last measurement."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--policy", default=EMBEDDED)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--word-scenes", type=int, default=24)
    parser.add_argument("--numbers", type=Path, default=Path("docs/policy.json"))
    parser.add_argument("--rewrite", action="store_true", help="take the numbers as they are")
    args = parser.parse_args()
    loaded = load_policy(args.policy)
    pictures = args.numbers.parent / "pictures"
    training = json.loads((loaded.path / "training.json").read_text())
    clone = training["clone"]
    draw_curve(
        training["curve"], round(clone["bf16_share"] * clone["steps"]), pictures / "loss.png"
    )
    if not args.rewrite:
        results = measure(args.policy, args.scenes, args.word_scenes)
        results["episodes"] = draw_episodes(args.policy, pictures / "episodes.png")
        args.numbers.write_text(json.dumps(results, indent=1) + "\n")
    page = card(json.loads(args.numbers.read_text()), training)
    args.numbers.with_suffix(".md").write_text(page)


if __name__ == "__main__":
    main()

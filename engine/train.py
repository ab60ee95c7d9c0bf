"""GRPO on a flow policy: collect groups of episodes, score them, update, checkpoint; again.

A run is a folder, `runs/<id>/`: config.yaml, events.jsonl, checkpoints/, traces/. Everything random
in update u follows from (seed, u), so a run that was killed goes on from its last checkpoint as if
nothing had happened.
"""

import os
import platform
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import yaml

from engine import checkpoint
from engine.actor import action_statistics
from engine.collect import Explorer
from engine.config import EvalConfig, TrainConfig
from engine.envs import load_suite
from engine.envs.vector import VectorEnv
from engine.evaluate import outcomes
from engine.groups import Collector, Group
from engine.learn import Learner
from engine.likelihoods.flow_noise import FlowNoise
from engine.likelihoods.flow_sde import FlowSDE
from engine.likelihoods.gaussian import Gaussian
from engine.mirrors import check_installed, metrics_of, open_mirrors
from engine.policies.smolvla import LoadedPolicy, load_policy
from engine.runs import Listener, interruptible, new_run_folder
from engine.trace_header import trace_header
from engine.update_trace import write_update
from traces.catalog import unused_path
from traces.condition import BASELINE
from traces.events import EventWriter

PROGRESS_S = 1.0
"""Seconds at least between two events that say how far a phase is."""


@dataclass
class Progress:
    """What a run remembers from update to update, beside weights and moments."""

    update: int = 0
    """updates done"""
    steps: int = 0
    """optimizer steps taken"""
    episodes: int = 0
    visits: dict[str, list[float]] = field(default_factory=dict)
    """task or initial state to the mean returns of its latest groups"""
    base_success: dict[str, list[bool]] = field(default_factory=dict)
    """task to the evaluation of the policy that training began with"""


def train(
    config: TrainConfig,
    loaded: LoadedPolicy,
    run_id: str,
    resume: bool = False,
    listen: Listener = lambda kind, fields: None,
) -> Path:
    """Run or resume a training; returns the folder of the last checkpoint.

    The first Ctrl-C ends it after the present update, with a checkpoint; the second one at once.
    """
    check_installed(config.mirror)
    explorer = explorer_of(config, loaded)
    folder = Path("runs") / run_id
    learner = learner_of(config, explorer, folder)
    if not resume:
        new_run_folder(run_id)
        unfinished = folder / ".config.yaml"  # a kill leaves all of it or nothing
        unfinished.write_text(yaml.safe_dump(_plain(asdict(config)), sort_keys=False))
        unfinished.rename(folder / "config.yaml")
    with ExitStack() as opened:
        events = opened.enter_context(EventWriter(folder / "events.jsonl"))
        interrupted = opened.enter_context(interruptible(listen, "this update"))
        envs = {
            task_id: opened.enter_context(
                VectorEnv(config.suite, task_id, config.slots, config.workers)
            )
            for task_id in config.tasks
        }
        mirrors = open_mirrors(config.mirror, folder, _plain(asdict(config)), opened)

        def emit(kind: str, /, **fields: object) -> None:
            events.emit(kind, **fields)
            listen(kind, fields)
            if metrics := metrics_of(kind, fields) if mirrors else {}:
                for log in mirrors:
                    log(metrics, fields["update"])

        run = _Run(config, explorer, learner, folder, envs, emit)
        emit("run_start", **run.start_fields(run_id, resume))
        status, why = "finished", ""
        try:
            run.go_on(interrupted)
            if interrupted():
                raise KeyboardInterrupt
        except BaseException as problem:
            status = "interrupted" if isinstance(problem, KeyboardInterrupt) else "failed"
            why = str(problem)
            raise
        finally:
            emit("run_end", status=status, reason=why)
    return checkpoint.latest(folder)


def _plain(config: dict) -> dict:
    """Tuples as lists, which YAML and trackers can write."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}


def sampler_of(config: TrainConfig, loaded: LoadedPolicy) -> FlowSDE | FlowNoise | Gaussian:
    """What draws training actions, with its learned part at its beginning."""
    if config.likelihood == "flow-sde":
        noise = config.noise_level, config.correlation
        return FlowSDE(config.steps, *noise, stochastic_steps=config.stochastic_steps)
    if config.likelihood == "flow-noise":
        last = loaded.policy.model.action_out_proj
        return FlowNoise(
            config.steps,
            last.in_features,
            last.out_features,
            config.noise_low,
            config.noise_high,
        )
    return Gaussian(config.steps, **action_statistics(loaded), euler_noise=config.euler_noise)


def explorer_of(config: TrainConfig, loaded: LoadedPolicy) -> Explorer:
    """Who plays training episodes; the policy's checkpoints will act with the same K and replan.

    Raises:
        UserError: more rows between policy calls than a chunk has.
    """
    keep = config.train == "expert"  # the prefix cannot change while an update learns
    explorer = Explorer(loaded, sampler_of(config, loaded), config.replan, keep_prefix=keep)
    loaded.policy.config.num_steps = config.steps
    loaded.policy.config.n_action_steps = config.replan
    return explorer


def learner_of(config: TrainConfig, explorer: Explorer, folder: Path) -> Learner:
    """Who improves the policy; the longest episode of all tasks sets the scale of the loss.

    Raises:
        UserError: an adapter rank that this policy cannot have.
    """
    tasks = load_suite(config.suite).TASKS
    longest = max(tasks[task_id].horizon for task_id in config.tasks)
    return Learner(config, explorer, -(-longest // config.replan), folder / "evidence")


class _Run:
    """A run between its start and its end."""

    def __init__(
        self,
        config: TrainConfig,
        explorer: Explorer,
        learner: Learner,
        folder: Path,
        envs: dict[int, VectorEnv],
        emit: Callable,
    ):
        self.config, self.explorer, self.folder, self.envs = config, explorer, folder, envs
        self.loaded, self.learner, self.emit = explorer.loaded, learner, emit
        self.suite = load_suite(config.suite)
        self.collector = Collector(config, self.explorer, envs, folder.name, emit)
        self.evaluation = EvalConfig(
            suite=config.suite,
            policy=config.policy,
            episodes=config.eval_episodes,
            replan=config.replan,
            steps=config.steps,
            workers=config.workers,
            slots=config.slots,
        )
        self.progress = Progress()
        if (last := checkpoint.latest(folder)) is not None:
            restored = checkpoint.restore(last)
            self.learner.resume(restored)
            self.progress = Progress(**restored.state["progress"])

    def go_on(self, interrupted: Callable[[], bool]) -> None:
        """Update until the run is over or somebody stops it."""
        if not self.progress.base_success:
            for task_id in self.config.tasks:
                self.progress.base_success[str(task_id)] = self.evaluate(task_id)
            self.save()
        while self.progress.update < self.config.updates and not interrupted():
            began, cpu = time.perf_counter(), time.process_time()
            metrics = self.one_update()
            metrics |= {
                "time/step": time.perf_counter() - began,
                "time/cpu": time.process_time() - cpu,
                "rollout/episodes_total": self.progress.episodes,
            }
            self.emit("step", update=self.progress.update, metrics=metrics)
            every, done = self.config.eval_every, self.progress.update
            if done == self.config.updates or (every and done % every == 0):
                for task_id in self.config.tasks:
                    self.evaluate(task_id)
            self.save()
        if self.config.forgetting and not interrupted():
            self.evaluate_other_tasks()

    def one_update(self) -> dict[str, float]:
        """Collect groups, learn from them."""
        update = self.progress.update
        began = time.perf_counter()
        groups = self.collector.collect(update, self.progress.visits)
        collected = time.perf_counter()
        accepted = [group for group in groups if group.accepted][: self.config.groups]
        episodes = [episode for group in groups for episode in group.episodes]
        wins = [e for e in episodes if e.success]
        metrics = {
            "env/success_once": len(wins) / len(episodes),
            "env/episode_len": float(np.mean([e.n_steps for e in episodes])),
            "rollout/episodes": len(episodes),
            "rollout/groups_accepted": len(accepted),
            "rollout/frac_reward_zero_std": 1 - sum(g.accepted for g in groups) / len(groups),
            "time/rollout": collected - began,
        }
        if accepted:
            samples = []
            for group in accepted:
                for episode, advantage in zip(group.episodes, group.advantages, strict=True):
                    for sample in episode.samples:
                        sample.advantage = float(advantage)
                    samples += episode.samples if advantage else []
            n_episodes = sum(len(group.episodes) for group in accepted)
            scored = self.progress_of("update", self.config.epochs * len(samples))
            learned = self.learner.update(
                update, self.explorer.calls, samples, n_episodes, self.alert, scored
            )
            metrics |= {f"train/actor/{name}": value for name, value in learned.items()}
        else:
            self.alert("warn", "no_group_accepted", 0, 1, "every group had one outcome; no step")
        metrics["time/actor"] = time.perf_counter() - collected
        if self.config.is_traced(update):
            self.write_trace(update, groups, metrics, time.perf_counter() - began)
        self.explorer.calls.clear()
        self.progress.update += 1
        self.progress.steps = self.learner.steps
        self.progress.episodes += len(episodes)
        return metrics

    def write_trace(self, update: int, groups: list[Group], metrics: dict, wall_s: float) -> None:
        """Keep the episodes of this update, with what became of them."""
        folder = self.folder / "traces"
        folder.mkdir(exist_ok=True)
        header = trace_header(self.config, BASELINE, self.explorer, self.folder.name, "grpo")
        path = unused_path(folder, f"update-{update:06d}", ".h5")
        cameras = self.suite.CAMERAS if "frames" in self.config.keep else ()
        names = self.suite.OBJECT_NAMES
        write_update(path, header, names, cameras, update, groups, metrics, wall_s)
        episodes = sum(len(group.episodes) for group in groups)
        self.emit("shard", path=str(path), bytes=path.stat().st_size, episodes=episodes, number=0)

    def evaluate(self, task_id: int) -> list[bool]:
        """Success on held-out scenes with the deterministic sampler, beside the base policy's."""
        played = self.progress_of("eval", self.evaluation.episodes)
        began = time.perf_counter()
        with self.learner.averaged():
            env = self.envs[task_id]
            (won,) = outcomes(self.evaluation, [self.loaded], task_id, env, played)
        took = time.perf_counter() - began
        self.emit_evaluation(task_id, won, self.progress.base_success.get(str(task_id)), took)
        return won

    def evaluate_other_tasks(self) -> None:
        """What became of tasks that were not trained; their events say `forgetting`."""
        base = load_policy(self.config.policy)
        for task_id in range(len(self.suite.TASKS)):
            if task_id not in self.config.tasks:
                played = self.progress_of("eval", 2 * self.evaluation.episodes)
                began = time.perf_counter()
                with self.learner.averaged():
                    pair = [self.loaded, base]
                    won, base_won = outcomes(self.evaluation, pair, task_id, None, played)
                took = time.perf_counter() - began
                self.emit_evaluation(task_id, won, base_won, took, forgetting=True)

    def emit_evaluation(
        self, task_id: int, won: list[bool], base: list[bool] | None, took_s: float, **said: object
    ) -> None:
        """One `eval` event: a task, and the pairs that tell a policy from its base."""
        metrics = {"eval/success_once": float(np.mean(won)), "time/eval": took_s}
        if base is not None:
            metrics["eval/base_success_once"] = float(np.mean(base))
            metrics["eval/only_trained"] = int(np.sum(np.array(won) > np.array(base)))
            metrics["eval/only_base"] = int(np.sum(np.array(base) > np.array(won)))
        self.emit(
            "eval",
            update=self.progress.update,
            task_id=task_id,
            task_name=self.suite.TASKS[task_id].name,
            metrics=metrics,
            n=len(won),
            **said,
        )

    def save(self) -> None:
        """Write a checkpoint; the one before goes unless it is to be kept."""
        before = checkpoint.latest(self.folder)
        name = f"{self.progress.update:06d}"
        path = self.folder / "checkpoints" / name
        path.parent.mkdir(exist_ok=True)
        if path.exists():
            return
        state = {"progress": asdict(self.progress)}
        learner = self.learner
        last = {name: weight.detach().clone() for name, weight in learner.trained.items()}
        with learner.averaged():
            checkpoint.save(
                path, self.loaded, learner.optimizer, learner.head, last, learner.average, state
            )
        if before is not None and int(before.name) % self.config.checkpoint_every:
            shutil.rmtree(before)
        if not self.progress.update % self.config.checkpoint_every:
            self.emit("checkpoint", path=str(path), update=self.progress.update)

    def progress_of(self, phase: str, total: int) -> Callable[[int], None]:
        """Say that a phase began; returns what says, not too often, how much of it is done."""
        update, told = self.progress.update, time.monotonic()
        self.emit("phase", name=phase, update=update, total=total)

        def tell(done: int) -> None:
            nonlocal told
            if time.monotonic() - told >= PROGRESS_S:
                told = time.monotonic()
                self.emit("phase", name=phase, update=update, done=done, total=total)

        return tell

    def alert(self, level: str, rule: str, value: float, threshold: float, message: str) -> None:
        """Say that something needs a look."""
        self.emit(
            "alert", level=level, rule=rule, value=value, threshold=threshold, message=message
        )

    def start_fields(self, run_id: str, resumed: bool) -> dict:
        """The fields of `run_start`."""
        return {
            "run_id": run_id,
            "kind": "grpo",
            "pid": os.getpid(),
            "host": platform.node(),
            "suite": self.config.suite,
            "task_id": self.config.task_id,
            "task_name": self.suite.TASKS[self.config.task_id].name,
            "tasks": list(self.config.tasks),
            "policy": self.loaded.name,
            "policy_sha256": self.loaded.sha256,
            "resumed": resumed,
            "update": self.progress.update,
            "config": asdict(self.config),
        }

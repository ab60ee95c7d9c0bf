"""Several environments of one task in subprocess workers, stepped together.

Which worker steps which slot changes nothing: an environment's bytes depend on its seeds and
actions alone.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from engine.envs import load_suite
from traces.errors import UserError


@dataclass(frozen=True)
class Moment:
    """What one environment shows after a reset or a step."""

    observation: dict
    reward: float
    success: bool
    terminated: bool
    truncated: bool
    contact: bool
    contact_force: float
    """N"""
    objects: np.ndarray
    """(objects, 7): m and quaternion xyzw, world"""
    sim_state: np.ndarray
    """(S,) see the suite's `sim_state`"""
    frame: np.ndarray | None
    """(256, 256, 3) uint8 when asked for"""


class VectorEnv:
    """`n_slots` environments over `n_workers` processes; a context manager."""

    def __init__(self, suite: str, task_id: int, n_slots: int, n_workers: int):
        n_workers = max(1, min(n_workers, n_slots))
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for worker in range(n_workers):
            mine, theirs = context.Pipe()
            slots = list(range(worker, n_slots, n_workers))
            process = context.Process(
                target=_work, args=(theirs, suite, task_id, slots), daemon=True
            )
            process.start()
            theirs.close()
            self._pipes.append(mine)
            self._processes.append(process)

    def __enter__(self) -> "VectorEnv":
        return self

    def __exit__(self, *_: object) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()  # a worker ends when its pipe does
            process.join(timeout=5)
            if process.is_alive():
                process.kill()

    def reset(self, scenes: Mapping[int, tuple[int, int]], frames: bool) -> dict[int, Moment]:
        """Put scenes up: slot -> (scene seed, initial state)."""
        return self._call("reset", scenes, frames)

    def step(
        self, actions: Mapping[int, np.ndarray], looking: Collection[int], frames: bool
    ) -> dict[int, Moment]:
        """Step the named slots: slot -> (A,) action; only those `looking` render `pixels`."""
        arguments = {slot: (action, slot in looking) for slot, action in actions.items()}
        return self._call("step", arguments, frames)

    def play(self, chunks: Mapping[int, np.ndarray], frames: bool) -> dict[int, list[Moment]]:
        """Play the rows of a chunk in the named slots: slot -> (n, A) actions.

        One message for n steps. A slot stops when its episode ends; only the last moment has
        `pixels`, and only if the episode goes on.
        """
        return self._call("play", chunks, frames)

    def _call(self, name: str, arguments: Mapping[int, object], frames: bool) -> dict:
        n = len(self._pipes)
        asked = []
        for worker in range(n):
            share = {slot: value for slot, value in arguments.items() if slot % n == worker}
            if share:
                asked.append((worker, (name, share, frames)))
        moments: dict = {}
        try:
            for worker, call in asked:
                self._pipes[worker].send(call)
            for worker, _ in asked:
                answer = self._pipes[worker].recv()
                if isinstance(answer, Exception):
                    raise answer
                moments |= answer
        except (EOFError, ConnectionError) as error:
            raise self._death() from error
        return dict(sorted(moments.items()))

    def _death(self) -> UserError:
        """What to say when a worker is gone."""
        codes = []
        for process in self._processes:
            process.join(timeout=1)
            codes += [process.exitcode] if process.exitcode is not None else []
        return UserError(
            f"an environment worker died (exit code {', '.join(map(str, codes)) or 'unknown'}); "
            "check rendering and memory with: vla-trace doctor"
        )


def _work(pipe: Connection, suite: str, task_id: int, slots: list[int]) -> None:
    """A worker: owns its slots' environments until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        envs = {slot: load_suite(suite).make_env(task_id) for slot in slots}
    except Exception as error:  # reaches the parent with the first call
        pipe.recv()
        pipe.send(error)
        return
    while True:
        try:
            name, arguments, frames = pipe.recv()
        except EOFError:
            break
        try:
            pipe.send(
                {
                    slot: _played(envs[slot], argument, frames)
                    if name == "play"
                    else _moment(envs[slot], name, argument, frames)
                    for slot, argument in arguments.items()
                }
            )
        except Exception as error:
            pipe.send(error)
    for env in envs.values():
        env.close()
    sys.stdout.flush()
    os._exit(0)  # GL contexts are gone; skip the interpreter's own teardown of them


def _played(env, chunk: np.ndarray, frames: bool) -> list[Moment]:
    moments = []
    for i, action in enumerate(chunk, start=1):
        moments.append(_moment(env, "step", (action, i == len(chunk)), frames))
        if moments[-1].terminated or moments[-1].truncated:
            break
    return moments


def _moment(env, name: str, argument, frames: bool) -> Moment:
    reward, terminated, truncated = 0.0, False, False
    if name == "reset":
        seed, init_state = argument
        env.cameras_on = True
        observation, info = env.reset(seed=seed, options={"init_state": init_state})
    else:
        action, env.cameras_on = argument
        observation, reward, terminated, truncated, info = env.step(action)
    contact, force = env.finger_contact()
    return Moment(
        observation=observation,
        reward=reward,
        success=info["is_success"],
        terminated=terminated,
        truncated=truncated,
        contact=contact,
        contact_force=force,
        objects=env.object_poses(),
        sim_state=env.sim_state(),
        frame=env.render().copy() if frames else None,
    )

"""What a recording will take on the disk, said and checked before its first episode."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from engine.actor import Actor
from engine.config import RecordConfig
from engine.envs import load_suite
from traces.errors import DiskFull
from traces.schema import DECISIONS, EPISODES, OBJECTS, SIM_STATE, STEPS, Field
from traces.writer import SPARE_BYTES

FRAME_BYTES = 64 * 64 * 3 + 1024  # a PNG is hardly ever larger than its pixels


@dataclass(frozen=True)
class Cost:
    """Bytes of a recording at most: every episode is counted at its full length."""

    activations_per_decision: int
    """of the condition that captures most"""
    per_episode: int
    """of that condition"""
    total: int
    """of all conditions"""
    free: int
    """on the disk it will be written to"""

    def __str__(self) -> str:
        return (
            f"activations take {_size(self.activations_per_decision)} a decision; at most "
            f"{_size(self.per_episode)} an episode, {_size(self.total)} in all "
            f"({_size(self.free)} free)"
        )


def checked_cost(config: RecordConfig, actors: Sequence[Actor]) -> Cost:
    """Return what a recording takes.

    Raises:
        DiskFull: it cannot fit where it would be written.
    """
    per_decision = [_activations(actor) for actor in actors]
    per_episode = [
        _episode(config, actor, values) for actor, values in zip(actors, per_decision, strict=True)
    ]
    folder = _existing(Path(config.out))
    free = shutil.disk_usage(folder).free
    cost = Cost(max(per_decision), max(per_episode), config.episodes * sum(per_episode), free)
    if cost.total + SPARE_BYTES > free:
        raise DiskFull(config.out, cost.total + SPARE_BYTES, free)
    return cost


def _activations(actor: Actor) -> int:
    return sum(
        np.dtype(site.dtype).itemsize * prod(site.shape) + 8  # and the row's `decision`
        for site in actor.capture.sites
    )


def _episode(config: RecordConfig, actor: Actor, activations: int) -> int:
    suite = load_suite(config.suite)
    steps = suite.TASKS[config.task_id].horizon
    decisions = -(-steps // config.replan)
    policy = actor.loaded.policy.config
    horizon, width = actor.chunk_shape
    sizes = {
        "K": actor.sampler.steps,
        "H": horizon,
        "A": policy.action_feature.shape[0],
        "Z": width,
        "W": policy.tokenizer_max_length,
    }
    step = _row(STEPS, sizes) + len(suite.OBJECT_NAMES) * _row(OBJECTS, sizes)
    frames = len(suite.CAMERAS) * FRAME_BYTES if "frames" in config.keep else 0
    decision = _row(DECISIONS, sizes) + activations + frames
    return _row(EPISODES, sizes) + steps * step + decisions * decision + _sim_states(config, steps)


def _sim_states(config: RecordConfig, steps: int) -> int:
    """A state before every step and one at the end, and their index."""
    if "sim" not in config.keep:
        return 0
    *index, number = SIM_STATE
    return steps * _row(index, {}) + (steps + 1) * (
        load_suite(config.suite).sim_state_size() * np.dtype(number.dtype).itemsize
    )


def _row(fields: Sequence[Field], sizes: dict[str, int]) -> int:
    return sum(
        (field.text_bytes or np.dtype(field.dtype).itemsize) * prod(field.row_shape(sizes))
        for field in fields
    )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _size(n_bytes: int) -> str:
    """Bytes for people: 7.3 kB."""
    size, unit = float(n_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"

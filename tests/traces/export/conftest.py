"""A steered recording of two shards and its baseline, with everything that can be kept."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: tests use no network

import io
from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import pytest

from traces.shards import Rotation, ShardedWriter

CAMERAS = {"image": "agentview", "image2": "wrist"}
STATE_SIZE = 9


@pytest.fixture(scope="session")
def make(build):
    """Write one recording; returns its files and its records."""

    def write(path, numbers, *, replan=1, per_shard=0, cameras=tuple(CAMERAS), sim=True, **header):
        suite = {"name": "tabletop", "control_hz": 20, "cameras": CAMERAS}
        header = build.header(**({"n_action_steps": replan, "suite": suite} | header))
        records = [recorded(build, number, replan, cameras, sim) for number in numbers]
        with ShardedWriter(
            path,
            header,
            build.sites,
            rotation=Rotation(per_shard or None, None, None),
            object_names=build.object_names,
            cameras=cameras,
            keep_sim_state=sim,
        ) as writer:
            writer.write_policy(0, 0, "00" * 32, "weights")
            for record in records:
                writer.write_episode(record)
        return SimpleNamespace(paths=writer.paths, records=records, header=header)

    return write


def recorded(build, number, replan, cameras, sim):
    """An episode of 4 steps or more, with pictures at decisions and states at every step."""
    record = build.record(number, n_steps=4 + number % 3, replan=replan)
    rng = np.random.default_rng(number)
    asked = record.decisions["t"]
    record.pixels = {
        camera: rng.integers(0, 256, (len(asked), 16, 20, 3), np.uint8) for camera in cameras
    }
    record.frames = {
        camera: (asked, [iio.imwrite("<bytes>", p, extension=".png") for p in pixels])
        for camera, pixels in record.pixels.items()
    } or None
    record.states = rng.normal(size=(len(record.steps["t"]) + 1, STATE_SIZE))
    *before, last, final = record.states
    items = [*before, np.concatenate([last, final])]
    record.sim_state = (record.steps["t"], items) if sim else None
    record.steps["state"] = record.steps["state"].astype(np.float32).astype(float)
    return record


@pytest.fixture(scope="session")
def both(make, tmp_path_factory):
    """Baseline of two episodes; three steered ones, a shard each. Records in dataset order."""
    folder = tmp_path_factory.mktemp("both")
    base = make(folder / "a-base.h5", (0, 1), intervention=None)
    fast = make(folder / "b-fast.h5", (2, 3, 4), per_shard=1)
    assert len(fast.paths) == 3
    return SimpleNamespace(
        folder=folder,
        records=base.records + fast.records,
        n_steps=sum(len(r.steps["t"]) for r in base.records + fast.records),
    )


@pytest.fixture(scope="session")
def decode():
    """From a PNG to its pixels, by another library than the exporters'."""
    from PIL import Image

    return lambda png: np.array(Image.open(io.BytesIO(png)))

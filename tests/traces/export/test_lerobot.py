"""The exported folder, read by lerobot's own dataset class with the network blocked."""

import json
import socket

import numpy as np
import pytest

from traces import open_traces
from traces.errors import UserError
from traces.export import lerobot


@pytest.fixture(scope="module")
def dataset(both, tmp_path_factory):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    out = tmp_path_factory.mktemp("lerobot") / "lift"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", blocked)
        with open_traces(both.folder) as traces:
            assert lerobot.export(traces, out) == []
        return LeRobotDataset("vla-trace/lift", root=out, video_backend="pyav")


def blocked(*_):
    raise AssertionError("the network was asked")


def test_lerobot_reads_every_step(dataset, both, build):
    assert (dataset.num_episodes, len(dataset), dataset.fps) == (5, both.n_steps, 20)
    index = 0
    for number, record in enumerate(both.records):
        n_steps = len(record.steps["t"])
        for t in range(n_steps):
            item = dataset[index]
            steps = {name: np.float32(values[t]) for name, values in record.steps.items()}
            assert (int(item["episode_index"]), int(item["frame_index"])) == (number, t)
            assert float(item["timestamp"]) == pytest.approx(t / 20)
            assert item["task"] == record.episode["instruction"]
            np.testing.assert_array_equal(item["observation.state"], steps["state"])
            np.testing.assert_array_equal(item["action"], steps["action"])
            np.testing.assert_array_equal(item["action_policy"], steps["action_policy"])
            assert float(item["next.reward"]) == steps["reward"]
            assert bool(item["next.done"]) == (t == n_steps - 1)
            success = bool(record.episode["success"]) and t == n_steps - 1
            assert bool(item["next.success"]) == success
            for camera, pixels in record.pixels.items():
                seen = item[f"observation.images.{camera}"].permute(1, 2, 0).mul(255).round()
                np.testing.assert_array_equal(seen, pixels[t])
            for site in build.sites:
                values = record.activations[site.name].astype(site.dtype)[t].ravel()
                np.testing.assert_array_equal(item[f"activation.{site.name}"], values)
            index += 1


def test_its_files_hold_more_digits_than_its_tensors(dataset, both):
    table = dataset.hf_dataset.with_format("arrow")[:]
    log_prob = np.concatenate([record.steps["log_prob"] for record in both.records])
    np.testing.assert_array_equal(table["log_prob"].to_numpy(), log_prob)
    assert dataset.meta.features["contact_force"]["unit"] == "N"


def test_where_it_comes_from_is_kept(dataset, both):
    found = json.loads((dataset.root / "vla-trace.json").read_text())
    assert [row["uid"] for row in found["episodes"]] == [r.episode["uid"] for r in both.records]
    interventions = [recording["intervention"] for recording in found["recordings"]]
    assert interventions[0] is None and interventions[1]["name"] == "fast"


def test_gaps_are_left_out_and_said(make, tmp_path):
    """Statistics of NaN or infinity would be none."""
    made = make(tmp_path / "a.h5", (0, 1), replan=2, cameras=())
    import h5py

    with h5py.File(made.paths[0], "r+") as file:
        file["steps/log_prob_base"][3] = np.nan
    with open_traces(tmp_path) as traces:
        said = lerobot.export(traces, tmp_path / "out", frames=False)
    features = json.loads((tmp_path / "out" / "meta" / "info.json").read_text())["features"]
    assert "log_prob" in features and "log_prob_base" not in features
    assert not [name for name in features if name.startswith("activation.")]
    assert said[0].startswith("left out: log_prob_base")
    assert "vlm.1.ffn_act" in said[1] and "not at every step" in said[1]


def test_pictures_of_some_steps_are_refused(make, tmp_path):
    make(tmp_path / "a.h5", (0,), replan=2)
    with open_traces(tmp_path) as traces, pytest.raises(UserError, match="--replan 1, or leave"):
        lerobot.export(traces, tmp_path / "out")

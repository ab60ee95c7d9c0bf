"""The exported HDF5, read by robomimic 0.2's own dataset class and by h5py."""

import json

import h5py
import numpy as np
import pytest

from traces import open_traces
from traces.errors import UserError
from traces.export import robomimic
from traces.export.robomimic import axis_angle

IMAGES = {"agentview_rgb": "image", "eye_in_hand_rgb": "image2"}


@pytest.fixture(scope="module")
def path(both, tmp_path_factory):
    out = tmp_path_factory.mktemp("robomimic") / "a.hdf5"
    with open_traces(both.folder) as traces:
        assert robomimic.export(traces, out) == []
    return out


def test_robomimic_reads_every_step(path, both, capsys):
    from robomimic.utils import obs_utils
    from robomimic.utils.dataset import SequenceDataset

    low = ["ee_pos", "ee_ori", "gripper_states"]
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": low, "rgb": list(IMAGES)}})
    dataset = SequenceDataset(
        str(path),
        obs_keys=(*low, *IMAGES),
        dataset_keys=("actions", "rewards", "dones", "states", "robot_states"),
        load_next_obs=False,
    )
    assert dataset.n_demos == 5
    assert len(dataset) == both.n_steps
    items = iter(dataset)
    for record in both.records:
        n_steps = len(record.steps["t"])
        for t in range(n_steps):
            item = next(items)
            steps = {name: np.float32(values[t]) for name, values in record.steps.items()}
            np.testing.assert_array_equal(item["actions"][0], steps["action"])
            assert item["rewards"][0] == steps["reward"]
            assert item["dones"][0] == (t == n_steps - 1)
            np.testing.assert_array_equal(item["states"][0], np.float32(record.states[t]))
            np.testing.assert_array_equal(item["obs"]["ee_pos"][0], steps["ee_pos"])
            np.testing.assert_array_equal(item["obs"]["gripper_states"][0], steps["gripper"])
            robot = np.hstack([steps["gripper"], steps["ee_pos"], steps["ee_quat"]])
            np.testing.assert_array_equal(item["robot_states"][0], robot)
            for name, camera in IMAGES.items():
                seen = np.rint(255 * item["obs"][name][0].transpose(1, 2, 0))  # robomimic: CHW/255
                np.testing.assert_array_equal(seen, record.pixels[camera][t])


def test_values_are_exact_and_have_the_names_of_libero(path, both, build):
    with h5py.File(path) as file:
        data = file["data"]
        assert (data.attrs["num_demos"], data.attrs["total"]) == (5, both.n_steps)
        assert json.loads(data.attrs["env_args"])["env_name"] == "tabletop"
        problem = json.loads(data.attrs["problem_info"])
        assert problem["language_instruction"] == both.records[0].episode["instruction"]
        for number, record in enumerate(both.records):
            demo = data[f"demo_{number}"]
            assert demo.attrs["num_samples"] == len(record.steps["t"])
            assert demo.attrs["success"] == record.episode["success"]
            assert demo.attrs["uid"] == record.episode["uid"]
            np.testing.assert_array_equal(demo["states"], record.states[:-1])
            np.testing.assert_array_equal(demo.attrs["init_state"], record.states[0])
            np.testing.assert_array_equal(demo.attrs["final_state"], record.states[-1])
            np.testing.assert_array_equal(demo["actions"], record.steps["action"])
            for name, camera in IMAGES.items():
                np.testing.assert_array_equal(demo["obs"][name], record.pixels[camera])
            for column in ("action_policy", "log_prob", "state", "contact_force", "chunk_offset"):
                np.testing.assert_array_equal(demo["interp/steps"][column], record.steps[column])
            np.testing.assert_array_equal(demo["interp/steps/decision"], record.steps["decision"])
            np.testing.assert_array_equal(demo["interp/decisions/chain"], record.decisions["chain"])
            for site in build.sites:
                group = demo["interp"][site.name]
                values = record.activations[site.name].astype(site.dtype)
                np.testing.assert_array_equal(group["values"], values)
                assert group["values"].dtype == site.dtype
                assert group.attrs["dims"] == ",".join(site.dims)
        conditions = [data[f"demo_{i}/interp"].attrs["intervention"] for i in range(5)]
        assert [text == "null" for text in conditions] == [True, True, False, False, False]
        headers = json.loads(file["vla_trace"][()])["recordings"]
        assert [len(header["files"]) for header in headers] == [1, 3]
        assert headers[1]["intervention"]["name"] == "fast"


def test_activations_belong_to_their_decisions_when_the_policy_replans(make, tmp_path):
    made = make(tmp_path / "a.h5", (0, 1, 2), replan=2)
    with open_traces(tmp_path) as traces:
        robomimic.export(traces, tmp_path / "a.hdf5", frames=False)
    with h5py.File(tmp_path / "a.hdf5") as file:
        for number, record in enumerate(made.records):
            interp = file[f"data/demo_{number}/interp"]
            acted = interp["vlm.1.ffn_act/values"][:][interp["steps/decision"][:]]
            values = record.activations["vlm.1.ffn_act"].astype(np.float16)
            np.testing.assert_array_equal(acted, values[record.steps["t"] // 2])
            assert "agentview_rgb" not in file[f"data/demo_{number}/obs"]


def test_what_was_not_recorded_is_said(make, tmp_path):
    make(tmp_path / "some" / "a.h5", (0,), replan=2)
    make(tmp_path / "none" / "a.h5", (0,), cameras=(), sim=False)
    with open_traces(tmp_path / "some") as traces, pytest.raises(UserError) as error:
        robomimic.export(traces, tmp_path / "a.hdf5")
    assert "pictures of 2 of 4 steps" in str(error.value)
    assert "record with: vla-trace record --keep frames --replan 1" in str(error.value)
    with open_traces(tmp_path / "none") as traces:
        with pytest.raises(UserError, match="kept no pictures; record with"):
            robomimic.export(traces, tmp_path / "b.hdf5")
        (note,) = robomimic.export(traces, tmp_path / "c.hdf5", frames=False)
    assert note.startswith("left out: states") and "--keep sim" in note


def test_recordings_that_do_not_go_together_are_refused(make, tmp_path):
    make(tmp_path / "a.h5", (0,))
    make(tmp_path / "b.h5", (0,), cameras=("image",))
    with open_traces(tmp_path) as traces, pytest.raises(UserError, match="export them apart"):
        robomimic.export(traces, tmp_path / "a.hdf5")


def test_axis_angle_is_that_of_scipy():
    from scipy.spatial.transform import Rotation

    quat = np.random.default_rng(0).normal(size=(50, 4))
    quat /= np.linalg.norm(quat, axis=1, keepdims=True)
    quat[:2] = [[0, 0, 0, 1], [1, 0, 0, 0]]
    same = Rotation.from_rotvec(axis_angle(quat)) * Rotation.from_quat(quat).inv()
    assert same.magnitude().max() < 1e-7

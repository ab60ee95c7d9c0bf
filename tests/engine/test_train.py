"""Training as a whole: groups, the run directory, exact resumption of a killed run, eval."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import imageio.v3 as iio
import numpy as np
import pytest
from safetensors.numpy import load_file

from engine.config import TrainConfig
from engine.policies.smolvla import load_policy
from engine.train import train
from traces.events import read_events
from traces.reader import TraceReader
from tui.cli import run

TINY = {
    "tasks": (1,),
    "forgetting": False,
    "updates": 2,
    "groups": 1,
    "group_size": 6,
    "attempts": 2,
    "steps": 4,
    "noise_level": 0.7,
    "slots": 8,
    "workers": 1,
    "eval_every": 0,
    "eval_episodes": 2,
    "lr": 1e-4,
    "traces": 2,
    "keep": ("frames",),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A tiny run that nothing disturbed; its folder."""
    folder = tmp_path_factory.mktemp("whole")
    before = Path.cwd()
    os.chdir(folder)
    try:
        config = TrainConfig(**TINY)
        train(config, load_policy(config.policy), "tiny")
    finally:
        os.chdir(before)
    return folder / "runs" / "tiny"


def weights(run_folder):
    return load_file(run_folder / "checkpoints/000002/pretrained_model/model.safetensors")


def test_a_run_leaves_what_it_should(whole):
    assert (whole / "config.yaml").is_file()
    kept = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert kept == ["000000", "000002"]
    events = read_events(whole / "events.jsonl")
    assert events[0]["type"] == "run_start"
    assert events[0]["kind"] == "grpo"
    assert events[-1]["type"] == "run_end"
    assert events[-1]["status"] == "finished"
    steps = [event for event in events if event["type"] == "step"]
    assert [step["update"] for step in steps] == [1, 2]
    evaluations = [event for event in events if event["type"] == "eval"]
    assert [e["update"] for e in evaluations] == [0, 2]
    assert "eval/base_success_once" in evaluations[1]["metrics"]
    learned = [s["metrics"] for s in steps if s["metrics"]["rollout/groups_accepted"]]
    assert learned, "no group had variance: choose another seed"
    assert all(m["train/actor/first_ratio_max_abs_dev"] < 1e-5 for m in learned)


def test_who_watches_sees_groups_fill_and_phases_advance(whole):
    events = [e for e in read_events(whole / "events.jsonl") if e.get("update") == 0]
    kinds = [e["type"] for e in events]
    first = next(e for e in events if e["type"] == "phase" and e["name"] == "rollout")
    assert (first["attempt"], first["total"]) == (0, TINY["groups"] * TINY["group_size"])
    assert kinds.index("phase") < kinds.index("episode") < kinds.index("group")
    groups = [e for e in events if e["type"] == "group"]
    for group in groups:
        assert len(group["advantages"]) == TINY["group_size"]
        assert any(group["advantages"]) == group["accepted"]
    ends = [e["t"] for e in events if e["type"] == "episode" and e["group"] == 0]
    assert min(ends) < groups[0]["t"] - 0.01  # told when it ended, not with its group
    totals = {e["name"]: e["total"] for e in events if e["type"] == "phase"}
    assert totals["eval"] == TINY["eval_episodes"]


def test_members_of_a_group_share_the_scene_and_nothing_else_random(whole):
    episodes = [e for e in read_events(whole / "events.jsonl") if e["type"] == "episode"]
    groups = {}
    for episode in episodes:
        groups.setdefault((episode["update"], episode["group"]), []).append(episode)
    for members in groups.values():
        assert len(members) == TINY["group_size"]
        assert len({(m["task_id"], m["init_state"], m["scene_seed"]) for m in members}) == 1
    scenes = [members[0]["scene_seed"] for members in groups.values()]
    assert len(set(scenes)) == len(scenes)
    assert all(10_000 <= scene < 100_000 for scene in scenes)
    assert len({e["uid"] for e in episodes}) == len(episodes)


def test_an_update_can_be_kept_as_a_trace(whole):
    (path,) = (whole / "traces").glob("*.h5")  # of updates 0 and 1, every second one
    assert run(["check", str(path)]) == 0
    log = [e for e in read_events(whole / "events.jsonl") if e.get("update") == 0]
    ended = [e for e in log if e["type"] == "episode"]  # in the order in which they ended
    played = sorted(ended, key=lambda e: e["uid"])
    with h5py.File(path) as trace:
        assert trace.attrs["kind"] == "grpo"
        assert trace["episodes/success"][:].tolist() == [e["success"] for e in played]
        assert np.isfinite(trace["steps/log_prob"][:]).all()
        assert trace["groups/n_members"][:].tolist() == [
            e["n_members"] for e in log if e["type"] == "group"
        ]
        accepted = trace["groups/accepted"][:].sum()
        assert len(trace["advantages/uid"]) == accepted * TINY["group_size"]
        assert trace["advantages/advantage"][:].sum() == pytest.approx(0, abs=1e-9)
        assert trace["updates/n_groups_accepted"][0] == accepted


def test_its_pictures_are_what_the_policy_saw_at_every_decision(whole):
    (path,) = (whole / "traces").glob("*.h5")
    with TraceReader(path) as trace:
        starts = trace.decisions("t")["t"]
        first = trace.episodes("first_step")["first_step"]
        assert set(trace.cameras()) == {"image", "image2"}
        for camera in trace.cameras():
            steps = [trace.frame_steps(camera, episode=i) - n for i, n in enumerate(first)]
            assert np.concatenate(steps).tolist() == starts.tolist()
            picture = iio.imread(trace.frame(camera, int(first[1])))
            assert picture.std() > 5
    with h5py.File(path) as trace:  # ten steps a decision, so ten a picture
        assert len(trace["frames/image/step"]) == len(trace["decisions/t"])


def test_a_run_that_was_killed_ends_with_the_same_bits(whole, tmp_path, monkeypatch):
    """The real command, kill -9 in the middle of the second update, then --resume."""
    monkeypatch.chdir(tmp_path)
    command = [Path(sys.executable).with_name("vla-trace"), "train", "--name", "tiny"]
    for name, value in TINY.items():
        command += {
            "tasks": ["--task", "1"],
            "forgetting": ["--no-forgetting"],
            "keep": ["--keep", "frames"],
        }.get(name, [f"--{name.replace('_', '-')}", str(value)])
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    log = tmp_path / "runs/tiny/events.jsonl"
    while process.poll() is None and '"type": "step"' not in (
        log.read_text() if log.exists() else ""
    ):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    for update in range(TINY["updates"]):  # a kill may leave these, too
        (tmp_path / f"runs/tiny/traces/update-{update:06d}.h5.new").touch()
    assert run(["train", "--resume", "tiny"]) == 0
    one, other = weights(whole), weights(tmp_path / "runs/tiny")
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    traces = [h5py.File(f / "traces/update-000000.h5") for f in (whole, tmp_path / "runs/tiny")]
    for place in ("frames/image/data", "frames/image2/data", "decisions/chain"):
        np.testing.assert_array_equal(*(t[place][:].tolist() for t in traces), err_msg=place)
    starts = [e for e in read_events(log) if e["type"] == "run_start"]
    assert [start["resumed"] for start in starts] == [False, True]


def test_a_checkpoint_can_be_moved_and_evaluated(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (whole / "checkpoints/000002/pretrained_model").rename(tmp_path / "moved")
    try:
        assert run(["eval", "--policy", "moved", "--task", "1", "--episodes", "2", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
    finally:
        (tmp_path / "moved").rename(whole / "checkpoints/000002/pretrained_model")
    row = report["tasks"][0]
    assert row["n"] == 2
    assert report["config"]["steps"] == TINY["steps"]  # it acts as it was trained
    evaluation = [e for e in read_events(whole / "events.jsonl") if e["type"] == "eval"][-1]
    assert row["eval/success_once"] == evaluation["metrics"]["eval/success_once"]
    assert row["difference"] == row["eval/success_once"] - row["eval/base_success_once"]


@pytest.fixture(scope="module")
def two_tasks(tmp_path_factory):
    """One update of low-rank additions on two tasks, mirrored to TensorBoard; its folder."""
    folder = tmp_path_factory.mktemp("two")
    before = Path.cwd()
    os.chdir(folder)
    options = {"tasks": (0, 3), "curriculum": True, "forgetting": True, "eval_episodes": 1}
    options |= {"updates": 1, "groups": 2, "group_size": 2, "attempts": 1, "traces": 0}
    options["keep"] = ()
    config = TrainConfig(**TINY | options, train="lora", mirror=("tensorboard",))
    try:
        train(config, load_policy(config.policy), "two")
    finally:
        os.chdir(before)
    return folder / "runs" / "two"


def test_several_tasks_are_trained_and_the_others_evaluated(two_tasks):
    events = read_events(two_tasks / "events.jsonl")
    groups = {}
    for episode in (e for e in events if e["type"] == "episode"):
        groups.setdefault(episode["group"], set()).add(episode["task_id"])
    assert len(groups) == 2
    assert all(len(tasks) == 1 and tasks <= {0, 3} for tasks in groups.values())
    evaluations = [e for e in events if e["type"] == "eval"]
    told = [(e["task_id"], e["update"], e.get("forgetting", False)) for e in evaluations]
    before, after = [(0, 0, False), (3, 0, False)], [(0, 1, False), (3, 1, False)]
    assert told == [*before, *after, (1, 1, True), (2, 1, True)]
    assert all("eval/base_success_once" in e["metrics"] for e in evaluations[2:])
    state = json.loads((two_tasks / "checkpoints/000001/training_state/state.json").read_text())
    assert state["progress"]["base_success"].keys() == {"0", "3"}
    assert state["progress"]["visits"].keys() <= {"0", "3"}


def test_trackers_are_shown_the_same_names_and_numbers(two_tasks):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(two_tasks / "tensorboard"))
    shown.Reload()
    (step,) = [e for e in read_events(two_tasks / "events.jsonl") if e["type"] == "step"]
    for name, value in step["metrics"].items():
        (scalar,) = shown.Scalars(name)
        assert scalar.step == 1
        assert scalar.value == pytest.approx(value, rel=1e-6)
    assert "eval/success_once/push_cube_to_zone" in shown.Tags()["scalars"]


def test_the_first_ctrl_c_finishes_the_update(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(**TINY)

    def listen(kind, fields):
        if kind == "group":
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(config, load_policy(config.policy), "stopped", listen=listen)
    folder = tmp_path / "runs/stopped"
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["000000", "000001"]
    assert read_events(folder / "events.jsonl")[-1]["status"] == "interrupted"

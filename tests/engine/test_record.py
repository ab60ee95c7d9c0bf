"""Real recordings of the shipped policy: pairing, determinism, interruption, refusal."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from engine.config import RecordConfig
from engine.record import record
from traces.catalog import find_traces
from traces.condition import BASELINE, Condition
from traces.errors import FileExists, UnwritableFolder, UserError
from traces.events import read_events
from traces.intervention import Intervention, Site
from traces.reader import TraceReader

STEER = Intervention("fast", "overwrite", (Site("vlm", 1, (3, 50, 200)),), 8.0)
SHORT = {"episodes": 3, "task_id": 0, "replan": 5}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def recording(loaded, tmp_path_factory):
    """Baseline and steered condition of three episodes; path, files and events."""
    folder = tmp_path_factory.mktemp("recording")
    before = Path.cwd()
    os.chdir(folder)
    try:
        heard = []
        paths = record(
            RecordConfig(**SHORT),
            loaded,
            [BASELINE, Condition(STEER)],
            "one",
            lambda *e: heard.append(e),
        )
        return folder, [folder / path for path in paths], heard
    finally:
        os.chdir(before)


def datasets(path):
    """Every dataset by name, and whether it is a wall-clock one."""
    found = {}
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, item: (
                found.update({name: (item[()], bool(item.attrs.get("wall_clock", False)))})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return found


def test_baseline_and_steered_are_paired(recording):
    _, (baseline, steered), _ = recording
    with TraceReader(baseline) as one, TraceReader(steered) as other:
        assert one.header.intervention is None
        assert other.header.intervention == STEER
        a, b = (r.episodes("pair_key", "scene_seed", "init_state", "uid") for r in (one, other))
        np.testing.assert_array_equal(a["pair_key"], b["pair_key"])
        np.testing.assert_array_equal(a["scene_seed"], [0, 1, 2])
        assert not set(a["uid"]) & set(b["uid"])
        first = [r.decisions("chain", "obs_hash", episode=0) for r in (one, other)]
        np.testing.assert_array_equal(first[0]["chain"][0, 0], first[1]["chain"][0, 0])
        assert first[0]["obs_hash"][0] == first[1]["obs_hash"][0]
        assert not np.array_equal(first[0]["chain"][0, -1], first[1]["chain"][0, -1])


def test_tables_agree_with_each_other(recording):
    _, (baseline, _), _ = recording
    with TraceReader(baseline) as trace:
        episodes = trace.episodes("n_steps", "success", "return", "first_step", "final_ee_pos")
        steps = trace.steps("episode", "t", "decision", "chunk_offset", "action", "action_policy")
        decisions = trace.decisions("t", "n_executed", "log_prob", "episode")
        log_prob = trace.steps("log_prob")["log_prob"]
    assert episodes["n_steps"].sum() == len(steps["t"])
    np.testing.assert_array_equal(episodes["success"], episodes["return"] == 1)
    np.testing.assert_array_equal(steps["action"], np.clip(steps["action_policy"], -1, 1))
    np.testing.assert_array_equal(
        np.bincount(steps["decision"], minlength=len(decisions["t"])), decisions["n_executed"]
    )
    np.testing.assert_array_equal(
        steps["t"], decisions["t"][steps["decision"]] + steps["chunk_offset"]
    )
    np.testing.assert_allclose(
        np.bincount(steps["decision"], log_prob), decisions["log_prob"], rtol=1e-12
    )
    assert decisions["n_executed"].max() == 5


def test_the_final_pose_follows_the_last_step(recording):
    """ee_pos is before the action, so the last motion ends in final_ee_pos."""
    _, (baseline, _), _ = recording
    with TraceReader(baseline) as trace:
        for episode in range(trace.n_episodes):
            last = trace.steps("ee_pos", "action", episode=episode)
            final = trace.episodes("final_ee_pos")["final_ee_pos"][episode]
            moved = 100 * np.linalg.norm(final - last["ee_pos"][-1])
            assert 0 <= moved < 4.5
            np.testing.assert_allclose(
                last["ee_pos"][1:] - last["ee_pos"][:-1],
                0.025 * last["action"][:-1, :3],
                atol=0.025,
            )


def test_provenance_is_in_the_header(recording, loaded):
    _, (baseline, steered), _ = recording
    with TraceReader(steered) as trace:
        header = trace.header
        assert trace.policies()["sha256"].tolist() == [loaded.sha256]
        assert trace.objects()["pos"].shape[1:] == (3,)
        assert trace.object_names[0] == "red_cube"
    assert header.config["seed"] == 0
    assert header.likelihood["name"] == "flow-sde"
    assert header.likelihood["dims"] == [0, 1, 2, 6]
    assert header.versions["lerobot"] == "0.6.1"
    assert header.n_action_steps == 5
    assert set(header.hook_map) > {"vlm.0.ffn_act", "exp.0.ffn_act", "vlm.1.ffn_act.steered"}
    assert baseline.name.startswith("lift_cube-baseline-one")
    assert steered.name.startswith("lift_cube-fast-a8-one")


def test_the_events_log_tells_the_same_story(recording):
    folder, paths, heard = recording
    events = read_events(folder / "runs" / "one" / "events.jsonl")
    kinds = [event["type"] for event in events]
    assert kinds[0] == "run_start"
    assert kinds[-1] == "run_end"
    assert events[-1]["status"] == "finished"
    assert [event[0] for event in heard] == kinds
    assert events[0]["episodes_total"] == kinds.count("episode") == 6
    assert [e["path"] for e in events if e["type"] == "shard"] == [
        str(path.relative_to(folder)) for path in paths
    ]
    meed = [e["meed_cm"] for e in events if e["type"] == "episode" and e["alpha"] is None]
    from analysis.tables import episode_table

    np.testing.assert_allclose(meed, episode_table([paths[0]]).frame["meed_cm"].to_list())
    assert (folder / "runs" / "one" / "config.yaml").read_text().startswith("suite: tabletop")


def test_one_and_two_workers_give_the_same_bytes(recording, loaded, here):
    _, paths, _ = recording
    config = RecordConfig(**SHORT, workers=1)
    again = record(config, loaded, [BASELINE, Condition(STEER)], "one")
    for path, other in zip(paths, again, strict=True):
        first, second = datasets(path), datasets(other)
        assert first.keys() == second.keys()
        clocks = {name for name, (_, wall_clock) in first.items() if wall_clock}
        assert clocks == {"episodes/wall_s", "decisions/policy_ms", "updates/wall_s"}
        for name in first.keys() - clocks:
            assert first[name][0].tobytes() == second[name][0].tobytes(), name


def test_spilled_activations_give_the_same_bytes(recording, loaded, here, monkeypatch):
    _, paths, _ = recording
    monkeypatch.setattr("engine.record.SPILL_BYTES", 100_000)
    (again,) = record(RecordConfig(**SHORT), loaded, [BASELINE], "one")
    first, second = datasets(paths[0]), datasets(again)
    assert first.keys() == second.keys()
    for name, (values, wall_clock) in first.items():
        assert wall_clock or second[name][0].tobytes() == values.tobytes(), name


def test_shards_are_announced_as_they_close_and_hold_the_same(recording, loaded, here):
    _, paths, _ = recording
    heard = []
    shards = record(
        RecordConfig(**SHORT, shard_episodes=2),
        loaded,
        [BASELINE],
        "one",
        lambda kind, fields: heard.append((kind, fields)),
    )
    assert [path.name for path in shards] == [
        "lift_cube-baseline-one.h5",
        "lift_cube-baseline-one.s0001.h5",
    ]
    kinds = [kind for kind, _ in heard if kind in ("episode", "shard")]
    assert kinds == ["episode", "shard", "episode", "episode", "shard"]
    closed = [fields for kind, fields in heard if kind == "shard"]
    assert [(f["path"], f["number"], f["episodes"]) for f in closed] == [
        (str(shards[0]), 0, 2),
        (str(shards[1]), 1, 1),
    ]
    with TraceReader(paths[0]) as whole, TraceReader(shards[0]) as a, TraceReader(shards[1]) as b:
        for name, values in whole.decisions().items():
            if name not in ("episode", "policy_ms"):
                parts = [trace.decisions(name)[name] for trace in (a, b)]
                np.testing.assert_array_equal(np.concatenate(parts), values)
        for site in whole.sites():
            parts = [trace.activation(site.name) for trace in (a, b)]
            np.testing.assert_array_equal(np.concatenate(parts), whole.activation(site.name))


def test_repeating_never_overwrites(recording, loaded):
    folder, paths, _ = recording
    os.chdir(folder)
    before = [path.read_bytes() for path in paths]
    with pytest.raises(FileExists):
        record(RecordConfig(**SHORT), loaded, [BASELINE], "one")
    assert [path.read_bytes() for path in paths] == before


def test_deterministic_has_no_log_prob_and_says_why(loaded, here):
    config = RecordConfig(**SHORT | {"episodes": 1}, noise_level=0.0)
    (path,) = record(config, loaded, [BASELINE], "ode")
    with TraceReader(path) as trace:
        assert trace.header.likelihood["name"] == "ode"
        assert "no density" in trace.header.likelihood["why_nan"]
        assert np.isnan(trace.steps("log_prob")["log_prob"]).all()
        assert (trace.decisions("noise_std")["noise_std"] == 0).all()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio's reader
@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_video_is_a_real_film(loaded, here, kind):
    import imageio.v3 as iio

    config = RecordConfig(**SHORT | {"episodes": 1}, video=kind)
    trace, film = record(config, loaded, [BASELINE], "film")
    assert film.suffix == f".{kind}"
    frames = iio.imread(film)
    with TraceReader(trace) as reader:
        n_steps = int(reader.episodes("n_steps")["n_steps"][0])
    assert frames.shape[1:3] == (256, 256)
    assert abs(len(frames) - (n_steps + 1)) <= (0 if kind == "mp4" else n_steps // 3)
    assert frames.std() > 20


def test_ctrl_c_finishes_the_block_and_closes_the_files(here):
    """The real command: the first Ctrl-C keeps everything that was finished."""
    command = [Path(sys.executable).with_name("vla-trace"), "record", "--episodes", "40"]
    process = subprocess.Popen(
        [*command, "--replan", "5", "--name", "stopped"], stderr=subprocess.PIPE, text=True
    )
    events = here / "runs" / "stopped" / "events.jsonl"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if events.exists() and '"episode"' in events.read_text():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, talk = process.communicate(timeout=60)
    assert process.returncode == 130
    assert talk.splitlines()[-1] == "error: interrupted"
    (path,) = find_traces(["traces"])
    with TraceReader(path) as trace:
        assert 8 <= trace.n_episodes < 40
        assert trace.n_episodes % 8 == 0
    last = json.loads(events.read_text().splitlines()[-1])
    assert (last["type"], last["status"]) == ("run_end", "interrupted")


def test_what_cannot_be_recorded_is_refused_before_the_first_episode(loaded, here):
    dead = Intervention("fast", "overwrite", (Site("vlm", 5, (1,)),), 8.0)
    with pytest.raises(UserError, match="layer 5 cannot change the action"):
        record(RecordConfig(**SHORT), loaded, [BASELINE, Condition(dead)], "dead")
    assert not (here / "runs").exists()
    blocker = here / "blocked"
    blocker.write_text("a file, not a folder")
    with pytest.raises(UnwritableFolder, match="blocked"):
        record(RecordConfig(**SHORT, out=str(blocker)), loaded, [BASELINE], "blocked")
    for wrong in ({"episodes": 0}, {"replan": 0}, {"seed": -1}, {"seed": 990, "episodes": 20}):
        with pytest.raises(UserError):
            RecordConfig(**wrong)

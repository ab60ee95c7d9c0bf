"""`status`, `tail`, `alerts` and `snapshot`: a run in words and as JSON."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tui.cli import run as command

_path = Path(__file__).parent / "golden" / "scenes.py"
_spec = importlib.util.spec_from_file_location("tui_scenes", _path)
scenes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scenes)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.time", lambda: scenes.NOW)
    return tmp_path


@pytest.fixture
def run(here):
    return scenes.training(here)


def out_of(capsys, *args, code=0):
    assert command(list(args)) == code
    return capsys.readouterr().out


def json_of(capsys, *args):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(out_of(capsys, *args, "--json"), parse_constant=refuse)


def test_status_in_words(run, capsys):
    assert out_of(capsys, "status").splitlines() == [
        "smolvla-goal-07: running, update 15 of 60, about 25:04 left, heard 4s ago",
        "phase: rollout 45/64, about 0:18 left of this update",
        "train success .59 [.40, .76] of 64, update 14",
        "eval success .56 [.46, .65] of 100, base .46 on push_cube_to_zone, update 10",
        "groups of update 15: 0 of 8 full, 0 DEAD (none succeeded), 0 SAT (all did)",
        "approx_kl .006, clip_fraction .050, grad_norm 12.5",
        "WARN update 14: grad_norm 12.5 > 8 x median 1.2; last checkpoint: 10 (grad_spike)",
        "checkpoint 10, 2m ago",
    ]


def test_status_as_json(run, capsys):
    status = json_of(capsys, "status", run.run_id)
    assert (status["state"], status["update"], status["updates"]) == ("running", 15, 60)
    assert status["phase"].pop("seconds") == pytest.approx(13.8, abs=0.01)
    assert status["phase"] == {"name": "rollout", "done": 45, "total": 64}
    assert status["train_success"]["n"] == 64
    assert status["train_success"]["n_eff"] < 64
    assert status["alerts"][0]["rule"] == "grad_spike"
    assert status["groups"][1]["success"] == [False] * 6 + [None] * 2
    assert status["metrics"]["train/actor/grad_norm"] == 12.5


@pytest.mark.parametrize("name", ["runs/smolvla-goal-07", "runs/smolvla-goal-07/events.jsonl"])
def test_a_run_is_found_by_folder_and_log(run, capsys, name):
    assert json_of(capsys, "status", name)["run"] == run.run_id


def test_an_unknown_run_names_those_there_are(run, capsys):
    assert command(["status", "smolvla-goal-70"]) == 2
    err = capsys.readouterr().err
    assert "smolvla-goal-07" in err
    assert err.count("\n") == 1


def test_no_run_at_all(here, capsys):
    assert command(["status"]) == 2
    assert "no runs here" in capsys.readouterr().err


def test_status_of_a_recording(here, capsys):
    scenes.recording(here)
    assert json_of(capsys, "status")["episodes"] == 3
    assert "running, 3 episodes" in out_of(capsys, "status")


def test_status_imports_nothing_heavy(run):
    heavy = ("numpy", "h5py", "polars", "torch", "textual", "engine")
    code = f"""
import sys
from tui.cli import run
assert run(["status", "--json"]) == 0
print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stderr == "[]\n"
    assert json.loads(done.stdout)["run"] == run.run_id


def test_watch_ends_with_the_run(here, capsys):
    scenes.TrainingRun(here).trained(1).emit("run_end", status="finished")
    assert out_of(capsys, "status", "--watch") == "smolvla-goal-07: finished: finished\n"
    (line,) = out_of(capsys, "status", "--watch", "--json").splitlines()
    assert json.loads(line)["state"] == "finished"


def test_watch_says_what_changed(run, capsys, monkeypatch):
    """The run goes on while it is watched: every second another event, then its end."""
    to_come = [
        lambda: None,
        lambda: run.emit("phase", name="update", update=14, total=400, done=100),
        lambda: run.emit("run_end", status="failed", reason="out of\nmemory"),
    ]
    monkeypatch.setattr("time.sleep", lambda s: to_come.pop(0)())
    assert out_of(capsys, "status", "--watch").splitlines() == [
        "smolvla-goal-07: running: rollout 45/64",
        "smolvla-goal-07: running: update 100/400",
        "smolvla-goal-07: failed: failed: out of memory",
    ]


def test_tail(run, capsys):
    lines = out_of(capsys, "tail", "-n", "2").splitlines()
    assert lines[0].startswith("2026-11-20 09:39 episode uid=smolvla-goal-07/u00014/g0004/a00/m005")
    assert lines[1] == "2026-11-20 09:39 heartbeat"


def test_tail_of_one_type_as_json(run, capsys):
    text = out_of(capsys, "tail", run.run_id, "--type", "step", "-n", "3", "--json")
    assert [json.loads(line)["update"] for line in text.splitlines()] == [12, 13, 14]


def test_tail_has_the_alerts_that_follow(run, capsys):
    (line,) = out_of(capsys, "tail", "--type", "alert", "--json").splitlines()
    alert = json.loads(line)
    assert (alert["type"], alert["rule"], alert["update"]) == ("alert", "grad_spike", 14)
    assert alert["logged"] is False


def test_tail_follows_to_the_end(run, capsys, monkeypatch):
    to_come = [
        lambda: run.emit("alert", level="error", rule="not_finite", message="NaN"),
        lambda: run.emit("run_end", status="finished"),
    ]
    monkeypatch.setattr("time.sleep", lambda s: to_come.pop(0)())
    lines = out_of(capsys, "tail", "--type", "alert", "--type", "run_end", "--follow").splitlines()
    assert [line.split()[2] for line in lines] == ["alert", "alert", "run_end"]
    assert "rule=not_finite" in lines[1]


def test_tail_of_an_unknown_type(run, capsys):
    assert command(["tail", "--type", "alerts"]) == 2
    assert "alert" in capsys.readouterr().err


def test_alerts(run, capsys):
    run.emit("alert", level="error", rule="not_finite", message="loss nan", value=float("nan"))
    lines = out_of(capsys, "alerts").splitlines()
    assert lines == [
        "WARN update 14: grad_norm 12.5 > 8 x median 1.2; last checkpoint: 10 (grad_spike)",
        "ERROR update 15: loss nan (not_finite)",
    ]
    assert out_of(capsys, "alerts", "--level", "error").splitlines() == lines[1:]
    assert out_of(capsys, "alerts", "--since", "10s").splitlines() == lines[1:]
    assert out_of(capsys, "alerts", "--since", "1h").splitlines() == lines
    found = json_of(capsys, "alerts")["alerts"]
    assert [(alert["rule"], alert["value"]) for alert in found] == [
        ("grad_spike", 12.5),
        ("not_finite", None),
    ]


def test_no_alerts(here, capsys):
    scenes.TrainingRun(here).trained(1)
    assert command(["alerts"]) == 0
    assert capsys.readouterr() == ("", "no alerts\n")
    assert command(["alerts", "--since", "soon"]) == 2
    assert "expected such as 30m" in capsys.readouterr().err


def test_snapshot(run, capsys):
    text = out_of(capsys, "snapshot", run.run_id, "--around", "14", "--window", "1")
    lines = text.splitlines()
    assert lines[0].split() == ["update", "13", "*14"]
    assert next(line for line in lines if "grad_norm" in line).split()[1:] == ["1.10", "12.5"]
    assert "WARN update 14: grad_norm 12.5" in text
    assert "   1  push_cube_to_zone  xxxxxxxx  mean 0.00" in text
    found = json_of(capsys, "snapshot", run.run_id, "--around", "10", "--window", "1")
    assert [row["update"] for row in found["updates"]] == [9, 10, 11]
    assert [e["update"] for e in found["evals"]] == [10]
    assert (found["alerts"], len(found["groups"])) == ([], 8)


def test_snapshot_of_the_update_that_is_being_made(run, capsys):
    found = json_of(capsys, "snapshot", run.run_id, "--around", "15", "--window", "0")
    assert found["updates"] == []
    assert len(found["groups"]) == 8


def test_snapshot_says_what_there_is(run, here, capsys):
    assert command(["snapshot", run.run_id, "--around", "99"]) == 2
    assert "no update 99; smolvla-goal-07 has 1 to 14" in capsys.readouterr().err
    scenes.recording(here)
    assert command(["snapshot", scenes.LIVE, "--around", "1"]) == 2
    assert "is no training run" in capsys.readouterr().err


EVIL = "\x1b]0;owned\x07\x1b[2J\nx"


def test_nothing_of_a_log_reaches_the_terminal_raw(here, capsys):
    run = scenes.TrainingRun(here, run_id="evil", t=scenes.NOW - 60)
    run.emit("run_start", run_id=EVIL, kind="grpo", task_id=1, task_name=EVIL, config={})
    run.rollout(1, 3)
    run.emit("step", update=1, metrics={EVIL: 1.0})
    run.emit("eval", update=1, task_id=1, task_name=EVIL, n=4, metrics={"eval/success_once": 0.5})
    run.emit("alert", level=EVIL, rule=EVIL, message=EVIL)
    run.emit("phase", name=EVIL)
    run.emit("shard", path=EVIL, **{EVIL: EVIL})
    for args in (["status"], ["tail"], ["alerts"], ["snapshot", "--around", "1"]):
        name = [args[0], "evil", *args[1:]]
        for text in (out_of(capsys, *name), out_of(capsys, *name, "--json")):
            assert "\x1b" not in text
            assert "\x07" not in text
    assert command(["status", EVIL]) == 2
    assert "\x1b" not in capsys.readouterr().err

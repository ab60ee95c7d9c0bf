"""`vla-trace show`: what a person and a program learn about one file."""

import json
import math
import re
from pathlib import Path

import h5py
import pytest

from tui import cli


@pytest.fixture
def steered(traces, tmp_path):
    episodes = [
        traces.episode("p0", [1.0, 2.0], success=True),
        traces.episode("p1", [1.0], instruction="lift it\x1b[2J quickly"),
    ]
    return traces.write(tmp_path / "fast.h5", episodes, traces.steer(), replan=5)


def test_json_summary(steered, traces, capsys):
    assert cli.run(["show", "--json", str(steered)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    assert (found["schema"], found["file"], found["finished"]) == (1, str(steered), True)
    assert (found["kind"], found["run_id"]) == ("record", "fast")
    assert found["bytes"] == steered.stat().st_size
    assert found["policies"] == [
        {
            "policy_version": 0,
            "update": 0,
            "sha256": "ab" * 32,
            "path": "models/smolvla-tabletop",
        }
    ]
    assert found["tasks"] == [{"suite": "tabletop", "task_id": 0, "task": "lift"}]
    assert found["instructions"] == ["lift it\x1b[2J quickly", "pick up the red cube"]
    assert found["intervention"]["operator"] == "overwrite"
    assert found["intervention"]["sites"][0]["neurons"] == [0, 2]
    assert found["intervention"]["provenance"]["hits"] == 5
    assert found["likelihood"] == {"name": "flow_sde"}
    assert (found["sizes"], found["replan"]) == ({"K": 2, "H": 3, "A": 7, "Z": 4}, 5)
    assert (found["episodes"], found["successes"]) == (2, 1)
    assert (found["steps"], found["decisions"]) == (3, 3)
    assert found["safety"] == {
        "episodes": 2,
        "steps": 3,
        "saturated": 0.0,
        "at_limit": None,
        "contact": 0.0,
        "max_force_n": None,
        "falls": None,
        "drops": None,
        "joints_at_limit": {},
    }
    datasets = {dataset["name"]: dataset for dataset in found["datasets"]}
    assert datasets["steps/ee_pos"]["shape"] == [3, 3]
    assert datasets["steps/ee_pos"]["dtype"] == "float64"
    assert datasets["steps/ee_pos"]["bytes"] > 0
    assert datasets["episodes/uid"]["dtype"] == "text"
    (site,) = found["sites"]
    assert (site["name"], site["layer"], site["dims"]) == ("vlm.1.ffn_act", 1, ["D", "N"])


def test_human_summary(steered, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(["show", str(steered)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"lift it\x1b[2J quickly; pick up the red cube" in out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "run fast (record, 2026-01-01T00:00:00Z)" in lines
    assert "policy models/smolvla-tabletop abababababababab" in lines
    assert "intervention fast: overwrite, coefficient 8" in lines
    assert "where vlm layer 1 neurons 0, 2" in lines
    assert "sampler flow_sde, K 2, H 3, A 7, Z 4, replan 5" in lines
    assert "episodes 2, 1 successful; 3 steps, 3 decisions" in lines
    assert "limits 0.0 % of action entries clipped" in lines
    assert "contact in 0.0 % of 3 steps" in lines
    assert any(line.startswith("steps 3 16 ") for line in lines)
    assert any(line.startswith("vlm.1.ffn_act D 3 N 4 float16 yes ") for line in lines)
    assert max(map(len, out.splitlines())) <= 80


def test_limits_contact_and_falls_have_units_and_n(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    recorded = Path(__file__).parent / "recorded" / "traces" / "lift_cube-baseline-demo-run.h5"
    assert cli.run(["show", str(recorded)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (limits,) = [line for line in lines if line.startswith("limits ")]
    (contact,) = [line for line in lines if line.startswith("contact ")]
    share = r"\d+\.\d %"
    assert re.search(rf"{share} of action entries clipped", limits)
    said = rf"in {share} of \d+ steps; up to [\d.]+ N; \d+ falls in 4 episodes, \d+ out of a closed"
    assert re.search(said, contact)


def test_baseline_and_unfinished_are_said(traces, tmp_path, capsys):
    path = traces.write(tmp_path / "a.h5", [traces.episode("p0", [1.0])], finish=False)
    assert cli.run(["show", str(path)]) == 0
    out = capsys.readouterr().out
    assert "none (baseline)" in out
    assert "unfinished" in out
    assert cli.run(["show", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["finished"] is False


def test_a_header_with_nan_is_still_json(traces, tmp_path, capsys):
    path = traces.write(tmp_path / "a.h5", [traces.episode("p0", [1.0])])
    with h5py.File(path, "r+", locking=False) as file:
        file.attrs["likelihood"] = json.dumps({"name": "ode", "noise": math.nan, "t": [1.0]})
    assert cli.run(["show", "--json", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["likelihood"] == {"name": "ode", "noise": None, "t": [1.0]}


def test_a_site_under_two_names_is_shown(steered, tmp_path, capsys):
    with h5py.File(steered, "r+", locking=False) as file:
        file["again"] = file["activations"]
    assert cli.run(["show", str(steered)]) == 0
    assert "vlm.1.ffn_act" in capsys.readouterr().out
    with h5py.File(steered, "r+", locking=False) as file:
        file.move("again", "a")
    assert cli.run(["show", str(steered)]) == 0
    out, err = capsys.readouterr()
    assert "vlm.1.ffn_act" in out
    assert err == ""


def test_a_site_that_contradicts_itself_is_damage(steered, capsys):
    with h5py.File(steered, "r+", locking=False) as file:
        file["activations/vlm.1.ffn_act"].attrs["shape"] = "5"
    assert cli.run(["show", str(steered)]) == 2
    assert "its rows have the shape (4,), not (5,)" in capsys.readouterr().err


def test_many_instructions_are_counted(traces, tmp_path, capsys):
    episodes = [traces.episode(f"p{i}", [1.0], instruction=f"task {i}") for i in range(9)]
    path = traces.write(tmp_path / "a.h5", episodes)
    assert cli.run(["show", str(path)]) == 0
    assert "task 0; task 1; task 2; task 3; and 5 more" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fats.h5", "no such file"),
        ("notes.txt", "it is not an HDF5 file"),
        ("", "it is a folder"),
        ("hole.h5", "it is damaged"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(name, said, steered, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("hello")
    hole = tmp_path / "hole.h5"
    hole.write_bytes(steered.read_bytes())
    with h5py.File(hole, "r+", locking=False) as file:
        del file["episodes/instruction"]
    assert cli.run(["show", str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_a_dose_that_says_nothing_is_left_out(steered, capsys):
    with h5py.File(steered, "r+") as file:
        file.attrs["dose"] = '{"name": NaN}'
    assert cli.run(["show", str(steered)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if line.strip().startswith("dose")]

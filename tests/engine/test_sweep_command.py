"""`vla-trace sweep` as typed: the grid, going on after a stop, and what it refuses."""

import json

import pytest

from engine.runs import stopped_run
from tui.cli import run

BAD = [
    ([], "nothing to sweep"),
    (["--steer", "fastt"], "fast"),
    (["--steer", "fast", "--alpha", "8,x"], "'x' is not a number"),
    (["--steer", "fast", "--size", "ten"], "whole numbers"),
    (["--steer", "fast", "--layer", "-1"], "whole numbers"),
    (["--steer", "fast", "--layer", "77"], "no layer 77"),
    (["--ablate", "vlmm"], "vlm"),
    (["--prompts", "rude"], "negated"),
    (["--patch", "lift_cube"], "the task itself"),
    (["--resume", "nowhere"], "no run 'nowhere'"),
]
SHORT = ["--episodes", "1", "--replan", "10", "--capture", "light"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("arguments", "says"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input_is_one_line_and_exit_2(arguments, says, here, capsys):
    assert run(["sweep", *arguments]) == 2
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert out == ""
    assert last.startswith("error: ")
    assert says in last
    assert not list(here.rglob("*.h5*"))


def test_a_grid_is_recorded_and_goes_on_where_it_stopped(here, capsys):
    grid = ["--steer", "fast", "--alpha", "4,8", "--prompts", "empty,fast", "--controls", "light"]
    assert run(["sweep", *grid, *SHORT, "--name", "grid", "--json"]) == 0
    printed = capsys.readouterr()
    files = json.loads(printed.out)["files"]
    # baseline, 2 doses, prompt, null, 2 doses x 2 random clusters, empty prompt
    assert len(files) == 10
    assert "10 conditions of 1 episodes" in printed.err
    stopped = stopped_run("grid")
    assert len(stopped.finished) == 10

    lost = stopped.finished['told ""'][0]
    lost.unlink()
    before = {path: (here / path).read_bytes() for path in files if path != str(lost)}
    assert run(["sweep", "--resume", "grid", "--json"]) == 0
    printed = capsys.readouterr()
    assert "9 of 10 conditions are complete" in printed.err
    assert sorted(json.loads(printed.out)["files"]) == sorted(files)
    assert lost.exists()
    assert before == {path: (here / path).read_bytes() for path in before}


def test_patching_across_tasks_acts_and_its_null_does_not(here, capsys):
    asked = ["--patch", "push_cube_to_zone", *SHORT, "--name", "p", "--json"]
    assert run(["sweep", *asked]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert run(["analyze", *files, "--json"]) == 0
    found = {c["label"]: c for c in json.loads(capsys.readouterr().out)["conditions"]}
    assert len(found) == 1 + 6 + 3  # baseline, each layer, each group of tokens
    assert found["vlm 5 of push_cube_to_zone"]["role"] == "null"
    live = found["vlm 1 of push_cube_to_zone"]
    assert (live["alpha"], live["specificity"]["null_equal"]) == (None, 1)
    assert live["meed_cm"] != found["baseline"]["meed_cm"]


def test_other_weights_do_not_go_on(here, capsys):
    assert run(["sweep", "--prompts", "empty", *SHORT, "--name", "one"]) == 0
    log = here / "runs" / "one" / "events.jsonl"
    log.write_text(log.read_text().replace('"policy_sha256": "', '"policy_sha256": "00'))
    capsys.readouterr()
    assert run(["sweep", "--resume", "one"]) == 2
    assert "was begun with the weights 00" in capsys.readouterr().err

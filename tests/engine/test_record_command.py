"""`vla-trace record` as typed: what it refuses, in one line, and what it prints."""

import json

import numpy as np
import pytest

from traces.reader import TraceReader
from tui.cli import run

BAD = [
    (["--task", "lift_cubes"], "lift_cube"),
    (["--task", "7"], "unknown task"),
    (["--suite", "tabeltop"], "tabletop"),
    (["--policy", "nowhere"], "config.json"),
    (["--steer", "fastt"], "fast"),
    (["--steer", "fast", "--layer", "5"], "layers that work"),
    (["--steer", "fast", "--layer", "99"], "no layer 99"),
    (["--steer", "fast", "--alpha", "eight"], "'eight' is not a number"),
    (["--steer", "fast", "--alpha", "2", "x"], "'x' is not a number"),
    (["--steer", "fast", "--alpha", "nan"], "'nan' is not a number"),
    (["--steer", "fast", "--size", "0"], "0 neurons"),
    (["--alpha", "8"], "add --steer"),
    (["--layer", "1"], "add --steer"),
    (["--no-baseline"], "nothing to record"),
    (["--episodes", "0"], "at least 1"),
    (["--episodes", "2000"], "evaluation scenes"),
    (["--replan", "99"], "chunk"),
    (["--steps", "-1"], "steps must be at least 0"),
    (["--video", "avi"], "mp4 or gif"),
    (["--intervention", "none.json"], "none.json: cannot be read"),
    (["--intervention", "none.json", "--steer", "fast"], "give one of the two"),
    (["--keep", "everything"], "available: base-log-prob, frames"),
    (["--name", "../x"], "--name"),
    (["--tsk", "1"], "--tsk"),
    (["nonsense"], "unexpected argument"),
    (["--out", "/proc/nowhere", "--episodes", "1"], "/proc/nowhere"),
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("arguments", "says"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input_is_one_line_and_exit_2(arguments, says, here, capsys):
    code = run(["record", *arguments])
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith(("loading", "steering"))]
    assert code == 2
    assert out == ""
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert says in lines[0]
    assert not list(here.rglob("*.h5*"))


def test_doses_may_be_several_and_negative(here, capsys):
    arguments = ["--steer", "slow", "--alpha", "-2", "4", "--episodes", "1", "--replan", "10"]
    arguments += ["--controls", "none"]
    assert run(["record", *arguments, "--name", "doses", "--json"]) == 0
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert printed["run_id"] == "doses"
    assert [name.split("-doses")[0] for name in printed["files"]] == [
        "traces/lift_cube-baseline",
        "traces/lift_cube-slow-a-2",
        "traces/lift_cube-slow-a4",
    ]
    assert "steering slow: layer" in err
    assert "3/3 episodes" in err


def test_controls_are_recorded_by_default_and_the_null_changes_no_bit(here, capsys):
    assert run(["record", "--steer", "fast", "--episodes", "2", "--replan", "10"]) == 0
    paths = capsys.readouterr().out.split()
    assert len(paths) == 6
    assert run(["analyze", *paths, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["conditions"]
    roles = [condition["role"] for condition in found]
    assert roles == ["baseline", "prompt", "steered", "random", "random", "null"]
    assert [condition["episodes"] for condition in found] == [2] * 6
    specific = found[2]["specificity"]
    assert (specific["n_random"], specific["null_pairs"], specific["null_equal"]) == (2, 2, 2)
    assert found[1]["prompt"] == "{} quickly"
    with TraceReader(paths[1]) as steered, TraceReader(paths[2]) as told:
        assert "quickly" not in steered.episodes("instruction")["instruction"][0]
        assert str(told.episodes("instruction")["instruction"][0]).endswith(" cube quickly")


def test_a_missing_gl_library_names_the_package(monkeypatch, capsys):
    from engine import gl

    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(gl, "_installed", lambda backend: False)
    with pytest.raises(gl.UserError, match="apt-get install libosmesa6"):
        gl.choose_backend()
    monkeypatch.setenv("MUJOCO_GL", "metal")
    with pytest.raises(gl.UserError, match="egl or osmesa"):
        gl.choose_backend()


def intervention_file(here, **changes):
    content = {
        "name": "mine",
        "operator": "add",
        "coefficient": 2,
        "sites": [{"tower": "expert", "layer": 2, "neurons": [3, 5]}],
    }
    (here / "mine.json").write_text(json.dumps(content | changes))
    return "mine.json"


def test_an_intervention_of_ones_own_at_its_dose_or_at_others(here, capsys):
    file = intervention_file(here, denoise_window=[0, 2])
    common = ["record", "--episodes", "1", "--replan", "10", "--json", "--intervention", file]
    assert run([*common, "--no-baseline", "--capture", "light"]) == 0
    out, err = capsys.readouterr()
    (path,) = json.loads(out)["files"]
    assert "mine α=2: " in err
    assert "σ" in err
    with TraceReader(path) as trace:
        assert trace.header.intervention.denoise_window == (0, 2)
        assert trace.header.dose["neurons"] == 2
        assert "--keep base-log-prob" in trace.header.likelihood["why_base_nan"]
        assert np.isnan(trace.steps("log_prob_base")["log_prob_base"]).all()
        assert trace.steps("intervened")["intervened"].all()
    assert run(["show", path]) == 0
    assert trace.header.dose["text"] in " ".join(capsys.readouterr().out.split())
    assert run([*common, "--alpha", "1", "-1", "--keep", "base-log-prob", "--name", "two"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    found = []
    for path in files:
        with TraceReader(path) as trace:
            steered = trace.header.intervention
            found.append(steered and steered.coefficient)
            assert not trace.header.likelihood["why_base_nan"]
            assert np.isfinite(trace.steps("log_prob_base")["log_prob_base"]).all()
    assert found == [None, 1.0, -1.0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"operator": "overwite"}, "did you mean overwrite"),
        ({"sites": [{"tower": "vlm", "layer": 5, "neurons": [1]}]}, "layer 5 cannot change"),
        ({"operator": "patch"}, "donor: expected a recording"),
        ({"operator": "patch", "donor": {"path": "gone.h5"}}, "gone.h5"),
        ({"step_window": [3, 5]}, "hold no decision"),
    ],
)
def test_an_intervention_that_cannot_act_is_refused(here, capsys, changes, says):
    file = intervention_file(here, **changes)
    assert run(["record", "--replan", "10", "--intervention", file]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert says in last
    assert not (here / "traces").exists()

"""`vla-trace repair`: the new file on stdout, what is lost on stderr."""

import json

import h5py
import numpy as np
import pytest

from tui import cli


@pytest.fixture
def unfinished(traces, tmp_path):
    episodes = [traces.episode("p0", [1.0, 2.0]), traces.episode("p1", [1.0])]
    return traces.write(tmp_path / "fast.h5", episodes, traces.steer(), finish=False)


def test_an_unfinished_trace_is_closed(unfinished, tmp_path, capsys):
    before = unfinished.read_bytes()
    assert cli.run(["repair", str(unfinished)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}/fast.h5\n"
    assert err == "2 of 2 complete episodes saved\n"
    assert unfinished.read_bytes() == before
    assert cli.run(["check", str(tmp_path / "fast.h5")]) == 0
    assert cli.run(["repair", str(unfinished)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{tmp_path}/fast-2.h5"


def test_losses_are_said(unfinished, tmp_path, capsys):
    with h5py.File(unfinished, "r+", locking=False) as file:
        file["steps/decision"][0] = 2
        file["mine"] = np.arange(3)
    out = tmp_path / "new.h5"
    assert cli.run(["repair", "--json", str(unfinished), "--out", str(out)]) == 0
    printed, err = capsys.readouterr()
    found = json.loads(printed)
    assert (found["schema"], found["file"], found["new"]) == (1, str(unfinished), str(out))
    assert (found["episodes"], found["complete_episodes"]) == (1, 2)
    assert found["lost"] == [
        "episode 0 left out: steps/decision: values point to a decision of another episode",
        "mine is not part of the format; not copied",
    ]
    assert err.splitlines() == [f"lost: {line}" for line in found["lost"]]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["none.h5"], "no such file"),
        (["notes.txt"], "it is not an HDF5 file"),
        (["."], "it is a folder"),
        (["fast.h5.partial", "--out", "notes.txt"], "already exists and is never overwritten"),
        (["fast.h5.partial", "--out", "notes.txt/x.h5"], "cannot write in"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(args, said, unfinished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert cli.run(["repair", *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    assert sorted(path.name for path in tmp_path.iterdir()) == before

"""`vla-trace prune`: a smaller copy, and how much smaller."""

import json

import pytest

from tui import cli


@pytest.fixture
def path(traces, tmp_path):
    return traces.write(tmp_path / "a.h5", [traces.episode(f"p{i}", [1.0] * 3) for i in range(5)])


def test_sizes_are_said(path, tmp_path, capsys):
    out = tmp_path / "b.h5"
    assert cli.run(["prune", str(path), "--drop", "activations", "--out", str(out)]) == 0
    printed, err = capsys.readouterr()
    assert printed == f"{out}\n"
    sizes = f"{path.stat().st_size} bytes before, {out.stat().st_size} after"
    assert err == f"5 episodes without vlm.1.ffn_act: {sizes}\n"
    assert cli.run(["check", str(out)]) == 0


def test_episodes_by_row(path, tmp_path, capsys):
    out = tmp_path / "b.h5"
    args = ["prune", "--json", str(path), "--keep-episodes", "3-4,0", "--out", str(out)]
    assert cli.run(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["episodes"], found["dropped"]) == (3, [])
    assert found["bytes_after"] == out.stat().st_size
    assert cli.run(["show", "--json", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 3


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "nothing to leave out; add --drop PART"),
        (["--drop", "frames"], "unknown part 'frames'; available: activations, vlm.1.ffn_act"),
        (["--drop", "vlm.1.ffn"], "did you mean vlm.1.ffn_act"),
        (["--keep-episodes", "0-9"], "unknown episode '5'; available: 0 to 4"),
        (["--keep-episodes", "4-2"], "expected rows such as 0-9,15"),
        (["--keep-episodes", "all"], "expected rows such as 0-9,15"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(args, said, path, tmp_path, capsys):
    assert cli.run(["prune", str(path), *args, "--out", str(tmp_path / "b.h5")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    assert not (tmp_path / "b.h5").exists()

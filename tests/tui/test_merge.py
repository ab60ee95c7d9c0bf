"""`vla-trace merge`: recordings of one condition become one file."""

import json

import pytest

from tui import cli


@pytest.fixture
def two(traces, tmp_path):
    return [
        traces.write(tmp_path / f"{name}.h5", [traces.episode(name, [1.0, 2.0])], traces.steer())
        for name in ("a", "b")
    ]


def test_two_become_one_and_stay(two, tmp_path, capsys):
    before = [path.read_bytes() for path in two]
    out = tmp_path / "out" / "all.h5"
    assert cli.run(["merge", f"{tmp_path}/*.h5", "--out", str(out)]) == 0
    assert capsys.readouterr() == (f"{out}\n", "2 episodes of 2 files\n")
    assert [path.read_bytes() for path in two] == before
    assert cli.run(["check", str(out)]) == 0
    capsys.readouterr()
    assert cli.run(["analyze", "--json", str(out)]) == 0
    (condition,) = json.loads(capsys.readouterr().out)["conditions"]
    assert (condition["episodes"], condition["alpha"]) == (2, 8.0)


def test_json_counts_repetitions(two, tmp_path, capsys):
    out = tmp_path / "all.h5"
    cli.run(["merge", *map(str, two), "--out", str(out)])
    capsys.readouterr()
    again = tmp_path / "again.h5"
    assert cli.run(["merge", "--json", str(out), str(two[0]), "--out", str(again)]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1,
        "new": str(again),
        "files": 2,
        "episodes": 2,
        "repeated": 1,
    }


def test_other_conditions_are_refused_in_one_line(two, traces, tmp_path, capsys):
    traces.write(tmp_path / "base.h5", [traces.episode("p", [1.0])])
    assert cli.run(["merge", str(tmp_path), "--out", str(tmp_path / "x.h5")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "the attribute intervention differs" in err


def test_one_file_is_refused(two, tmp_path, capsys):
    assert cli.run(["merge", str(two[0]), "--out", str(tmp_path / "x.h5")]) == 2
    assert "is the only file that matches; name at least two" in capsys.readouterr().err
    assert cli.run(["merge", *map(str, two), "--out", str(two[0])]) == 2
    assert "already exists and is never overwritten" in capsys.readouterr().err

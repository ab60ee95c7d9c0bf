"""`vla-trace check`: one line a finding, and an exit code that a script can use."""

import json

import h5py
import pytest

from tui import cli


@pytest.fixture
def sound(traces, tmp_path):
    return traces.write(tmp_path / "good.h5", [traces.episode("p0", [1.0, 2.0])])


@pytest.fixture
def broken(traces, tmp_path):
    path = traces.write(tmp_path / "bad.h5", [traces.episode("p0", [1.0, 2.0])])
    with h5py.File(path, "r+", locking=False) as file:
        file["steps/t"][1] = 5
    return path


def test_warnings_do_not_fail(sound, capsys):
    assert cli.run(["check", str(sound)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"{sound}: warning: activations/vlm.1.ffn_act: no unit ever changes",
        f"{sound}: ok, 1 warning",
    ]
    assert err == ""


def test_errors_do_and_say_what_to_do(sound, broken, capsys):
    assert cli.run(["check", str(broken.parent)]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    said = "values do not count 0, 1, 2, ... within their episode (row 1)"
    assert lines[0] == f"{broken}: error: steps/t: {said}"
    assert lines[-3] == f"{broken}: damaged, 2 errors, 1 warning"
    assert lines[-1] == f"{sound}: ok, 1 warning"
    assert err == f"save what is whole: vla-trace repair {broken}\n"


def test_json(sound, broken, capsys):
    assert cli.run(["check", "--json", str(sound), str(broken)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    bad, good = found["files"]
    assert (bad["file"], bad["ok"], bad["errors"]) == (str(broken), False, 2)
    assert (good["file"], good["ok"], good["warnings"], good["notes"]) == (str(sound), True, 1, 0)
    assert bad["findings"][0] == {
        "level": "error",
        "place": "steps/t",
        "what": "values do not count 0, 1, 2, ... within their episode (row 1)",
    }


def test_unfinished_files_are_checked_too(traces, tmp_path, capsys):
    path = traces.write(tmp_path / "a.h5", [traces.episode("p0", [1.0])], finish=False)
    assert cli.run(["check", str(tmp_path)]) == 0
    assert str(path) in capsys.readouterr().out


def test_what_is_no_trace_is_an_error_of_that_file(sound, tmp_path, capsys):
    (tmp_path / "notes.h5").write_text("hello")
    assert cli.run(["check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert f"{tmp_path}/notes.h5: error: file: it is not an HDF5 file" in out
    assert f"{sound}: ok, 1 warning" in out


def test_names_cannot_harm_the_terminal(sound, capsys):
    with h5py.File(sound, "r+", locking=False) as file:
        file["steps/\x1b[2J\nx"] = [1.0]
    assert cli.run(["check", str(sound)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 3


def test_no_files_is_one_line_and_exit_2(tmp_path, capsys):
    assert cli.run(["check", str(tmp_path / "none*.h5")]) == 2
    assert capsys.readouterr().err.startswith("error: no trace files match")

"""`vla-trace ls`: one line a recording."""

import json
import os
import time
from pathlib import Path

import h5py
import pytest

from tui import cli


@pytest.fixture
def folder(traces, tmp_path):
    """A baseline, a newer steered recording in two shards, an unfinished and a broken file."""
    home = tmp_path / "traces"
    episodes = [traces.episode("p0", [1.0, 3.0], success=True), traces.episode("p1", [2.0])]
    traces.write(home / "base.h5", episodes)
    traces.write(home / "left.h5", episodes[:1], created_utc="2026-01-02T00:00:00Z", finish=False)
    for shard, name in enumerate(("fast.h5", "fast.s0001.h5")):
        path = traces.write(
            home / name, episodes, traces.steer(), created_utc="2026-01-03T00:00:00Z"
        )
        with h5py.File(path, "r+", locking=False) as file:
            file.attrs["recording"], file.attrs["shard"] = "r1", shard
    (home / "notes.h5").write_text("hello")
    return home


def lines(capsys):
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_one_line_a_recording_the_newest_first(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["ls"]) == 0
    head, fast, left, base, notes = lines(capsys)
    assert head == "recording condition task episodes success MEED cm size age"
    assert fast.startswith("traces/fast.h5 and 1 more fast α=8 lift 4 2/4 2.00 ")
    assert left.startswith("traces/left.h5.partial baseline lift 1 1/1 2.00 ")
    assert left.endswith(" unfinished")
    assert base.startswith("traces/base.h5 baseline lift 2 1/2 2.00 ")
    assert notes.startswith("traces/notes.h5 5 B ")
    assert notes.endswith("unreadable: it is not an HDF5 file")


def test_json(folder, capsys):
    assert cli.run(["ls", "--json", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    fast, left, base, notes = found["recordings"]
    assert fast["files"] == [str(folder / "fast.h5"), str(folder / "fast.s0001.h5")]
    assert (fast["intervention"], fast["alpha"], fast["episodes"]) == ("fast", 8.0, 4)
    assert fast["bytes"] == sum(Path(path).stat().st_size for path in fast["files"])
    assert fast["meed_cm"] == pytest.approx(2.0)
    assert (left["finished"], base["finished"]) == (False, True)
    assert (base["intervention"], base["alpha"], base["successes"]) == (None, None, 1)
    assert base["tasks"] == ["lift"]
    assert notes["error"] == "it is not an HDF5 file"


def test_a_missing_shard_is_said(folder, capsys):
    with h5py.File(folder / "fast.s0001.h5", "r+", locking=False) as file:
        file.attrs["shard"] = 2
    assert cli.run(["ls", str(folder)]) == 0
    assert lines(capsys)[1].endswith("no shard 1")


def test_episodes_cut_short_do_not_count(traces, tmp_path, capsys):
    episodes = [traces.episode("p0", [1.0], success=True), traces.episode("p1", [9.0], error="x")]
    traces.write(tmp_path / "a.h5", episodes)
    assert cli.run(["ls", str(tmp_path)]) == 0
    line = lines(capsys)[1]
    assert " lift 2 1/1 1.00 " in line
    assert line.endswith("1 cut short by an error")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(5, "5 s"), (300, "5 min"), (7200, "2 h"), (3 * 86400, "3 d")]
)
def test_age_is_since_the_last_change(seconds, shown, traces, tmp_path, capsys):
    path = traces.write(tmp_path / "a.h5", [traces.episode("p0", [1.0])])
    os.utime(path, (time.time() - seconds,) * 2)
    assert cli.run(["ls", str(path)]) == 0
    assert lines(capsys)[1].endswith(f" {shown}")


def test_damage_is_a_line_of_its_own(traces, tmp_path, capsys):
    path = traces.write(tmp_path / "a.h5", [traces.episode("p0", [1.0])])
    with h5py.File(path, "r+", locking=False) as file:
        del file["episodes/success"]
    traces.write(tmp_path / "b.h5", [traces.episode("p0", [1.0])])
    assert cli.run(["ls", str(tmp_path)]) == 0
    _, good, bad = lines(capsys)
    assert "baseline" in good
    assert "unreadable: " in bad


def test_uneven_columns_are_damage(traces, tmp_path, capsys):
    path = traces.write(tmp_path / "a.h5", [traces.episode("p0", [1.0])])
    with h5py.File(path, "r+", locking=False) as file:
        file["episodes/success"].resize(2, axis=0)
    assert cli.run(["ls", str(path)]) == 0
    assert "unreadable: the columns of episodes differ in length" in capsys.readouterr().out


def test_no_traces_is_one_line_and_exit_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["ls"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: no trace files match 'traces'")

"""`vla-trace export` as typed."""

import json
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import imageio.v3 as iio
import numpy as np
import polars as pl
import pytest

from traces.writer import TraceWriter
from tui import cli

RECORDED = Path(__file__).parent / "recorded" / "traces"
VLA_TRACE = Path(sys.executable).with_name("vla-trace")


def write(path, numbers):
    """Write a trace with a picture at every step."""
    build = runpy.run_path(str(Path(__file__).parents[1] / "traces" / "conftest.py"))
    header = replace(build["make_header"](), suite={"name": "tabletop", "control_hz": 20})
    rng = np.random.default_rng(0)
    with TraceWriter(path, header, build["SITES"], cameras=("image",)) as writer:
        writer.write_policy(0, 0)
        for number in numbers:
            record = build["make_record"](number, replan=1)
            pixels = rng.integers(0, 256, (len(record.steps["t"]), 16, 16, 3), np.uint8)
            pictures = [iio.imwrite("<bytes>", p, extension=".png") for p in pixels]
            frames = {"image": (record.steps["t"], pictures)}
            writer.write_episode(replace(record, objects=None, sim_state=None, frames=frames))
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "traces" / "a.h5", range(2))


@pytest.mark.parametrize(
    ("name", "out"),
    [("robomimic", "a.hdf5"), ("lerobot", "a"), ("parquet", "a"), ("rerun", "a.rrd")],
)
def test_every_format(path, tmp_path, capsys, name, out):
    args = ["export", str(path), "--to", name, "-o", str(tmp_path / out)]
    assert cli.run(args) == 0
    found, err = capsys.readouterr()
    assert found == f"{tmp_path / out}\n"
    assert "2 episodes, 12 steps\n" in err
    assert ("left out: states" in err) == (name == "robomimic")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([out, "traces"])
    assert cli.run(args) == 2
    assert "already exists" in capsys.readouterr().err
    assert cli.run([*args, "--force", "--json", "--no-activations", "--no-frames"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["episodes"], told["steps"], told["format"]) == (2, 12, name)


def test_a_pattern_of_recordings_is_one_dataset(tmp_path, capsys):
    args = ["--to", "parquet", "-o", str(tmp_path / "out")]
    assert cli.run(["export", str(RECORDED / "*.h5"), *args]) == 0
    episodes = pl.scan_parquet(tmp_path / "out" / "episodes" / "*.parquet").collect()
    assert len(episodes) == 8
    assert sorted(set(episodes["intervention"])) == ["", "fast"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--to", "parket", "-o", "out"], "unknown format 'parket'; did you mean parquet?"),
        (["--to", "robomimic", "-o", "out"], "must end in .hdf5"),
        (["--to", "robomimic", "-o", "out.hdf5"], "record --keep frames --replan 1"),
        (["--to", "lerobot", "-o", "out"], "record --keep frames --replan 1"),
        (["--to", "parquet", "-o", "notes", "--force"], "a folder that no export made"),
        (["--to", "parquet"], "Missing option '-o'"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, monkeypatch, capsys, args, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    assert cli.run(["export", str(RECORDED / "lift_cube-baseline-demo-run.h5"), *args]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert said in err
    assert [p.name for p in tmp_path.iterdir()] == ["notes"]


def test_no_such_file(tmp_path, capsys):
    assert cli.run(["export", str(tmp_path / "a.h5"), "--to", "rerun", "-o", "a.rrd"]) == 2
    assert capsys.readouterr().err.startswith("error: no trace files match")


def test_damage_on_the_way_leaves_no_half_dataset(path, tmp_path, capsys):
    """The picture of the last step is broken, when everything before it is written."""
    with h5py.File(path, "r+", locking=False) as file:
        frames = file["frames/image"]
        frames["data"][frames["offset"][-1] + 8 :] = 0
    for name, out in (("robomimic", "a.hdf5"), ("lerobot", "a")):
        args = ["export", str(path), "--to", name, "-o", str(tmp_path / out)]
        assert cli.run(args) == 2
        assert "a picture cannot be read" in capsys.readouterr().err
        assert [p.name for p in tmp_path.iterdir()] == ["traces"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_export_leaves_no_half_dataset(tmp_path, how):
    """Interrupted while it writes; only after kill -9 is there a rest, under another name."""
    out = tmp_path / "out.hdf5"
    many = tmp_path / "traces" / "many.h5"
    write(many, range(400))  # takes seconds to export, also while nobody looks
    args = [VLA_TRACE, "export", many, "--to", "robomimic", "-o", out]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job in the background is deaf
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(args, preexec_fn=heard, **pipes) as process:
        while not list(tmp_path.glob("out.hdf5.exporting-*/out.hdf5")) and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(how)
        said = process.communicate()[1].decode()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGKILL: -9}[how], said
    assert not out.exists()
    assert bool(list(tmp_path.glob("out.hdf5.exporting-*"))) == (how == signal.SIGKILL)

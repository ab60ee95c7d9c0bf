"""`vla-trace video` as typed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest

from tui import cli

RECORDED = Path(__file__).parent / "recorded" / "traces"


@pytest.fixture
def path(tmp_path):
    return Path(shutil.copy(RECORDED / "lift_cube-baseline-demo-run.h5", tmp_path / "a.h5"))


def test_an_episode_is_played_again(path, tmp_path, capsys):
    assert cli.run(["video", str(path), "--episode", "1"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}/a-e001.mp4\n"
    count, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "a-e001.mp4"))
    assert err == f"{count} pictures at 20 Hz, played again, seen by agentview\n"
    assert seconds == pytest.approx(count / 20)
    assert cli.run(["video", str(path), "--episode", "1"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/a-e001-2.mp4\n"


def test_the_wrist_as_gif(path, tmp_path, capsys):
    out = tmp_path / "x.gif"
    args = ["video", str(path), "--episode", "0", "--camera", "wrist", "--out", str(out), "--json"]
    assert cli.run(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["video"], found["hz"], found["episode"]) == (str(out), 20.0, 0)
    assert found["source"] == "played again, seen by wrist"
    assert len(iio.imread(out)) == found["frames"]


@pytest.fixture
def with_pictures(tmp_path):
    """A trace that stores three pictures of one episode: red, green, blue."""
    import runpy

    from traces.writer import TraceWriter

    build = runpy.run_path(str(Path(__file__).parents[1] / "traces" / "conftest.py"))
    colours = np.repeat(np.eye(3, dtype=np.uint8)[:, None, None] * 255, 64, axis=1)
    colours = np.repeat(colours, 64, axis=2)  # (3, 64, 64, 3)
    pictures = [iio.imwrite("<bytes>", colour, extension=".png") for colour in colours]
    record = replace(build["make_record"](0, n_steps=6), frames={"image": ([0, 2, 4], pictures)})
    record.objects = record.sim_state = None
    with TraceWriter(
        tmp_path / "b.h5", build["make_header"](), build["SITES"], cameras=("image",)
    ) as writer:
        writer.write_policy(0, 0)
        writer.write_episode(record)
    return tmp_path / "b.h5"


def test_stored_pictures_come_first(with_pictures, tmp_path, capsys):
    out = tmp_path / "x.gif"
    assert cli.run(["video", str(with_pictures), "--episode", "0", "--out", str(out)]) == 0
    assert capsys.readouterr().err == "3 pictures at 10 Hz, stored pictures of image\n"
    frames = iio.imread(out)
    assert frames.shape == (3, 64, 64, 3)
    assert frames[:, 32, 32].argmax(axis=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--episode", "4"], "--episode 4: "),
        (["--episode", "-1"], "has episodes 0 to 3"),
        (["--episode", "0", "--camera", "roof"], "unknown camera 'roof'"),
        (["--episode", "0", "--out", "x.avi"], "must end in .mp4 or .gif"),
        (["--episode", "0", "--out", "a.h5"], "must end in .mp4 or .gif"),
        ([], "Missing option '--episode'"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(args, said, path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["video", str(path), *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]

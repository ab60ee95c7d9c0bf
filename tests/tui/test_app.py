"""`vla-tui` as a command, and what it costs to start."""

import importlib.util
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tui import app, wording
from tui.data.library import Library

_path = Path(__file__).parent / "golden" / "scenes.py"
_spec = importlib.util.spec_from_file_location("tui_scenes", _path)
scenes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scenes)

COMMAND = [sys.executable, "-P", "-c", "import tui.app; tui.app.main()"]


def refused(capsys, *args):
    assert app.run(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_a_missing_folder_is_one_line(capsys, tmp_path):
    (tmp_path / "runs").mkdir()
    assert "did you mean runs?" in refused(capsys, str(tmp_path / "rums"))


def test_a_file_is_no_folder(capsys, tmp_path):
    path = tmp_path / "a\x1b[2J.h5"
    path.write_bytes(b"")
    err = refused(capsys, str(path))
    assert "vla-trace show" in err
    assert "\x1b" not in err


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_dumb_terminal_gets_the_status(capsys, tmp_path, monkeypatch, term):
    monkeypatch.setenv("TERM", term)
    scenes.training(tmp_path)
    assert app.run([str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert err == f"vla-tui cannot draw on TERM={term!r}; this is vla-trace status\n"
    assert out.startswith("smolvla-goal-07: crashed?, update 15 of 60")
    assert "WARN update 14: grad_norm 12.5" in out


def test_a_pipe_gets_the_status(tmp_path):
    done = subprocess.run(
        [*COMMAND, str(tmp_path)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"TERM": "xterm-256color"},
    )
    assert done.returncode == 0
    assert done.stdout.startswith("no runs here; vla-trace train and vla-trace record make some")
    assert done.stderr == (
        "vla-tui needs a terminal (its input, output or errors are redirected); "
        "this is vla-trace status\n"
    )


def test_import_brings_neither_engine_nor_heavy_packages():
    heavy = ("torch", "mujoco", "lerobot", "engine", "polars", "sklearn", "h5py", "numpy")
    code = f"import sys, tui.app; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_browsing_imports_neither_torch_nor_polars(tmp_path):
    scenes.recorded(tmp_path)
    code = f"""
import asyncio, sys, tui.app
async def go():
    app = tui.app.make_app({str(tmp_path)!r})
    async with app.run_test(size=(140, 40)) as pilot:
        for key in ("enter", "enter", "l", "4", "f", "5", "]", "1"):
            for _ in range(100):
                await pilot.pause(0.02)
                if app.loaded and all(w.is_finished for w in app.workers): break
            await pilot.press(key)
asyncio.run(go())
heavy = ("torch", "mujoco", "lerobot", "engine", "sklearn", "polars")
print([m for m in heavy if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_q_leaves_a_real_terminal(tmp_path):
    scenes.recorded(tmp_path)
    primary, secondary = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        [*COMMAND, str(tmp_path)],
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        env=environment,
        start_new_session=True,
    )
    os.close(secondary)
    seen, deadline, asked = b"", time.monotonic() + 60, False
    while time.monotonic() < deadline and process.poll() is None:
        if select.select([primary], [], [], 0.1)[0]:
            try:
                seen += os.read(primary, 65536)
            except OSError:
                break
        if b"finished" in seen and not asked:
            os.write(primary, b"q")
            asked = True
    assert process.wait(20) == 0
    os.close(primary)
    assert b"fast" in seen


# The library


def test_files_are_read_within_a_budget(tmp_path):
    for number in range(4):
        scenes.write_trace(
            tmp_path / f"{number}.h5", steered=False, numbers=[0], run_id=f"run {number}"
        )
    library = Library(tmp_path)
    counts = []
    for _ in range(6):
        counts.append((len(library.poll(scenes.NOW, budget_s=0)), library.pending))
    assert counts == [(1, 3), (2, 2), (3, 1), (4, 0), (4, 0), (4, 0)]


def test_a_partial_of_a_running_run_is_left_alone(tmp_path):
    log = scenes.Log(tmp_path, t=time.time() - 1)
    path = scenes.write_trace(tmp_path / "traces" / "a.h5", steered=False)
    path.rename(tmp_path / "traces" / "a.h5.partial")
    library = Library(tmp_path)
    (run,) = library.poll(time.time())
    assert run.files == ()
    log.emit("run_end", status="failed")
    (run,) = library.poll(time.time())
    assert [file.partial for file in run.files] == [True]
    assert run.done == 6


def test_a_run_folder_itself_can_be_watched(tmp_path):
    log = scenes.Log(tmp_path)
    (run,) = Library(log.path.parent).poll(scenes.NOW)
    assert run.run_id == scenes.RUN


def test_a_log_that_begins_again_is_read_again(tmp_path):
    log = scenes.recording(tmp_path)
    library = Library(tmp_path)
    assert library.poll(scenes.NOW)[0].done == 3
    log.path.unlink()
    scenes.Log(tmp_path, scenes.LIVE, t=scenes.NOW - 5).episode(0, False)
    assert library.poll(scenes.NOW)[0].done == 1


def test_files_come_and_go(tmp_path):
    library = Library(tmp_path)
    assert library.poll(scenes.NOW) == ()
    path = scenes.write_trace(tmp_path / "a.h5", steered=False)
    assert len(library.poll(scenes.NOW)) == 1
    path.unlink()
    assert library.poll(scenes.NOW) == ()
    (tmp_path / "events.jsonl").mkdir()
    library.poll(scenes.NOW)


def test_a_file_named_twice_is_one_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = scenes.Log(Path())
    path = scenes.write_trace(Path("traces/a.h5"), steered=False)
    log.emit("shard", path=str(path.resolve()), condition="baseline", episodes=6, bytes=1)
    library = Library(Path())
    for _ in range(2):
        (run,) = library.poll(scenes.NOW)
        assert [file.path for file in run.files] == [path]


@pytest.mark.parametrize("seconds", [-1e300, 1e300, float("nan")])
def test_broken_clocks_are_unknown(seconds):
    assert len(wording.age(seconds)) <= 2
    assert len(wording.date(seconds)) <= 20


def test_words():
    assert [wording.age(s) for s in (3.9, 61, 7200, 200_000)] == ["3s", "1m", "2h", "2d"]
    assert wording.condition_label("fast", 8.0) == "fast α=8"
    assert wording.condition_label("fast α=8", 8.0) == "fast α=8"
    assert wording.condition_label(None, None) == "baseline"
    labels = ["baseline", "fast α=2", "fast α=8", "slow α=1"]
    assert wording.joined_conditions(labels) == "fast α=2,8 + slow α=1 + baseline"
    assert wording.short_id("20261120-094447-record-1f9c") == "11-20 09:44 1f9c"
    assert wording.short_id("my-run") == "my-run"
    assert wording.interval((0.181, 0.5)) == "[.18, .50]"
    assert wording.number(None) == wording.number(float("nan")) == "–"
    assert wording.number(1.5, sign="+") == "+1.50"
    assert len(wording.number(-1e300)) <= 9
    assert [wording.p_value(p) for p in (None, 0.0312, 1e-5)] == ["", "p .0312", "p < .0001"]

"""The doctor: each check sees what is wrong, and says the fix."""

import json
import os
import re
import subprocess
import sys
from collections import namedtuple
from importlib import metadata

import pytest

from tui import cli
from tui.commands import doctor

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def healthy(monkeypatch):
    """All checks ok but for those a test replaces."""
    for name in ("rendering", "gpu", "terminal", "python"):
        check = doctor.Check(name, "ok", f"{name} is well")
        monkeypatch.setattr(doctor, f"check_{name}", lambda check=check: check)
    ok = doctor.Check("packages", "ok", "all")
    monkeypatch.setattr(doctor, "check_packages", lambda part: ok)
    monkeypatch.setattr(doctor, "check_disk", lambda folder: doctor.Check("disk", "ok", "much"))


def test_json_is_one_object_with_every_check(healthy, capsys):
    assert cli.run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == 1
    assert report["ok"] is True
    assert len(report["checks"]) == 7
    for check in report["checks"]:
        assert set(check) == {"name", "status", "detail", "fix"}


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_only_a_failure_fails(status, code, healthy, monkeypatch, capsys):
    check = doctor.Check("gpu", status, "odd \x1b[2J thing", None if status == "ok" else "mend it")
    monkeypatch.setattr(doctor, "check_gpu", lambda: check)
    assert cli.run(["doctor"]) == code
    out = capsys.readouterr().out
    assert re.search(rf"^{status} +gpu +odd \\x1b\[2J thing *$", out, re.MULTILINE)
    assert ("fix: mend it" in out) == (status != "ok")
    assert cli.run(["doctor", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["ok"] == (code == 0)


def test_this_machine_renders_or_names_a_package():
    """Whatever GL there is: a frame with its time, or the apt line that brings one."""
    if not installed("mujoco"):
        assert doctor.check_rendering().status == "warn"
        return
    check = doctor.check_rendering()
    if check.status == "ok":
        assert re.search(r"^(egl|osmesa) on .+, \d+\.\d ms a 64x64 frame$", check.detail)
    else:
        assert "apt-get install" in check.fix or "MUJOCO_GL" in check.fix


def installed(package):
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.fixture
def frame(monkeypatch):
    """Let the rendering process say what a test wants."""
    monkeypatch.setattr(doctor.metadata, "version", lambda package: "1")

    def install(code):
        monkeypatch.setattr(doctor, "RENDER", code)

    return install


def test_a_gl_library_that_aborts_is_reported(frame, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    frame("import os; os.abort()")
    check = doctor.check_rendering()
    assert check.status == "fail"
    assert "the test frame failed (exit -6)" in check.detail
    assert check.fix.startswith("unset MUJOCO_GL (it is 'egl')")


def test_a_blank_frame_is_a_failure(frame):
    said = {"backend": "egl", "device": "card", "ms": 1.0, "colours": 1}
    frame(f"print({json.dumps(json.dumps(said))})")
    check = doctor.check_rendering()
    assert (check.status, check.detail) == (
        "fail",
        "egl on card, 1.0 ms a 64x64 frame, but the frame is blank",
    )


def test_no_gl_library_names_the_package(frame):
    said = {"refused": "no GL library to render with; install one: apt-get install libosmesa6"}
    frame(f"print({json.dumps(json.dumps(said))})")
    check = doctor.check_rendering()
    assert (check.status, check.detail) == ("fail", "no GL library to render with")
    assert check.fix == "install one: apt-get install libosmesa6"


def test_a_renderer_that_hangs_is_given_up(frame, monkeypatch):
    monkeypatch.setattr(doctor, "RENDER_TIMEOUT_S", 0.2)
    frame("import time; time.sleep(60)")
    assert doctor.check_rendering().status == "fail"


def test_light_install_is_a_warning_with_the_install_line(monkeypatch):
    def version(package):
        if package in ("torch", "mujoco", "lerobot"):
            raise metadata.PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(doctor.metadata, "version", version)
    engine = doctor.check_packages("engine")
    assert engine.status == "warn"
    assert "missing: lerobot, mujoco, torch" in engine.detail
    assert engine.fix == "pip install 'vla-trace[engine]'"
    assert doctor.check_packages("base").status == "ok"
    assert doctor.check_rendering().status == "warn"


def test_a_missing_base_package_fails(monkeypatch):
    def version(package):
        if package == "polars":
            raise metadata.PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(doctor.metadata, "version", version)
    check = doctor.check_packages("base")
    assert (check.status, check.detail) == ("fail", "missing: polars")


def test_base_packages_are_those_of_the_metadata():
    detail = doctor.check_packages("base").detail
    for package in ("click", "h5py", "numpy", "polars", "rich", "scikit-learn", "textual"):
        assert f"{package} {metadata.version(package)}" in detail
    assert "torch" not in detail


@pytest.mark.parametrize(("free", "status"), [(50e9, "ok"), (2e9, "warn"), (1e8, "fail")])
def test_disk(free, status, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: Usage(1e12, 0, free))
    check = doctor.check_disk(tmp_path)
    assert check.status == status
    assert f"{free / 1e9:.1f} GB free" in check.detail


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.os, "access", lambda folder, mode: False)
    check = doctor.check_disk(tmp_path)
    assert (check.status, check.fix) == ("warn", "record with --out FOLDER")


@pytest.mark.parametrize(
    ("size", "term", "status", "said"),
    [
        (None, "", "ok", "not a terminal (piped)"),
        ((100, 30), "xterm-256color", "ok", "256 colours, 100x30"),
        ((79, 30), "xterm-256color", "warn", "79x30"),
        ((100, 30), "dumb", "warn", "TERM=dumb"),
    ],
)
def test_terminal(size, term, status, said, monkeypatch):
    def terminal_size(descriptor):
        if size is None:
            raise OSError
        return os.terminal_size(size)

    monkeypatch.setattr(doctor.os, "get_terminal_size", terminal_size)
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("COLORTERM", raising=False)
    check = doctor.check_terminal()
    assert check.status == status
    assert said in check.detail


def test_without_nvidia_smi_there_is_a_cpu(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda program: None)
    check = doctor.check_gpu()
    assert (check.status, check.detail) == ("ok", "none found (no nvidia-smi): CPU only")


@pytest.mark.parametrize(
    ("script", "status", "detail"),
    [
        ("echo 'H200,  143771 MiB, 570.1'", "ok", "H200, 143771 MiB, 570.1"),
        ("echo 'driver mismatch'; exit 9", "warn", "nvidia-smi: driver mismatch"),
        ("exit 0", "warn", "nvidia-smi: no GPU listed"),
    ],
)
def test_what_nvidia_smi_says(script, status, detail, tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: str(program))
    check = doctor.check_gpu()
    assert (check.status, check.detail) == (status, detail)


def test_doctor_needs_no_engine_package():
    """It must run where torch, mujoco and lerobot are absent."""
    code = (
        "import sys, tui.commands.doctor\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'mujoco', 'lerobot', 'engine')))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code]).returncode == 0

"""`vla-trace doctor`: can this machine record, analyse and show? Each line with its fix."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import click

from tui.terminal import Exit, one_line, to_json

ENGINE_INSTALL = "pip install 'vla-trace[engine]'"
LOW_DISK_GB, NO_DISK_GB = 5.0, 0.5
SMALLEST_TERMINAL = (80, 24)
RENDER_TIMEOUT_S = 120

RENDER = """
import json, time
from engine.gl import choose_backend
from traces.errors import UserError

try:
    backend = choose_backend()
except UserError as error:
    print(json.dumps({"refused": str(error)}))
    raise SystemExit

import mujoco

model = mujoco.MjModel.from_xml_string('''
<mujoco>
  <visual><quality shadowsize="0" offsamples="0"/></visual>
  <worldbody>
    <light pos="0 0 3"/>
    <geom type="box" size=".3 .3 .3" rgba="1 0 0 1"/>
  </worldbody>
</mujoco>''')
frame_data = mujoco.MjData(model)
mujoco.mj_forward(model, frame_data)
renderer = mujoco.Renderer(model, height=64, width=64)
times_ms = []
for _ in range(10):
    start = time.perf_counter()
    renderer.update_scene(frame_data)
    frame = renderer.render()
    times_ms.append(1000 * (time.perf_counter() - start))
from OpenGL import GL

print(json.dumps({
    "backend": backend,
    "device": GL.glGetString(GL.GL_RENDERER).decode(),
    "ms": sorted(times_ms)[5],
    "colours": len({tuple(pixel) for pixel in frame.reshape(-1, 3).tolist()}),
}))
"""
"""Runs in a process of its own: a broken GL library may abort instead of raising."""


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    fix: str | None = None


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> Exit:
    """Check this machine: Python, packages, rendering, disk, terminal, GPU.

    Every line is ok, warn or fail, and says how to mend what is not ok. Exit code 1 if one fails.
    """
    checks = []
    for check in _checks():
        checks.append(check)
        if not as_json:
            _print(check)
    failed = any(check.status == "fail" for check in checks)
    if as_json:
        click.echo(to_json({"schema": 1, "ok": not failed, "checks": [asdict(c) for c in checks]}))
    return Exit.FAILURE if failed else Exit.OK


def _checks() -> Iterator[Check]:
    yield check_python()
    yield check_packages("base")
    yield check_packages("engine")
    yield check_rendering()
    yield check_disk(Path.cwd())
    yield check_terminal()
    yield check_gpu()


def check_python() -> Check:
    """This interpreter against the one the project is built for."""
    detail = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] != (3, 12):
        return Check("python", "fail", detail, "install Python 3.12 and vla-trace into it")
    return Check("python", "ok", detail)


def check_packages(part: Literal["base", "engine"]) -> Check:
    """What vla-trace's own metadata asks for, and the versions that are there."""
    name = f"packages ({part})"
    try:
        requirements = metadata.requires("vla-trace") or []
    except metadata.PackageNotFoundError:
        return Check(name, "fail", "vla-trace is not installed here", "pip install vla-trace")
    found, missing = [], []
    for requirement in requirements:
        extra = re.search(r"extra == ['\"]([\w-]+)", requirement)
        if (extra.group(1) if extra else "base") != part:
            continue
        package = re.match(r"[\w.-]+", requirement).group()
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            missing.append(package)
    if not missing:
        return Check(name, "ok", ", ".join(found))
    detail = f"missing: {', '.join(missing)}"
    if part == "base":
        return Check(name, "fail", detail, "pip install --force-reinstall vla-trace")
    return Check(name, "warn", f"{detail} (needed to record and train)", ENGINE_INSTALL)


def check_rendering() -> Check:
    """Render a red box in a process of its own and look at the picture."""
    name = "rendering"
    try:
        metadata.version("mujoco")
    except metadata.PackageNotFoundError:
        return Check(name, "warn", "not tried: mujoco is not installed", ENGINE_INSTALL)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", RENDER],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=RENDER_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return Check(name, "fail", f"no frame in {RENDER_TIMEOUT_S} s", _other_backend())
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        said = (done.stderr.strip() or "nothing was said").splitlines()[-1]
        detail = f"the test frame failed (exit {done.returncode}): {said}"
        return Check(name, "fail", detail, _other_backend())
    frame = json.loads(lines[-1])
    if "refused" in frame:
        fact, _, fix = frame["refused"].partition(";")
        return Check(name, "fail", fact, fix.strip() or "apt-get install libosmesa6")
    detail = f"{frame['backend']} on {frame['device']}, {frame['ms']:.1f} ms a 64x64 frame"
    if frame["colours"] < 2:
        return Check(name, "fail", f"{detail}, but the frame is blank", _other_backend())
    return Check(name, "ok", detail)


def _other_backend() -> str:
    chosen = os.environ.get("MUJOCO_GL")
    if chosen:
        return f"unset MUJOCO_GL (it is {chosen!r}), or try the other of osmesa and egl"
    return "apt-get install libosmesa6, then export MUJOCO_GL=osmesa"


def check_disk(folder: Path) -> Check:
    """Free space where recordings would land, and whether they may."""
    free_gb = shutil.disk_usage(folder).free / 1e9
    detail = f"{free_gb:.1f} GB free in {folder}"
    if not os.access(folder, os.W_OK):
        return Check("disk", "warn", f"{folder} is not writable", "record with --out FOLDER")
    if free_gb < NO_DISK_GB:
        return Check("disk", "fail", detail, "free some space, or record with --out FOLDER")
    if free_gb < LOW_DISK_GB:
        return Check("disk", "warn", detail, "a long run may fill it; record with --out FOLDER")
    return Check("disk", "ok", detail)


def check_terminal() -> Check:
    """Size, colours and encoding, as `vla-tui` will find them."""
    term = os.environ.get("TERM", "")
    encoding = (sys.stdout.encoding or "ascii").lower()
    truecolour = os.environ.get("COLORTERM", "") in ("truecolor", "24bit")
    if truecolour:
        colours = "16 million colours"
    else:
        colours = "256 colours" if "256" in term or "direct" in term else "16 colours"
    size = _terminal_size()
    shape = f"{size[0]}x{size[1]}" if size else "not a terminal (piped)"
    detail = f"TERM={term or 'unset'}, {colours}, {shape}, {encoding}"
    if size and term in ("", "dumb", "unknown"):
        return Check("terminal", "warn", detail, "export TERM=xterm-256color")
    if "utf" not in encoding:
        return Check("terminal", "warn", detail, "export LANG=C.UTF-8")
    if size and (size[0] < SMALLEST_TERMINAL[0] or size[1] < SMALLEST_TERMINAL[1]):
        return Check("terminal", "warn", detail, "vla-tui wants 80x24 or more")
    return Check("terminal", "ok", detail)


def _terminal_size() -> tuple[int, int] | None:
    for descriptor in (1, 2, 0):
        try:
            size = os.get_terminal_size(descriptor)
        except OSError:
            continue
        return size.columns, size.lines
    return None


def check_gpu() -> Check:
    """What nvidia-smi says; a machine without it works, on its CPU."""
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    program = shutil.which("nvidia-smi")
    if program is None:
        return Check("gpu", "ok", "none found (no nvidia-smi): CPU only")
    fix = "see what `nvidia-smi` prints; policies run on the CPU until it works"
    try:
        done = subprocess.run(
            [program, *query], capture_output=True, text=True, errors="replace", timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("gpu", "warn", f"nvidia-smi did not answer: {error}", fix)
    cards = [" ".join(line.split()) for line in done.stdout.splitlines() if line.strip()]
    if done.returncode != 0 or not cards:
        said = one_line(done.stdout or done.stderr or "no GPU listed")
        return Check("gpu", "warn", f"nvidia-smi: {said}", fix)
    return Check("gpu", "ok", "; ".join(cards))


def _print(check: Check) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colour = {"ok": "green", "warn": "yellow", "fail": "bold red"}[check.status]
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=4)
    grid.add_column(width=17)
    grid.add_column(overflow="fold")
    grid.add_row(Text(check.status, colour), check.name, Text(one_line(check.detail)))
    if check.fix:
        grid.add_row("", "", Text(f"fix: {one_line(check.fix)}"))
    Console().print(grid)

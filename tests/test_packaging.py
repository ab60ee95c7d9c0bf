"""The wheel, installed alone in a clean environment: it analyses and shows traces without torch."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = ["traces", "engine", "analysis", "tui", "tests", "docs"]
LEFTOVERS = shutil.ignore_patterns("__pycache__", "*.h5", "*.h5.partial", "*.mp4", "*.gif")
UV = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Wheel and sdist of a copy of this checkout that has recordings beside the package."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in SHIPPED:
        shutil.copytree(ROOT / name, copy / name, ignore=LEFTOVERS)
    for file in ROOT.glob("*"):
        if file.is_file():
            shutil.copy(file, copy)
    shutil.copy(ROOT / ".gitignore", copy)
    for name in ("run.h5", "run.h5.partial", "run.mp4", "run.gif"):
        (copy / "traces" / name).write_bytes(b"a recording")
    run(UV, "build", "--quiet", "--python", sys.executable, "--out-dir", copy / "dist", copy)
    return copy / "dist"


@pytest.fixture(scope="module")
def light(dist, tmp_path_factory):
    """A new environment that holds the wheel and its base dependencies only."""
    home = tmp_path_factory.mktemp("light")
    run(UV, "venv", "--quiet", "--python", sys.executable, home / "venv")
    python = home / "venv" / "bin" / "python"
    (wheel,) = dist.glob("*.whl")
    run(UV, "pip", "install", "--quiet", "--python", python, wheel)
    return home / "venv" / "bin"


def test_wheel_holds_the_rooms_and_no_recording(dist):
    (wheel,) = dist.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "engine/envs/tabletop.xml",
        "engine/policies/smolvla_tabletop/model.safetensors",
        "engine/policies/smolvla_tabletop/vlm/tokenizer.json",
        "tui/vla.tcss",
        "traces/schema.py",
    ):
        assert needed in names
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {
        "traces",
        "engine",
        "analysis",
        "tui",
    }
    assert not [name for name in names if name.startswith("traces/run.")]
    metadata = next(name for name in names if name.endswith("METADATA"))
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    for extra in ("engine", "libero", "ray", "sae", "rerun"):
        assert f"Provides-Extra: {extra}\n" in text
    base = [x for x in text.splitlines() if x.startswith("Requires-Dist") and "extra ==" not in x]
    assert not [line for line in base if "torch" in line or "mujoco" in line]


def test_sdist_holds_no_recording(dist):
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert any(name.endswith("/traces/schema.py") for name in names)
    assert any(name.endswith("/LICENSE") for name in names)
    assert not [name for name in names if "/traces/run." in name]


def test_light_install_has_no_torch(light):
    code = "import importlib.util as u; print(u.find_spec('torch'), u.find_spec('mujoco'))"
    assert run(light / "python", "-P", "-c", code).split() == ["None", "None"]


def test_light_install_analyses_and_shows(light, paired):
    report = run(light / "vla-trace", "analyze", *paired, "--json")
    assert '"conditions"' in report
    assert "intervention" in run(light / "vla-trace", "show", paired[0])


def test_light_install_opens_the_screens(light, paired):
    code = f"""
import asyncio
from pathlib import Path
from tui.app import make_app
async def main():
    app = make_app(Path({str(paired[0].parent)!r}))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(1.0)
        print("shown" if app.screen.query("*") else "blank")
asyncio.run(main())
"""
    assert run(light / "python", "-P", "-c", code).strip() == "shown"


def test_light_install_names_the_extra_it_lacks(light, tmp_path):
    done = subprocess.run(
        [str(light / "vla-trace"), "record"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'vla-trace[engine]'" in done.stderr

"""The import rules: statically (import-linter) and as they happen (sys.modules of a process)."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGINE = {"torch", "lerobot", "mujoco", "transformers", "engine"}


def loaded_by(code):
    """Top-level modules that a new interpreter has imported after running the code."""
    listing = "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code + listing], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_contracts_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import traces.reader, traces.catalog, traces.events", {"polars", "textual", "rich"}),
        ("import analysis.outcome, analysis.neurons", {"textual", "sklearn", "scipy", "rich"}),
        ("import tui.app", {"polars", "sklearn", "scipy"}),
        ("import tui.cli", {"numpy", "h5py", "textual", "polars", "sklearn", "rich"}),
        ("import tui.status, tui.data.one_run", {"numpy", "h5py", "polars", "textual"}),
        ("import tui.commands.record", {"numpy", "h5py", "textual", "polars", "sklearn"}),
    ],
)
def test_heavy_packages_come_late(code, absent):
    assert not loaded_by(code) & (absent | ENGINE)


def test_no_room_is_shadowed_by_another_distribution():
    """Flat names such as `traces` exist elsewhere too; here they must be ours."""
    from importlib.metadata import packages_distributions

    owners = packages_distributions()
    for room in ("traces", "engine", "analysis", "tui"):
        assert set(owners.get(room, ["vla-trace"])) <= {"vla-trace"}

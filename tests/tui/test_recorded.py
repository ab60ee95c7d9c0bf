"""The screens over a run that the shipped policy recorded (tests/tui/recorded, `make recorded`)."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from tui.app import make_app

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("tui_driver", HERE / "golden" / "driver.py")
driver = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(driver)

SIZES = {"80x24": driver.SMALL, "140x40": driver.LARGE}


@pytest.fixture
def app(tmp_path, monkeypatch):
    """A folder as the recording left it, an hour later."""
    shutil.copytree(HERE / "recorded", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    last = Path("runs/demo-run/events.jsonl").read_text().splitlines()[-1]
    ended = json.loads(last)["t"]
    return make_app(Path(), clock=lambda: ended + 3600)


@pytest.mark.parametrize("size", SIZES)
def test_a_real_run_looks_as_it_did(app, size):
    async def steps(pilot):
        driver.check(pilot.app, f"real-runs-{size}")
        await driver.press(pilot, "enter")
        driver.check(pilot.app, f"real-rollouts-{size}")
        await driver.press(pilot, "enter", *"lllllll")
        driver.check(pilot.app, f"real-episode-{size}")

    driver.drive(app, steps, SIZES[size])


def test_the_run_was_made_by_the_shipped_weights():
    """New weights need a new recording, or the dumps show a policy that is gone."""
    from engine.policies.smolvla import EMBEDDED, load_policy
    from traces.reader import TraceReader

    for path in (HERE / "recorded" / "traces").glob("*.h5"):
        with TraceReader(path) as trace:
            assert trace.policies()["sha256"].tolist() == [load_policy(EMBEDDED).sha256]

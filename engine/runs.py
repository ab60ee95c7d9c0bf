"""A run: its folder `runs/<id>/`, what was asked for, how far it got, and how Ctrl-C ends it.

`config.yaml` holds the configuration, `conditions.json` the arms of the experiment and
`events.jsonl` what happened. The three are enough to go on with a run that was stopped.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from engine.config import RecordConfig
from traces.condition import Condition
from traces.errors import FileExists, UnwritableFolder, UserError
from traces.events import read_events
from traces.intervention import Intervention

RUNS = Path("runs")

Listener = Callable[[str, dict], None]  # event type and fields, as written to events.jsonl


@dataclass(frozen=True)
class Stopped:
    """A run that can go on."""

    config: RecordConfig
    conditions: list[Condition]
    finished: dict[str, list[Path]]
    """Labels of the conditions that are complete, and their files."""
    policy_sha256: str


def new_run_folder(run_id: str) -> Path:
    """Make `runs/<id>`.

    Raises:
        FileExists: there is a run of that name.
        UnwritableFolder: it cannot be made.
    """
    folder = RUNS / run_id
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise FileExists(folder) from error
    except OSError as error:
        raise UnwritableFolder(folder, os.strerror(error.errno or 0).lower()) from error
    return folder


def new_run(run_id: str, config: RecordConfig, conditions: Sequence[Condition]) -> Path:
    """Make the folder of a run of conditions.

    Raises:
        FileExists: there is a run of that name.
        UnwritableFolder: it cannot be made.
        UserError: two conditions have the same label, so that nothing could tell them apart.
    """
    labels = [condition.label for condition in conditions]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise UserError(f"two conditions are called {min(twice)!r}; give them different names")
    folder = new_run_folder(run_id)
    (folder / "config.yaml").write_text(yaml.safe_dump(asdict(config), sort_keys=False))
    arms = [
        {
            "prompt": c.prompt,
            "intervention": c.intervention and json.loads(c.intervention.to_json()),
        }
        for c in conditions
    ]
    (folder / "conditions.json").write_text(json.dumps(arms, indent=1) + "\n")
    return folder


def stopped_run(run_id: str) -> Stopped:
    """Read how far a run got.

    Raises:
        UserError: there is no such run, or it is not one of conditions.
    """
    folder = RUNS / run_id
    try:
        config = RecordConfig.from_dict(yaml.safe_load((folder / "config.yaml").read_text()))
        arms = json.loads((folder / "conditions.json").read_text())
        conditions = [_condition(arm) for arm in arms]
    except FileNotFoundError as error:
        there = sorted(p.parent.name for p in RUNS.glob("*/conditions.json"))
        raise UserError(
            f"no run {run_id!r} to go on with ({error.filename} is missing); "
            f"runs there are: {', '.join(there[-5:]) or 'none'}"
        ) from error
    except (TypeError, KeyError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"run {run_id!r} is damaged and cannot go on: {error}") from error
    events = read_events(folder / "events.jsonl")
    done = [event for event in events if event["type"] == "condition"]
    sha256 = next((e.get("policy_sha256", "") for e in events if e["type"] == "run_start"), "")
    finished = {
        event["name"]: [Path(file) for file in event["files"]]
        for event in done
        if all(Path(file).exists() for file in event["files"])
    }
    return Stopped(config, conditions, finished, sha256)


def _arm(condition: Condition) -> dict:
    steered = condition.intervention
    return {"prompt": condition.prompt, "intervention": steered and json.loads(steered.to_json())}


def _condition(arm: dict) -> Condition:
    steered = arm["intervention"]
    return Condition(steered and Intervention.from_json(json.dumps(steered)), arm["prompt"])


@contextmanager
def interruptible(
    listen: Listener, what: str = "the present episodes"
) -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C was pressed; a second press raises at once."""
    pressed = []

    def handler(signum: int, frame: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(signum)
        text = f"stopping after {what}; Ctrl-C again stops at once"
        listen("alert", {"level": "warning", "text": text})

    try:
        before = signal.signal(signal.SIGINT, handler)
    except ValueError:  # not the main thread: Ctrl-C is somebody else's
        yield lambda: False
        return
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)

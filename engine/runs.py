"""The folder of a run, `runs/<id>/`: what was asked for, and how far it got.

`config.yaml` holds the configuration, `conditions.json` the arms of the experiment and
`events.jsonl` what happened. The three are enough to go on with a run that was stopped.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from engine.config import RecordConfig
from traces.condition import Condition
from traces.errors import FileExists, UnwritableFolder, UserError
from traces.events import read_events
from traces.intervention import Intervention

RUNS = Path("runs")


@dataclass(frozen=True)
class Stopped:
    """A run that can go on."""

    config: RecordConfig
    conditions: list[Condition]
    finished: dict[str, list[Path]]
    """Labels of the conditions that are complete, and their files."""
    policy_sha256: str


def new_run(run_id: str, config: RecordConfig, conditions: Sequence[Condition]) -> Path:
    """Make the folder of a run.

    Raises:
        FileExists: there is a run of that name.
        UnwritableFolder: it cannot be made.
        UserError: two conditions have the same label, so that nothing could tell them apart.
    """
    labels = [condition.label for condition in conditions]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise UserError(f"two conditions are called {min(twice)!r}; give them different names")
    folder = RUNS / run_id
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise FileExists(folder) from error
    except OSError as error:
        raise UnwritableFolder(folder, os.strerror(error.errno or 0).lower()) from error
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

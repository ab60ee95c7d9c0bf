"""The metrics of a run, repeated to the trackers that people already have; the same names.

events.jsonl stays the record. A tracker sees the metrics of every update and evaluation; a resumed
run goes on under its own name.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from traces.errors import UserError

PROJECT = "vla-trace"

Log = Callable[[dict[str, float], int], None]


def check_installed(names: Sequence[str]) -> None:
    """Raise UserError where a tracker is not installed, before anything else is done."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(f"--mirror {name}: {name} is not installed; pip install {name}")


def open_mirrors(names: Sequence[str], folder: Path, config: dict, until: ExitStack) -> list[Log]:
    """Return what takes (metrics, update), one for each tracker; `until` closes them.

    Args:
        names: some of `config.MIRRORS`.
        folder: the run's; its name is the run's name.
        config: settings, shown by trackers that show such.
        until: lives as long as the run.
    """
    opened = {"tensorboard": _tensorboard, "wandb": _tracker, "trackio": _tracker}
    return [opened[name](name, folder, config, until) for name in names]


def metrics_of(kind: str, fields: dict) -> dict[str, float]:
    """What trackers are shown of an event; other tasks than the trained one by their name."""
    if kind not in ("step", "eval"):
        return {}
    suffix = f"/{fields['task_name']}" if fields.get("forgetting") else ""
    return {f"{name}{suffix}": value for name, value in fields["metrics"].items()}


def _tensorboard(name: str, folder: Path, config: dict, until: ExitStack) -> Log:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / name))
    until.callback(writer.close)

    def log(metrics: dict[str, float], update: int) -> None:
        for metric, value in metrics.items():
            writer.add_scalar(metric, value, update)

    return log


def _tracker(name: str, folder: Path, config: dict, until: ExitStack) -> Log:
    """Wandb, and trackio, which has its interface."""
    tracker = import_module(name)
    told = {"project": PROJECT, "name": folder.name, "config": config}
    if name == "wandb":
        told |= {"id": folder.name, "resume": "allow", "dir": str(folder)}
    else:
        told |= {"resume": "allow"}
    with redirect_stdout(sys.stderr):  # they talk; stdout is data
        tracker.init(**told)

    def finish() -> None:
        with redirect_stdout(sys.stderr):
            tracker.finish()

    until.callback(finish)
    return lambda metrics, update: tracker.log(metrics, step=update)

"""A cluster chosen by hand, as an intervention that `vla-trace record --intervention` takes."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from traces.catalog import unused_path
from traces.errors import UnwritableFolder, UserError
from traces.intervention import Intervention
from tui.data.model import Run

ALPHA = 8.0
FOLDER = "interventions"
NAMED = "a name and a dose, such as: fast-by-hand 8"
ROOTS = ("runs", "traces")
"""Folders that `vla-trace record` makes where it is started."""
RUN_OPTIONS = {
    "task_id": ("--task", 0),
    "suite": ("--suite", "tabletop"),
    "replan": ("--replan", 1),
}
"""Key of a run's configuration to the option of `record` and its default."""
EMBEDDED = "smolvla-tabletop"


def named_dose(text: str, expected: str = NAMED) -> tuple[str, float]:
    """Read "NAME ALPHA", such as "quick wrist 8".

    Args:
        text: as typed.
        expected: what to ask for instead of anything else.

    Raises:
        UserError: there is no name, or the last word is no number.
    """
    *words, last = text.split() or [""]
    try:
        alpha = float(last)
    except ValueError:
        alpha = math.nan
    if not words or not math.isfinite(alpha):
        raise UserError(f"expected {expected}")
    return " ".join(words), alpha


def cluster(
    name: str, alpha: float, marks: Mapping[tuple[int, int], bool], sha256: str
) -> Intervention:
    """Return the overwrite of all accepted neurons.

    Args:
        name: what to call it.
        alpha: dose, as of `vla-trace cluster`.
        marks: neuron to whether it was accepted (else rejected), in the order of choosing.
        sha256: of the weights that the neurons belong to.

    Raises:
        UserError: none was accepted.
    """
    from analysis.clusters import place_named, sites_of

    accepted = [place for place, kept in marks.items() if kept]
    if not accepted:
        raise UserError("no neuron is accepted yet: a accepts the one under the cursor")
    rejected = [place_named(place) for place, kept in marks.items() if not kept]
    return Intervention(
        name=name,
        operator="overwrite",
        sites=sites_of(accepted),
        coefficient=alpha,
        provenance={
            "concept": "",
            "source": "by hand",
            "method": "accepted one by one in vla-tui",
            "checkpoint_sha256": sha256,
            "layer": accepted[0][0],
            "seed_neuron": accepted[0][1],
            "size": len(accepted),
            "neurons": [place_named(place) for place in accepted],
            **({"rejected": rejected} if rejected else {}),
        },
    )


def save(intervention: Intervention, home: Path) -> Path:
    """Write an intervention into a file of its own; nothing that exists is overwritten.

    Raises:
        UnwritableFolder: there is no room or no permission.
    """
    folder = home / FOLDER
    stem = "-".join(re.findall(r"[\w.+-]+", intervention.name, re.ASCII)).lstrip(".-")
    stem = f"{stem[:48] or 'cluster'}-a{intervention.coefficient:g}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = unused_path(folder, stem, ".json")
        with path.open("x", encoding="utf-8") as file:
            file.write(intervention.to_json() + "\n")
    except OSError as error:
        raise UnwritableFolder(folder, error.strerror or str(error)) from None
    return path


def home_of(folder: Path) -> Path:
    """Return where `vla-trace` has to be started so that this folder shows what it makes.

    A folder that holds traces itself gets no runs/ and traces/ in it: they would be shown instead.
    """
    if any((folder / name).is_dir() for name in ROOTS):
        return folder
    inside = folder.resolve().name in ROOTS or any(folder.glob("*.h5"))
    return folder.resolve().parent if inside else folder


def record_command(path: Path, folder: Path, policy: str, run: Run | None) -> str:
    """Return the command that records an intervention the way a run was recorded.

    Args:
        path: the intervention.
        folder: the one that is looked at.
        policy: name or folder of the weights.
        run: the run it was opened from, if any.
    """
    home = home_of(folder)
    where = path.relative_to(home) if path.is_relative_to(home) else path
    words = ["vla-trace", "record", "--intervention", str(where)]
    if policy and policy != EMBEDDED:
        words += ["--policy", policy]
    for key, (option, usual) in RUN_OPTIONS.items() if run else ():
        value = run.config.get(key, usual)
        if isinstance(value, int | str) and value != usual:
            words += [option, str(value)]
    if home != folder and folder.resolve().name not in ROOTS:
        words += ["--out", folder.resolve().name]
    return shlex.join([*words, "--episodes", "20"])

"""Which arms of an experiment a policy still lacks, and the command that records each.

What the base policy was recorded with (as it is, steered, random and null clusters), another policy
must be recorded with, too: the same scenes, the same noise, the very same neurons. Clusters drawn
anew from the other policy's weights would be others, so each is written to a file of its own.
"""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from analysis.base_policy import base_policy
from analysis.tables import read_episodes
from traces.collection import open_traces
from traces.condition import UNCHANGED
from traces.errors import UserError
from traces.header import TraceHeader
from traces.intervention import Intervention


@dataclass(frozen=True)
class Lacking:
    """An arm that one policy was recorded in and another was not."""

    label: str
    intervention: Intervention | None
    """None: the policy as it is."""
    options: tuple[str, ...]
    """Of `vla-trace record`, without the intervention."""

    def file(self, folder: Path) -> Path:
        """Where its intervention goes."""
        return folder / (re.sub(r"[^\w.-]+", "-", self.label.replace("α=", "a")) + ".json")

    def command(self, folder: Path) -> str:
        """The line that records it."""
        words = ["vla-trace", "record", *self.options]
        if self.intervention is not None:
            words += ["--no-baseline", "--controls", "none"]
            words += ["--intervention", str(self.file(folder))]
        return shlex.join(words)


def lacking(paths: Iterable[Path | str], policy: str = "", base: str = "") -> list[Lacking]:
    """Return what the base was recorded in and `policy` was not, in the order of the files.

    Args:
        paths: traces of the base, and of the policy if there are any.
        policy: name or folder of the fine-tuned policy; without, the only other one in the traces.
        base: which policy is the base, see `base_policy.base_policy`.

    Raises:
        UserError: it is not said which policy, or the base was not steered.
    """
    paths = list(paths)
    frame = read_episodes(paths).frame.filter(
        pl.col("kind") == "record", pl.col("prompt") == UNCHANGED
    )
    base_id = base_policy(frame, base)
    known = frame.filter(pl.col("policy_id") != base_id)
    others = sorted(set(known["policy_path"]))
    if not policy and len(others) != 1:
        raise UserError(
            f"which is the fine-tuned policy? these traces have {', '.join(others) or 'none'}; "
            "name it: --policy CHECKPOINT"
        )
    if frame.filter(pl.col("policy_id") == base_id, pl.col("role") == "steered").is_empty():
        raise UserError(
            "the base was not steered in these files; record it: vla-trace record --steer fast"
        )
    policy = policy or others[0]
    done = set(
        known.filter(pl.col("policy_path") == policy)
        .select("suite", "task_id", "replan", "fingerprint")
        .rows()
    )
    found: dict[tuple, Lacking] = {}
    for header, (suite, task_id) in _recorded(paths, set(frame.filter(policy_id=base_id)["file"])):
        fingerprint = header.intervention.fingerprint() if header.intervention else ""
        key = (suite, task_id, header.n_action_steps, fingerprint)
        if key not in done:
            options = _options(header, policy, suite, task_id)
            arm = Lacking(header.condition.label, header.intervention, options)
            found.setdefault(key, arm)
    return list(found.values())


def _recorded(paths: list, files: set[str]) -> list[tuple[TraceHeader, tuple[str, int]]]:
    """Header, suite and task of the recordings that begin with one of some files."""
    found = []
    with open_traces(*paths) as traces:
        columns = traces.episodes("suite", "task_id")
        for recording in traces.recordings():
            rows = recording.episodes
            if str(recording.paths[0]) in files and rows.stop > rows.start:
                place = str(columns["suite"][rows.start]), int(columns["task_id"][rows.start])
                found.append((recording.header, place))
    return found


def _options(header: TraceHeader, policy: str, suite: str, task_id: int) -> tuple[str, ...]:
    config = header.config
    options = ["--policy", policy, "--suite", suite, "--task", str(task_id)]
    for name in ("episodes", "seed"):
        if name in config:
            options += [f"--{name}", str(config[name])]
    options += ["--replan", str(header.n_action_steps), "--steps", str(header.K)]
    if header.likelihood.get("noise_level") == 0:
        options.append("--deterministic")
    return tuple(options)

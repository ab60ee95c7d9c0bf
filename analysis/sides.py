"""The two sides of a comparison of activations, and which of their rows belong together.

A side is one policy under one condition. Two episodes are the same experiment when the policy was
given the same inputs and the same noise at every decision (`obs_hash`, `noise_key`), as `vla-trace
record --replay` does: then rows are compared with rows. Otherwise each policy went its own way, and
only distributions can be compared.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from traces.collection import TraceCollection
from traces.errors import UserError
from traces.header import SiteInfo


@dataclass(frozen=True)
class Side:
    """One policy under one condition."""

    traces: TraceCollection
    called: str
    """BASE or TUNED, for messages."""
    policy: str
    """Name and the first digits of the hash."""
    sha256: str
    condition: str
    """Label, such as "baseline"."""
    episodes: np.ndarray
    """Rows of episodes/ that count."""
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The policy, and its condition if that is not the baseline."""
        return self.policy if self.condition == "baseline" else f"{self.policy}, {self.condition}"


@dataclass(frozen=True)
class Pairs:
    """Episodes of both sides with the same inputs and noise, row by row."""

    base: np.ndarray
    """(P,) rows of episodes/."""
    tuned: np.ndarray
    notes: tuple[str, ...]


def side(traces: TraceCollection, called: str) -> Side:
    """Choose what counts of some traces: the unsteered episodes, if there are any.

    Raises:
        UserError: there are no episodes, or those of several policies or conditions.
    """
    recordings = traces.recordings()
    conditions = [recording.header.condition for recording in recordings]
    natural = [condition.role == "baseline" for condition in conditions]
    kept = natural if any(natural) else [True] * len(natural)
    notes = list(traces.notes)
    if dropped := len(kept) - sum(kept):
        notes.append(f"{called}: steered or otherwise told recordings left out: {dropped}")
    labels = sorted({c.label for c, keep in zip(conditions, kept, strict=True) if keep})
    if len(labels) > 1:
        raise UserError(
            f"{called} holds {len(labels)} conditions ({', '.join(labels[:4])}) and no baseline; "
            "give the traces of one"
        )
    columns = traces.episodes("policy_version", "error")
    chosen = np.array(kept, bool)[columns["recording"]]
    broken = chosen & (columns["error"] != "")
    if broken.any():
        notes.append(f"{called}: episodes cut short by an error left out: {broken.sum()}")
    episodes = np.flatnonzero(chosen & ~broken)
    if not len(episodes):
        raise UserError(f"{called} holds no episode; record some with: vla-trace record")
    policies = _policies(traces)
    found = {
        policies.get((int(columns["recording"][row]), int(columns["policy_version"][row])))
        for row in episodes
    }
    if len(found) > 1:
        names = sorted(name for name, _ in found - {None})
        raise UserError(
            f"{called} holds episodes of {len(found)} policies ({', '.join(names[:4])}); give the "
            "traces of one"
        )
    policy, sha256 = found.pop() or ("unknown policy", "")
    return Side(traces, called, policy, sha256, labels[0], episodes, tuple(notes))


def replayed(base: Side, tuned: Side) -> Pairs:
    """Find the episodes in which both were given the same; none if they were not."""
    ours, theirs = _inputs(base), _inputs(tuned)
    common = sorted(set(ours) & set(theirs), key=lambda key: ours[key])
    rows = np.array([[ours[key], theirs[key]] for key in common], int).reshape(-1, 2)
    notes = []
    if common:
        for one, known in ((base, ours), (tuned, theirs)):
            if left := len(one.episodes) - len(common):
                again = len(one.episodes) - len(known)
                also = f", {again} of them recorded again" if again else ""
                notes.append(f"{one.called}: episodes without the other's replay: {left}{also}")
    return Pairs(rows[:, 0], rows[:, 1], tuple(notes))


def common_sites(base: Side, tuned: Side, wanted: tuple[str, ...] = ()) -> list[SiteInfo]:
    """Return the sites that both have, those named or starting as `wanted` says.

    Raises:
        UserError: there are none, or they have other widths.
    """
    ours, theirs = ({s.name: s for s in one.traces.sites()} for one in (base, tuned))
    common = [site for name, site in ours.items() if name in theirs]
    if not common:
        raise UserError(
            f"no site was recorded on both sides; BASE has {_some(ours)}, TUNED has "
            f"{_some(theirs)}; record both with the same --capture"
        )
    for site in common:
        other = theirs[site.name]
        if site.shape != other.shape:
            raise UserError(
                f"{site.name} has the shape {_shape(site)} in BASE and {_shape(other)} in TUNED: "
                "these are not the same architecture, or not the same --capture"
            )
    chosen = [s for s in common if not wanted or any(_asked(s.name, w) for w in wanted)]
    if not chosen:
        names = ", ".join(wanted)
        raise UserError(
            f"no common site is called {names}; there are {_some(s.name for s in common)}"
        )
    return chosen


def decisions_of(traces: TraceCollection, rows: np.ndarray) -> list[slice]:
    """Return the rows of decisions/ of some episodes."""
    columns = traces.episodes("first_decision", "n_decisions")
    starts, sizes = columns["first_decision"][rows].tolist(), columns["n_decisions"][rows].tolist()
    return [slice(start, start + n) for start, n in zip(starts, sizes, strict=True)]


def _inputs(one: Side) -> dict[str, int]:
    """What each episode was given, as a hash, to its row; the first of equal ones."""
    found: dict[str, int] = {}
    for row in one.episodes.tolist():
        given = one.traces.decisions("obs_hash", "noise_key", episode=row)
        hashes = given["obs_hash"].tolist()
        if not hashes or not all(hashes):
            continue  # what was not noted cannot be the same
        text = "\n".join([*hashes, *given["noise_key"].tolist()])
        found.setdefault(hashlib.sha256(text.encode()).hexdigest(), row)
    return found


def _policies(traces: TraceCollection) -> dict[tuple[int, int], tuple[str, str]]:
    """(recording, policy_version) to name for people and hash."""
    place = {
        file: number for number, found in enumerate(traces.recordings()) for file in found.files
    }
    table = traces.table("policies", "policy_version", "sha256", "path")
    found = {}
    for file, version, sha256, path in zip(*table.values(), strict=True):
        name = str(path).rstrip("/").rsplit("/", 1)[-1] or "policy"
        label = f"{name}@{sha256[:8]}" if sha256 else name
        found[place[int(file)], int(version)] = label, str(sha256)
    # One set of weights is one policy, wherever it lay.
    known = {
        sha256: min(n for n, s in found.values() if s == sha256) for _, sha256 in found.values()
    }
    return {key: (known[sha256] if sha256 else n, sha256) for key, (n, sha256) in found.items()}


def _asked(name: str, wanted: str) -> bool:
    wanted = f"exp{wanted.removeprefix('expert')}" if wanted.startswith("expert") else wanted
    return name == wanted or name.startswith(wanted.rstrip(".") + ".")


def _shape(site: SiteInfo) -> str:
    return " x ".join(map(str, site.shape))


def _some(names: object) -> str:
    known = sorted(names)
    more = f" and {len(known) - 4} more" if len(known) > 4 else ""
    return ", ".join(known[:4]) + more if known else "none"

"""What the screens show as plain records: one flat dict a row, with units in the names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tui.data.model import Episode, Run
from tui.data.training import Training

if TYPE_CHECKING:
    from analysis.paired_tasks import Rate, TaskPairs
    from tui.data.features import Features
    from tui.data.inside import SiteTracks
    from tui.data.neurons import Neurons
    from tui.data.tracks import EpisodeTracks

Record = dict[str, object]


def run_record(run: Run) -> Record:
    """Return a run; success over all episodes that count, MEED by condition."""
    low, high = run.success_ci or (None, None)
    training = run.training
    meed = {f"meed_cm {name}": value for name, value in run.meed_by_condition().items()}
    return {
        "run": run.run_id,
        "state": run.state,
        "kind": run.kind,
        "suite": run.suite,
        "tasks": ", ".join(run.tasks),
        "policy": run.policy,
        "conditions": ", ".join(run.conditions),
        "episodes": run.done,
        "episodes_wanted": run.total,
        "updates": training.done if training else None,
        "updates_wanted": training.total if training else None,
        "success": run.success_rate,
        "success_low": low,
        "success_high": high,
        "heard_s": run.heard,
        "last": run.last,
        "path": run_path(run),
        **meed,
    }


def run_path(run: Run) -> str:
    """Return where a run is known from: its log, else its first trace."""
    if run.folder is not None:
        return str(run.folder / "events.jsonl")
    return str(run.files[0].path) if run.files else run.key


def episode_record(episode: Episode) -> Record:
    """Return an episode; negative places are unknown."""
    return {
        "uid": episode.uid,
        "condition": episode.condition,
        "alpha": episode.alpha,
        "number": episode.number,
        "task": episode.task,
        "instruction": episode.instruction,
        "init_state": episode.init_state,
        "scene_seed": episode.scene_seed,
        "pair_key": episode.pair_key,
        "success": episode.success,
        "n_steps": episode.n_steps,
        "meed_cm": episode.meed_cm,
        "return": episode.total_return,
        "error": episode.error,
        "path": str(episode.path) if episode.path else None,
        "row": episode.row if episode.path else None,
    }


def neuron_record(neurons: Neurons, row: int, mark: bool | None) -> Record:
    """Return a neuron; the effect is of the dose that the list shows."""
    from tui.data.effects import chosen_dose

    layer, neuron = neurons.place(row)
    record: Record = {
        "layer": layer,
        "neuron": neuron,
        "mark": {True: "accepted", False: "rejected", None: ""}[mark],
        "norm": float(neurons.norm[row]),
        "reach": bool(neurons.reach[row]),
        "mean": None if neurons.mean is None else float(neurons.mean[row]),
        "p99": None if neurons.p99 is None else float(neurons.p99[row]),
    }
    if (words := neurons.words) is not None:
        record["tokens"] = " ".join(word.strip() for word in words.tokens(row))
        record |= {f"score {name}": int(values[row]) for name, values in words.scores.items()}
    doses = neurons.steered.get(row)
    dose = chosen_dose(doses) if doses else None
    low, high = (dose.delta_ci if dose else None) or (None, None)
    return record | {
        "steered": dose.label if dose else None,
        "role": dose.role if dose else None,
        "effect_cm": dose.delta_cm if dose else None,
        "effect_cm_low": low,
        "effect_cm_high": high,
        "pairs": dose.n_pairs if dose else None,
    }


def feature_record(features: Features, row: int, signal: str = "") -> Record:
    """Return a feature with the signal that is shown of it: the one asked for, or its strongest."""
    follows, which = features.follows, features.signal(row, signal)
    record: Record = {
        "feature": int(features.feature[row]),
        "label": features.labels[features.label[row]],
        "coverage": float(features.coverage[row]),
        "onsets": float(features.onsets[row]),
        "mean_peak": float(features.peak[row]),
        "signal": follows.names[which] if which >= 0 else None,
    }
    for name in ("r", "low", "high", "p"):
        record[name] = float(getattr(follows, name)[which, row]) if which >= 0 else None
    return record | {"episodes": int(follows.episodes[which, row]) if which >= 0 else None}


def pair_record(row: TaskPairs) -> Record:
    """Return a task of a comparison; differences are B minus A, over pairs."""
    success, meed = row.success, row.meed
    return {
        "task": row.task,
        **_rate("a", row.a),
        **_rate("b", row.b),
        "success_difference": success.difference,
        "success_difference_low": success.ci[0] if success.ci else None,
        "success_difference_high": success.ci[1] if success.ci else None,
        "mcnemar_p": success.p_value,
        "pairs": success.n,
        "meed_difference_cm": meed.mean,
        "meed_difference_cm_low": meed.ci[0] if meed.ci else None,
        "meed_difference_cm_high": meed.ci[1] if meed.ci else None,
        "meed_p": meed.p_value,
        "meed_pairs": meed.n,
    }


def _rate(side: str, rate: Rate) -> Record:
    low, high = rate.ci or (None, None)
    return {
        f"{side}_successes": rate.successes,
        f"{side}_n": rate.n,
        f"{side}_low": low,
        f"{side}_high": high,
    }


def update_records(training: Training) -> list[Record]:
    """Return the metrics of every update that is done, under the names of its log."""
    names = sorted(training.history)
    return [
        {"update": update, **{name: training.history[name][place] for name in names}}
        for place, update in enumerate(training.updates)
    ]


def step_record(tracks: EpisodeTracks, step: int) -> Record:
    """Return one control step of an episode, the hand before its action."""
    x, y, z = (float(value) for value in tracks.path_m[step])
    actions = zip(tracks.action_names, tracks.action[step].tolist(), strict=True)
    return {
        "step": step,
        **{f"action_{name}": value for name, value in actions},
        "ee_x_m": x,
        "ee_y_m": y,
        "ee_z_m": z,
        "opening_m": float(tracks.opening_m[step]),
        "log_prob": float(tracks.log_prob[step]),
        "contact": bool(tracks.contact[step]),
        "intervened": bool(tracks.intervened[step]),
        "reward": float(tracks.reward[step]),
    }


def step_records(
    episode: Episode, tracks: EpisodeTracks, site: SiteTracks | None = None
) -> list[Record]:
    """Return every step of an episode, with the neurons that are shown [standard deviations]."""
    of = {"uid": episode.uid, "condition": episode.condition, "path": str(episode.path)}
    records = [of | step_record(tracks, step) for step in range(tracks.n_steps)]
    if site is not None:
        for place, neuron in enumerate(site.neurons):
            for record, value in zip(records, site.values[:, place].tolist(), strict=True):
                record[f"{site.site} n{neuron} sigma"] = value
    return records


def in_words(record: Record) -> str:
    """Return a record as one text for people; what is unknown is left out."""
    known = {name: value for name, value in record.items() if value not in (None, "")}
    return ", ".join(f"{name} {_short(value)}" for name, value in known.items())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def columns_of(records: Sequence[Record]) -> list[str]:
    """Return the names of all records, in the order in which they appear."""
    return list(dict.fromkeys(name for record in records for name in record))

"""Every table that `vla-trace analyze` prints or writes, by name: traces in, polars frames out."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import polars as pl

from analysis import motion_table, safety_table
from analysis.advantages import advantage_tables
from analysis.comparison import summarise
from analysis.fine_tuning import fine_tuning
from analysis.outcome import Condition, Family, Report, analyse
from analysis.specificity import Specificity
from analysis.tables import IDENTITY, read_episodes

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Options:
    """What a reader of traces may choose."""

    base: str = ""
    """Which policy is the base, see `base_policy.base_policy`."""
    horizon: int = motion_table.HORIZON
    """Control steps of fixed-horizon MEED."""


@dataclass(frozen=True)
class Tables:
    """Frames that belong together, and sentences that say what they do not rest on."""

    frames: dict[str, pl.DataFrame]
    notes: tuple[str, ...]

    def to_dict(self, name: str) -> dict:
        """Return the JSON object of `vla-trace analyze --table NAME --json`."""
        rows = {key: frame.to_dicts() for key, frame in self.frames.items()}
        return {"schema": SCHEMA_VERSION, "table": name, "tables": rows, "notes": list(self.notes)}


def tables(name: str, paths: Iterable[Path | str], options: Options | None = None) -> Tables:
    """Return the tables of one of `NAMES`."""
    return _MAKERS[name](list(paths), options or Options())


def _outcome(paths: list[Path | str], options: Options) -> Tables:
    """conditions, trend."""
    return outcome_tables(analyse(paths))


def _motion(paths: list[Path | str], options: Options) -> Tables:
    """motion, motion_episodes, speed_profiles."""
    found = motion_table.read_motion(paths, options.horizon)
    summary = summarise(found, motion_table.MEASURES, options.base)
    frames = {
        "motion": summary.frame,
        "motion_episodes": found.frame.drop(motion_table.PROFILE),
        "speed_profiles": motion_table.speed_profiles(found),
    }
    return Tables(frames, summary.notes)


def _safety(paths: list[Path | str], options: Options) -> Tables:
    """safety, safety_episodes."""
    found = safety_table.read_safety(paths)
    summary = summarise(found, safety_table.MEASURES, options.base)
    return Tables({"safety": summary.frame, "safety_episodes": found.frame}, summary.notes)


def _training(paths: list[Path | str], options: Options) -> Tables:
    """training_tasks, training_aggregates."""
    tasks, aggregates = fine_tuning(read_episodes(paths), options.base)
    frames = {"training_tasks": tasks.frame, "training_aggregates": aggregates}
    return Tables(frames, tasks.notes)


def _advantages(paths: list[Path | str], options: Options) -> Tables:
    """groups, updates, initial_states, value_curve."""
    found = advantage_tables(paths)
    frames = {
        "groups": found.groups,
        "updates": found.updates,
        "initial_states": found.states,
        "value_curve": found.value,
    }
    return Tables(frames, found.notes)


_MAKERS: dict[str, Callable[[list[Path | str], Options], Tables]] = {
    "outcome": _outcome,
    "motion": _motion,
    "safety": _safety,
    "training": _training,
    "advantages": _advantages,
}
NAMES = tuple(_MAKERS)


def outcome_tables(report: Report) -> Tables:
    """Flatten the report of the main table: an interval becomes two columns, NAME_low and _high."""
    frames = {
        "conditions": _flat_frame(Condition, report.conditions),
        "trend": _flat_frame(Family, report.families),
    }
    return Tables(frames, tuple(report.notes))


def _flat_frame(kind: type, rows: list) -> pl.DataFrame:
    """Return a frame of dataclass instances; what is unknown everywhere is typed all the same."""
    columns = _flat({field.name: None for field in fields(kind)})
    flat = [_flat(asdict(row)) for row in rows]
    frame = pl.DataFrame({name: [row[name] for row in flat] for name in columns}, strict=False)
    unknown = [name for name, dtype in frame.schema.items() if dtype == pl.Null]
    return frame.cast({name: IDENTITY.get(name, pl.Float64) for name in unknown})


def _flat(row: dict, prefix: str = "") -> dict[str, object]:
    """Return a row of scalars: nested objects are prefixed, lists joined, intervals taken apart."""
    flat: dict[str, object] = {}
    for key, value in row.items():
        name = f"{prefix}{key}"
        if key == "specificity":
            nested = value or {field.name: None for field in fields(Specificity)}
            flat |= _flat({k: v for k, v in nested.items() if k != "random_cm"}, "control_")
        elif key.endswith("_ci"):
            stem = name.removesuffix("_ci")
            flat[f"{stem}_low"], flat[f"{stem}_high"] = value or (None, None)
        elif isinstance(value, list | tuple):
            flat[name] = "; ".join(map(str, value))
        else:
            flat[name] = value
    return flat


def write_tables(folder: Path, parts: dict[str, Tables]) -> list[str]:
    """Write every frame as NAME.parquet and NAME.csv into a folder, and the notes beside them.

    Returns:
        The names of the frames.
    """
    folder.mkdir()
    frames = {name: frame for part in parts.values() for name, frame in part.frames.items()}
    for name, frame in frames.items():
        frame.write_parquet(folder / f"{name}.parquet")
        frame.write_csv(folder / f"{name}.csv")
    notes = [f"{name}: {note}" for name, part in parts.items() for note in part.notes]
    (folder / "notes.txt").write_text("".join(f"{note}\n" for note in notes), encoding="utf-8")
    return list(frames)

"""How each episode moved: one row an episode, and speed over normalised time.

    from analysis.motion_table import motion_table
    motion_table(["traces/*.h5"]).group_by("label").agg(pl.col("meed_cm").mean())

docs/analysis.md defines every column. What an episode does not have (no success, no transport, a
broken pose) is null.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl

from analysis.comparison import ABOUT
from analysis.conditions import by_key, without_errors
from analysis.motion import step_lengths_of
from analysis.phases import PHASES, gripper_events, phases, told_to_close
from analysis.smoothness import log_dimensionless_jerk, spectral_arc_length
from analysis.spans import Spans
from analysis.stats import bootstrap_ci
from analysis.tables import CONDITION, HUGE, EpisodeTable, read_episodes
from traces.reader import Columns, TraceReader

HORIZON = 10
"""Control steps of fixed-horizon MEED: half a second at 20 Hz, shorter than any success yet seen,
so that when an episode ends cannot change the number."""

IDLE_CM = 0.05
"""A control step shorter than this is idle."""

BINS = 20
"""Parts of an episode in its speed profile."""

MEASURES = {
    "meed_cm": "MEED",
    "first_command": "first command",
    "meed_first_cm": "MEED start",
    "meed_moving_cm": "MEED moving",
    "meed_approach_cm": "MEED approach",
    "meed_contact_cm": "MEED contact",
    "meed_transport_cm": "MEED transport",
    "path_cm": "path, cm",
    "net_cm": "net move, cm",
    "idle_share": "idle steps",
    "sparc": "SPARC",
    "ldlj": "LDLJ",
    "closes": "hand closes",
    "opens": "hand opens",
    "success_s": "success at, s",
}
"""Column to what it is called in print; MEED in cm per control step, commands in the unit of
actions."""

MEASURED = dict.fromkeys(MEASURES, pl.Float64)
PROFILE = {"speed_cm_s": pl.List(pl.Float64)}


def motion_table(paths: Iterable[Path | str], horizon: int = HORIZON) -> pl.DataFrame:
    """Return one row per episode: `tables.IDENTITY` and the columns of `MEASURES`.

    Args:
        paths: traces, as `traces.open_traces` takes them.
        horizon: control steps of `meed_first_cm`; shorter episodes have none.
    """
    return read_motion(paths, horizon).frame.drop(PROFILE)


def read_motion(paths: Iterable[Path | str], horizon: int = HORIZON) -> EpisodeTable:
    """As `motion_table`, with notes and with `speed_cm_s`: the mean speed in each of `BINS`."""

    def measure(trace: TraceReader, episodes: Columns) -> dict[str, np.ndarray | list]:
        steps = trace.steps("ee_pos", "action", "contact")
        spans = Spans.of(episodes)
        step_cm = step_lengths_of(steps["ee_pos"], episodes["final_ee_pos"], spans)
        hz = control_hz(trace)
        return (
            _distances(steps, episodes, step_cm, spans, horizon)
            | _per_phase(steps, step_cm, spans)
            | {
                "first_command": _first_command(trace, steps["action"], spans),
                "sparc": spectral_arc_length(step_cm, spans, hz) if hz else _unknown(spans),
                "ldlj": log_dimensionless_jerk(step_cm, spans),
                "success_s": _steps_to_success(trace, episodes) / (hz or np.nan),
                "speed_cm_s": _profiles(step_cm, spans, hz),
            }
        )

    return read_episodes(paths, measure, MEASURED | PROFILE)


def control_hz(trace: TraceReader) -> float | None:
    """Control steps a second; None where the suite does not say."""
    hz = trace.header.suite.get("control_hz")
    known = isinstance(hz, int | float) and not isinstance(hz, bool) and 0 < hz < np.inf
    return float(hz) if known else None


def _distances(
    steps: Columns, episodes: Columns, step_cm: np.ndarray, spans: Spans, horizon: int
) -> dict[str, np.ndarray]:
    path_cm = np.where(spans.n > 0, spans.sum(step_cm), np.nan)
    long_enough = spans.n >= max(horizon, 1)
    moving = step_cm > IDLE_CM  # also where the pose is broken: the mean is not finite then
    moving |= ~np.isfinite(step_cm)
    idle = np.where(np.isfinite(path_cm), spans.mean(~moving), np.nan)
    net = np.full((len(spans.n), 3), np.nan)
    some = spans.n > 0
    with np.errstate(over="ignore", invalid="ignore"):
        net[some] = episodes["final_ee_pos"][some] - steps["ee_pos"][spans.first[some]]
        return {
            "meed_cm": path_cm / np.maximum(spans.n, 1),
            "meed_first_cm": np.where(long_enough, spans.head(horizon).mean(step_cm), np.nan),
            "meed_moving_cm": spans.mean(step_cm, where=moving),
            "path_cm": path_cm,
            "net_cm": 100 * np.sqrt((net**2).sum(axis=1)),
            "idle_share": idle,
        }


def _per_phase(steps: Columns, step_cm: np.ndarray, spans: Spans) -> dict[str, np.ndarray]:
    closing = told_to_close(steps["action"])
    marked = phases(steps["contact"], closing, spans)
    closes, opens = gripper_events(closing, spans)
    some = np.where(spans.n > 0, 1.0, np.nan)
    found = {f"meed_{name}_cm": spans.mean(step_cm, where=marked[name]) for name in PHASES}
    return found | {"closes": closes * some, "opens": opens * some}


def _first_command(trace: TraceReader, action: np.ndarray, spans: Spans) -> np.ndarray:
    """(E,) mean length of the translation that the first decision commanded.

    Both of a pair decide from the same observation with the same noise then: what differs is the
    policy's doing alone, before any feedback.
    """
    first, decided = (
        trace.episodes(name)[name].astype(np.int64) for name in ("first_decision", "n_decisions")
    )
    executed = trace.decisions("n_executed")["n_executed"]
    some = (decided > 0) & (spans.n > 0)
    n = np.zeros(len(spans.n), np.int64)
    n[some] = np.clip(executed[first[some]], 0, spans.n[some])
    chunk = Spans(spans.first, n)
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.sqrt((action[chunk.rows, :3].astype(np.float64) ** 2).sum(axis=1))
    return Spans(np.cumsum(n) - n, n).mean(length)


def _steps_to_success(trace: TraceReader, episodes: Columns) -> np.ndarray:
    """(E,) control steps until the task was solved; NaN where it was not.

    An episode that the task ended has just been solved; in others the first reward tells when.
    """
    ended = trace.episodes("terminated")["terminated"]
    spans = Spans.of(episodes)
    found = np.where(episodes["success"] & ended & (spans.n > 0), spans.n.astype(float), np.nan)
    later = np.flatnonzero(episodes["success"] & ~ended)
    if later.size:
        rewarded = spans.split(trace.steps("reward")["reward"] > 0)
        for e in later:
            found[e] = np.argmax(rewarded[e]) + 1 if rewarded[e].any() else np.nan
    return found


def _profiles(step_cm: np.ndarray, spans: Spans, hz: float | None) -> list[list[float] | None]:
    """(E,) profiles of `BINS` speeds [cm/s]; None without steps, pose or control rate.

    Speed within a bin is the distance moved in it over its duration; a bin may hold parts of steps.
    """
    known = (spans.sum(step_cm) < HUGE) & (spans.n > 0)
    if hz is None or not known.any():
        return [None] * len(spans.n)
    clean = np.where(step_cm < HUGE, step_cm, 0.0)
    travelled = np.concatenate([[0.0], np.cumsum(clean), [np.nan]])  # (T + 2,) before each step
    edges = spans.first[:, None] + spans.n[:, None] * np.linspace(0, 1, BINS + 1)  # (E, BINS + 1)
    row = np.minimum(edges.astype(np.int64), len(step_cm))
    part = edges - row
    after = np.where(part > 0, travelled[row + 1], travelled[row])
    at = travelled[row] + part * (after - travelled[row])
    speed = np.diff(at, axis=1) * (BINS * hz / np.maximum(spans.n, 1))[:, None]
    return [one if ok else None for one, ok in zip(speed.tolist(), known, strict=True)]


def _unknown(spans: Spans) -> np.ndarray:
    return np.full(len(spans.n), np.nan)


def speed_profiles(table: EpisodeTable) -> pl.DataFrame:
    """Mean speed of each condition in every part of an episode, with its band.

    Args:
        table: of `read_motion`.

    Returns:
        One row per condition and part: `comparison.ABOUT`, `part` (0 to BINS - 1), `time` (middle
        of the part, as a share of the episode), `n` episodes, `mean_cm_s`, and the 95 % bootstrap
        interval `low_cm_s`, `high_cm_s` (null with one episode).
    """
    rows = []
    frame = without_errors(table.frame, [])
    for _, group in by_key(frame, CONDITION):
        known = group["speed_cm_s"].drop_nulls()
        if not len(known):
            continue
        about = {name: group[name][0] for name in ABOUT}
        for part, speeds in enumerate(np.stack(known.to_list(), axis=1)):
            low, high = bootstrap_ci(speeds) or (None, None)
            where = {"part": part, "time": (part + 0.5) / BINS, "n": len(speeds)}
            mean = float(speeds.mean())
            rows.append(about | where | {"mean_cm_s": mean, "low_cm_s": low, "high_cm_s": high})
    numbers = {"time": pl.Float64, "n": pl.Int64} | dict.fromkeys(
        ("mean_cm_s", "low_cm_s", "high_cm_s"), pl.Float64
    )
    schema = {name: frame.schema[name] for name in ABOUT} | {"part": pl.Int64} | numbers
    return pl.DataFrame(rows, schema=schema)

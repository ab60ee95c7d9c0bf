"""Every table by name, and the folder they are written to."""

import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from analysis.report_tables import NAMES, Options, tables, write_tables

ROOT = Path(__file__).parents[2]
TUNED = {"sha256": "cd" * 32, "policy_path": "runs/a/checkpoints/000040/pretrained_model"}


@pytest.fixture
def everything(traces, tmp_path):
    """Base and fine-tuned, steered and not, two tasks, a broken pose, a training trace."""
    folder = tmp_path / "traces"
    for policy, settings in (("base", {}), ("tuned", TUNED)):
        for label, intervention in (("plain", None), ("fast", traces.steer())):
            arm = [
                traces.episode(f"t{task}-{i}", [1.0 + i] * 12, success=i % 2 == 0, task_id=task)
                for task in (0, 1)
                for i in range(7)
            ]
            arm[0] |= {"steps": {"ee_pos": np.full((12, 3), np.nan)}}
            traces.write(folder / f"{policy}-{label}.h5", arm, intervention, **settings)
    group = {"update": 0, "group": 0, "policy_version": 0, "task_id": 0, "init_state": 1}
    group |= {"scene_seed": 1, "n_members": 2, "n_success": 1, "return_mean": 0.5}
    group |= {"return_std": 0.7, "accepted": False}
    traces.write(
        folder / "update-000000.h5",
        [traces.episode("u0", [1.0])],
        kind="grpo",
        tables={"groups": {name: [value] for name, value in group.items()}},
    )
    return sorted(folder.glob("*.h5"))


def test_no_cell_is_nan_and_no_list_is_left(everything):
    for name in NAMES:
        for frame in tables(name, everything).frames.values():
            assert not any(isinstance(kind, pl.List | pl.Struct) for kind in frame.schema.values())
            assert frame.select(pl.col(pl.Float64).is_nan().any()).row(0).count(True) == 0


def test_the_same_files_in_any_order_give_the_same_bytes(everything, tmp_path):
    for place, order in (("a", everything), ("b", everything[::-1])):
        write_tables(tmp_path / place, {name: tables(name, order) for name in NAMES})
    written = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert written == sorted(path.name for path in (tmp_path / "b").iterdir())
    for name in written:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_parquet_and_csv_hold_what_the_frames_hold(everything, tmp_path):
    parts = {name: tables(name, everything) for name in NAMES}
    names = write_tables(tmp_path / "out", parts)
    assert names == [
        *("conditions", "trend", "motion", "motion_episodes", "speed_profiles"),
        *("safety", "safety_episodes", "training_tasks", "training_aggregates"),
        *("groups", "updates", "initial_states", "value_curve"),
    ]
    for part in parts.values():
        for name, frame in part.frames.items():
            assert pl.read_parquet(tmp_path / "out" / f"{name}.parquet").equals(frame), name
            lines = (tmp_path / "out" / f"{name}.csv").read_text().splitlines()
            assert lines[0].split(",") == frame.columns if frame.columns else True
            assert len(lines) >= len(frame) + bool(frame.columns)
    notes = (tmp_path / "out" / "notes.txt").read_text()
    assert "motion: the base is smolvla-tabletop@abababab" in notes


def test_the_main_table_flat(everything):
    frame = tables("outcome", everything).frames["conditions"]
    steered = frame.filter(pl.col("label") == "fast α=8", pl.col("task_id") == 1).row(0, named=True)
    assert steered["meed_low"] < steered["meed_cm"] < steered["meed_high"]
    assert (steered["delta_low"], steered["delta_meed_cm"]) == (0, 0)
    assert steered["control_n_random"] is None
    assert frame.schema["p_holm"] == pl.Float64
    assert frame.schema["intervention"] == pl.String


def test_options_reach_the_tables(everything):
    long = tables("motion", everything, Options(horizon=13)).frames["motion_episodes"]
    assert long["meed_first_cm"].null_count() == len(long)
    swapped = tables("training", everything, Options(base="pretrained_model"))
    assert set(swapped.frames["training_tasks"]["policy"]) == {"smolvla-tabletop@abababab"}


@pytest.mark.parametrize("name", NAMES)
def test_no_episodes_are_empty_tables(name, traces, tmp_path):
    found = tables(name, [traces.write(tmp_path / "a.h5", [])])
    assert all(frame.is_empty() for frame in found.frames.values())


def test_the_example_of_the_docs_runs(tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "tests" / "tui" / "recorded" / "traces", tmp_path / "traces")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "analysis.md").read_text(encoding="utf-8")
    ((code, expected),) = re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", text, re.DOTALL)
    exec(compile(code, "docs/analysis.md", "exec"), {})
    assert capsys.readouterr().out == expected


def test_the_docs_name_every_column_of_motion_and_safety_and_every_frame():
    from analysis import motion_table, safety_table

    text = (ROOT / "docs" / "analysis.md").read_text(encoding="utf-8")
    names = [n for n in (*motion_table.MEASURES, *safety_table.MEASURES) if "meed_" not in n]
    frames = [name for table in NAMES for name in tables(table, []).frames]
    assert [name for name in (*names, *frames) if f"`{name}`" not in text] == []

"""`y` and `x`: what is copied, what is exported, and that nothing is written over."""

import base64
import csv
import importlib.util
import json
import math
import os
from pathlib import Path

import pytest

from traces.errors import UnwritableFolder
from tui.app import make_app
from tui.data.exports import write_records
from tui.data.records import in_words


def beside(name):
    path = Path(__file__).parent / "golden" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tui_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scenes, tables, driver = beside("scenes"), beside("neuron_scenes"), beside("driver")
drive, press = driver.drive, driver.press


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path()


def app_over(folder):
    return make_app(folder, lambda: scenes.NOW)


def said(pilot):
    return driver.screen_text(pilot.app).splitlines()[-1].strip()


def exported(name):
    """The rows of a CSV and the objects of the JSON beside it."""
    path = Path("exports") / f"{name}.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    objects = json.loads(path.with_suffix(".json").read_text())
    assert len(rows) == len(objects)
    assert list(rows[0]) == list(dict.fromkeys(name for one in objects for name in one))
    return rows, objects


def test_a_run_is_copied_with_its_log(here):
    scenes.recorded(here)

    async def steps(pilot):
        await press(pilot, "y")
        copied = pilot.app.clipboard
        assert copied.startswith("state ○ finished, run 11-20 09:30 1f9c, kind record, ")
        assert "success .58 [.32,.81]" in copied
        assert copied.endswith(f"(runs/{scenes.RUN}/events.jsonl)")
        assert said(pilot).startswith("copied: state ○ finished")
        assert said(pilot).endswith("…"), "the line is cut and shows that it is"

    drive(app_over(here), steps)


def test_the_clipboard_is_that_of_the_terminal(here, monkeypatch):
    scenes.recorded(here)

    async def steps(pilot):
        written = []
        monkeypatch.setattr(pilot.app._driver, "write", written.append)
        await press(pilot, "enter", "y")
        (sequence,) = [text for text in written if text.startswith("\x1b]52;c;")]
        text = base64.b64decode(sequence.removeprefix("\x1b]52;c;").removesuffix("\a")).decode()
        assert text == pilot.app.clipboard
        assert text.startswith("condition baseline, # 0, success ✓ yes, task lift")
        assert text.endswith(f"(traces/{scenes.RUN}-baseline.h5 episodes/0)")

    drive(app_over(here), steps)


def test_rows_are_exported_after_the_filter_and_never_over_another_file(here):
    scenes.recorded(here)

    async def steps(pilot):
        await press(pilot, "enter", "/", *"fast", "enter", "x")
        name = f"rollouts-{scenes.RUN}"
        assert said(pilot) == f"6 rows: exports/{name}.csv and .json"
        rows, objects = exported(name)
        assert {row["condition"] for row in rows} == {"fast α=8"}
        assert [one["number"] for one in objects] == [0, 1, 2, 3, 4, 5]
        assert objects[0]["success"] is True
        assert objects[0]["path"] == f"traces/{scenes.RUN}-fast-8.h5"
        before = Path(f"exports/{name}.csv").read_bytes()
        await press(pilot, "escape", "x")
        assert Path(f"exports/{name}.csv").read_bytes() == before
        assert len(exported(f"{name}-2")[0]) == 12
        await press(pilot, "escape", "x")
        (run,) = exported("runs")[1]
        assert run["run"] == scenes.RUN
        assert run["success"] == pytest.approx(7 / 12)
        assert run["meed_cm baseline"] == pytest.approx(0.52, abs=0.01)

    drive(app_over(here), steps)


def test_the_step_under_the_cursor_and_every_step_of_an_episode(here):
    scenes.recorded(here)

    async def steps(pilot):
        await press(pilot, "enter", "enter", ">", "y")
        copied = pilot.app.clipboard
        assert "u00000/g0000/a00/m000: step 10, action_x " in copied
        assert "contact False, intervened False" in copied
        await press(pilot, "x", "b", "a", "x")
        rows, objects = exported("episode-baseline-0")
        assert [int(row["step"]) for row in rows] == list(range(60))
        assert objects[0]["ee_x_m"] == pytest.approx(0.3)
        both, _ = exported("episode-baseline-0-2")
        assert len(both) == 60 + 48
        sites = [name for name in both[0] if name.startswith("vlm.0.ffn_act n")]
        assert len(sites) == 8
        assert all(math.isfinite(float(row[sites[0]])) for row in both)

    drive(app_over(here), steps)


def test_the_live_screen_gives_its_group_and_the_metrics_of_every_update(here):
    scenes.training(here)

    async def steps(pilot):
        await press(pilot, "j", "y", "x")
        copied = pilot.app.clipboard
        assert copied.startswith("update 15: g 1, task push_cube_to_zone, episodes ✗✗✗✗✗✗··")
        assert "update 14: success .59 [.40,.76]/64, kl .006, " in copied
        assert copied.endswith(f"(runs/{scenes.TRAINED}/events.jsonl)")
        rows, objects = exported(f"live-{scenes.TRAINED}")
        assert [one["update"] for one in objects] == list(range(1, 15))
        assert rows[13]["train/actor/grad_norm"] == "12.5"

    drive(app_over(here), steps)


def test_neurons_in_the_order_shown_and_tabs_of_a_comparison(here):
    tables.write_table(scenes.SHA)
    scenes.recorded(here)

    async def steps(pilot):
        await press(pilot, "4", "s", "S", "a", "y", "x")
        assert pilot.app.clipboard.startswith("mark ✓ in, layer ")
        (path,) = Path("exports").glob("neurons-*.csv")
        rows, objects = exported(path.stem)
        assert len(rows) == 32
        top = pilot.app.screen.table.rows[0]
        assert top.cells[2][0] == rows[0]["neuron"]
        assert [one["mark"] for one in objects].count("accepted") == 1
        known = [one["effect_cm"] for one in objects if one["effect_cm"] is not None]
        assert len(known) == 4
        assert len({round(value, 9) for value in known}) == 1, "one cluster of four"
        await press(pilot, "1", "c", "x", "]", "x", "]", "x")
        (task,) = exported("compare-pairs")[1]
        assert (task["task"], task["pairs"], task["a_n"], task["b_n"]) == ("lift", 6, 6, 6)
        assert [one["site"] for one in exported("compare-neurons")[1]] == [
            "vlm.0.ffn_act",
            "vlm.1.ffn_act",
        ]
        assert {"setting", "value A", "value B"} <= exported("compare-config")[1][0].keys()

    drive(app_over(here), steps)


def test_nothing_to_copy_or_export_is_said(here):
    async def steps(pilot):
        await press(pilot, "y")
        assert said(pilot) == "nothing to copy here"
        await press(pilot, "x")
        assert said(pilot) == "nothing to export here"
        assert not Path("exports").exists()

    drive(app_over(here), steps)


def test_what_is_unknown_is_empty_and_control_characters_are_escaped(tmp_path):
    records = [{"name": "a\x1b[2J\nb", "value": math.nan}, {"name": "ü", "more": True}]
    table, objects = write_records(tmp_path, "odd", records)
    assert table.read_text(encoding="utf-8") == "name,value,more\na\\x1b[2J b,,\nü,,True\n"
    assert json.loads(objects.read_text()) == [
        {"name": "a\\x1b[2J b", "value": None},
        {"name": "ü", "more": True},
    ]
    assert in_words({"a": None, "b": "", "c": 0.123456, "d": 3}) == "c 0.1235, d 3"


def test_a_name_that_is_half_taken_is_left_alone(tmp_path):
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports/runs.json").write_text("mine")
    table, objects = write_records(tmp_path, "runs", [{"a": 1}])
    assert (table.name, objects.name) == ("runs-2.csv", "runs-2.json")
    assert (tmp_path / "exports/runs.json").read_text() == "mine"


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_a_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UnwritableFolder):
        write_records(tmp_path, "runs", [{"a": 1}])


def test_a_file_in_the_place_of_the_folder_is_a_sentence(tmp_path):
    (tmp_path / "exports").write_text("")
    with pytest.raises(UnwritableFolder, match="exports"):
        write_records(tmp_path, "runs", [{"a": 1}])

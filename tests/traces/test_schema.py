import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from traces.schema import (
    AXES,
    EPISODES,
    OPTIONAL_TABLES,
    TABLES,
    Field,
    axis_size,
    episode_uid,
    markdown,
    missing,
)

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "trace-format.md").read_text(encoding="utf-8")
ALL_TABLES = TABLES | OPTIONAL_TABLES


@pytest.mark.parametrize("fields", ALL_TABLES.values(), ids=ALL_TABLES)
def test_columns_are_well_formed(fields):
    assert len({field.name for field in fields}) == len(fields)
    for field in fields:
        assert field.doc
        assert field.unit
        if not field.text_bytes:
            assert np.dtype(field.dtype).itemsize
        for dim in field.dims:
            assert all(part in AXES or part.isdigit() or part == "…" for part in dim.split("+"))


def test_axis_sizes():
    assert axis_size("K+1", {"K": 4}) == 5
    assert axis_size("7", {}) == 7
    assert Field("x", "bool", ("D", "K", "3"), "1", "x").row_shape({"K": 2}) == (2, 3)


def test_what_stands_for_missing():
    by_name = {field.name: missing(field) for field in EPISODES}
    assert by_name["wall_s"] == "NaN"
    assert by_name["group"] == "-1"
    assert by_name["error"] == "empty"
    assert by_name["uid"] == ""


def test_uids_sort_and_fit():
    uid = episode_uid("20260101-000000-record-abcd", 12, 3, 1, 7)
    assert uid == "20260101-000000-record-abcd/u00012/g0003/a01/m007"
    assert len(uid) < EPISODES[0].text_bytes


def test_the_docs_contain_the_tables_as_they_are():
    assert markdown() in DOCS, "print them with: python -m traces.schema"
    for letter, meaning in AXES.items():
        assert f"| {letter} | {meaning} |" in DOCS


def test_the_module_prints_the_tables():
    command = [sys.executable, "-m", "traces.schema"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.decode("utf-8") == markdown()


def test_the_examples_of_the_docs_run(build, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    build.trace(tmp_path / "steered.h5")
    writer = build.writer(tmp_path / "live.h5")
    for number in range(2):
        writer.write_episode(build.record(number))
    shutil.copy(writer.partial, tmp_path / "crashed.h5.partial")
    writer.close()
    examples = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    assert len(examples) == 3
    for example in examples:
        exec(compile(example, "docs/trace-format.md", "exec"), {})
    assert capsys.readouterr().out == (
        "1 of 3 solved; 'pick up the red cube schnell ⚡' moved the hand (4, 3)\n"
        "2 complete episodes\n"
    )
    frame = build.record(0, n_steps=4).frames["agentview"][1][0]
    assert (tmp_path / "frame.png").read_bytes() == frame


def test_the_docs_name_every_root_attribute(build):
    for name in build.header().to_attributes():
        assert f"`{name}`" in DOCS
    for name in build.sites[0].to_attributes():
        assert f"`{name}`" in DOCS

"""`vla-trace meaning`: the screen, the JSON object, the folder, and bad input."""

import json

import numpy as np
import polars as pl
import pytest

from analysis.signals import SIGNALS
from tui import cli


@pytest.fixture
def recorded(traces, tmp_path):
    """Twenty episodes in which neuron 3 of 12 follows the speed."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(20):
        cm = rng.uniform(0.5, 2, size=10)
        values = rng.normal(size=(10, 12))
        values[:, 3] = cm
        made.append(traces.episode(f"p{i:02d}", list(cm), ffn_act=values))
    return str(traces.write(tmp_path / "base.h5", made))


def test_the_screen_fits_80_columns(recorded, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(["meaning", recorded, "--signal", "speed"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = [line.rstrip() for line in out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert lines[0] == "smolvla-tabletop@abababab: 20 episodes, 200 decisions, 1 site, 12 neurons"
    assert lines[2:5] == [
        "speed, cm per control step",
        "r is not 0 in 1 of 12 neurons (corrected, 5 %)",
        "followed by 1 of 12 neurons (corrected, 5 %)",
    ]
    surest = lines[7].split()
    assert surest[:6] == ["vlm.1.ffn_act", "3", "20", "+1.00", "[+1.00,", "+1.00]"]
    assert abs(float(surest[6])) < 0.3 and surest[7:] == ["<.0001", "<.0001"]
    assert sum(line.startswith("vlm.1.ffn_act ") for line in lines) == 5 + 1
    assert [line.split()[:3] for line in lines if line.startswith("vlm.1.ffn_act  ")] == [
        ["vlm.1.ffn_act", "20", "12"]
    ]
    assert "note: one task only" in out


def test_json_is_every_row_and_no_nan(recorded, capsys):
    def parsed(*options):
        assert cli.run(["meaning", recorded, "--json", *options]) == 0
        text = capsys.readouterr().out
        return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    found = parsed()
    assert list(found) == [
        *("schema", "policy", "episodes", "decisions", "signals", "coverage", "sites", "notes")
    ]
    assert (len(found["signals"]), len(found["coverage"]), len(found["sites"])) == (
        len(SIGNALS) * 12,
        12,
        1,
    )
    few = parsed("--top", "2", "--signal", "speed", "--signal", "time")["signals"]
    assert [row["signal"] for row in few] == ["speed"] * 2 + ["time"] * 2
    assert few[0]["neuron"] == 3


def test_tables_are_written(recorded, tmp_path, capsys):
    out = tmp_path / "tables"
    assert cli.run(["meaning", recorded, "--out", str(out)]) == 0
    written = pl.read_parquet(out / "meaning_signals.parquet")
    assert len(written) == len(SIGNALS) * 12
    assert len(pl.read_csv(out / "meaning_coverage.csv")) == 12
    assert "one task only" in (out / "notes.txt").read_text()
    capsys.readouterr()
    assert cli.run(["meaning", recorded, "--out", str(out)]) == 2
    assert "already exists" in capsys.readouterr().err


def test_a_screen_without_any_correlation(traces, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    path = traces.write(tmp_path / "t.h5", [traces.episode("a", [1.0, 2.0, 3.0])])
    assert cli.run(["meaning", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.count("no correlation: see the notes") == len(SIGNALS)
    assert "note: 1 episode is fewer than the 6 that an interval or a p takes" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--signal", "sped"], "unknown signal 'sped'; did you mean speed?"),
        (["--site", "vlm.9"], "unknown site 'vlm.9'"),
        (["--top", "0"], "--top"),
    ],
)
def test_bad_input_is_one_line(recorded, options, said, capsys):
    assert cli.run(["meaning", recorded, *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert said in err

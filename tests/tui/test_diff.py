"""`vla-trace diff` of traces: the screen, the JSON object, the folder of tables, bad input."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tui import cli

SITES = ("vlm.0.ffn_act", "vlm.1.ffn_act", "exp.0.ffn_act")


@pytest.fixture
def sides(activations, tmp_path):
    """Two policies on the same inputs: layer 0 is frozen, neuron 3 of layer 1 moves by 2."""
    rng = np.random.default_rng(0)
    base = [{site: rng.normal(size=(20, 5)).astype(np.float16) for site in SITES} for _ in range(8)]
    tuned = [{site: values.copy() for site, values in episode.items()} for episode in base]
    for episode in tuned:
        episode["vlm.1.ffn_act"][:, 3] += np.float16(2 + 0.1 * rng.normal())
        episode["exp.0.ffn_act"] += (0.01 * rng.normal(size=(20, 5))).astype(np.float16)
    one = activations(tmp_path / "base.h5", base)
    return str(one), str(activations(tmp_path / "tuned.h5", tuned, sha256="cd" * 32))


def test_the_screen(sides, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(["diff", *sides]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = [line.rstrip() for line in out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert lines[0] == "base@abababab -> tuned@cdcdcdcd"
    assert lines[1] == "replay: the same inputs and noise, row by row; 8 episodes"
    (frozen,) = (line for line in lines if line.startswith("vlm.0.ffn_act"))
    assert frozen.split() == ["vlm.0.ffn_act", "160", "frozen", "0", "1", "1", "-", "0/0"]
    assert any(line.startswith("vlm.1.ffn_act 3 ") for line in lines)
    assert any(line.startswith("  expert ffn_act          0-0  |█|") for line in lines)
    assert "neurons by |d|, 6 of 6" in out


def test_json_and_tables_hold_every_row(sides, tmp_path, capsys):
    folder = tmp_path / "tables"
    assert cli.run(["diff", *sides, "--json", "--out", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert (found["compared"], found["design"], found["correction"]) == (
        "activations",
        "replay",
        "holm",
    )
    assert len(found["neurons"]) == 15
    assert [site["frozen"] for site in found["sites"]] == [False, True, False]
    for name in ("sites", "neurons"):
        assert pl.read_parquet(folder / f"{name}.parquet").to_dicts() == found[name]
        assert len(pl.read_csv(folder / f"{name}.csv")) == len(found[name])
    assert cli.run(["diff", *sides, "--out", str(folder)]) == 2
    assert "--force" in capsys.readouterr().err
    assert cli.run(["diff", *sides, "--out", str(folder), "--force"]) == 0


def test_the_figure(sides, tmp_path, capsys):
    picture = tmp_path / "shift.svg"
    assert cli.run(["diff", *map(str, sides), "--figure", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"<?xml")
    assert "drew" in capsys.readouterr().err
    policies = ["diff", "organism", "organism", "--figure", str(tmp_path / "w.svg")]
    assert cli.run(policies) == 2
    assert "--figure are about activations" in capsys.readouterr().err


def test_bad_input_is_one_line(sides, tmp_path, capsys):
    inner = tmp_path / "checkpoint" / "pretrained_model"
    inner.mkdir(parents=True)
    (inner / "model.safetensors").write_bytes(b"")
    cases = {
        (sides[0], str(tmp_path / "none.h5")): "no trace files match",
        (sides[0], "smolvla-tabletopp"): "did you mean smolvla-tabletop?",
        (sides[0], "smolvla-tabletop"): "smolvla-tabletop is a policy and",
        (sides[0], str(inner.parent)): f"name {inner}",
        (*sides, "--correction", "bonferroni"): "unknown correction",
        (*sides, "--site", "vlm.9"): "no common site is called vlm.9",
    }
    for args, expected in cases.items():
        assert cli.run(["diff", *args]) == 2, args
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1
        assert expected in err


def test_it_imports_no_torch(sides):
    import subprocess
    import sys

    code = (
        f"import sys; from tui import cli; cli.run(['diff', *{sides!r}]); "
        "sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    )
    root = Path(cli.__file__).parents[1]
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True).returncode == 0
    )

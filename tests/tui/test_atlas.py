"""`vla-trace atlas`: the picture, the change, the tables."""

import json

import numpy as np
import polars as pl
import pytest

from tui import cli

SITES = ("exp.0.ffn_act.chunk.each", "exp.1.ffn_act.chunk.each")


@pytest.fixture
def files(activations, tmp_path):
    """Strength grows with the step in layer 0; tuning doubles the first row of layer 1."""
    rng = np.random.default_rng(0)
    base = []
    for _ in range(6):
        values = rng.normal(1, 0.05, size=(2, 8, 3, 4, 6))
        values[0] *= np.arange(1, 4)[:, None, None]
        base.append(dict(zip(SITES, values.astype(np.float16), strict=True)))
    tuned = [{site: values.copy() for site, values in episode.items()} for episode in base]
    for episode in tuned:
        episode[SITES[1]][:, :, 0] *= 2
    one = activations(tmp_path / "base.h5", base)
    return str(one), str(activations(tmp_path / "tuned.h5", tuned, sha256="cd" * 32))


def test_the_picture(files, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(["atlas", files[0]]) == 0
    out = capsys.readouterr().out
    lines = [line.rstrip() for line in out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert lines[0] == "base@abababab: 48 decisions of 6 episodes"
    assert lines[3].split("  ")[0] == "expert 0 ffn_act"
    assert [line[:4] for line in lines[5:8]] == ["····", "▒▒▒▒", "████"]


def test_the_change(files, tmp_path, capsys):
    assert cli.run(["atlas", files[0], "--against", files[1]]) == 0
    out = capsys.readouterr().out
    assert "base@abababab -> tuned@cdcdcdcd" in out
    assert "█···" in out
    folder = tmp_path / "tables"
    assert (
        cli.run(["atlas", *files[:1], "--against", files[1], "--json", "--out", str(folder)]) == 0
    )
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert found["design"] == "replay"
    rows = pl.read_parquet(folder / "atlas_change.parquet").to_dicts()
    assert rows == found["atlas_change"]
    moved = {(row["layer"], row["row"]) for row in rows if row["moved"] > 0.5}
    assert moved == {(1, 0)}


def test_the_figure(files, tmp_path, capsys):
    for name, start in (("a.svg", b"<?xml"), ("b.png", b"\x89PNG")):
        assert cli.run(["atlas", files[0], "--figure", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_bytes().startswith(start)
    assert cli.run(["atlas", files[0], "--figure", str(tmp_path / "a.svg")]) == 2
    assert cli.run(["atlas", files[0], "--figure", "a.pdf"]) == 2
    assert "already exists" in (err := capsys.readouterr().err) and ".svg or .png" in err
    assert cli.run(["atlas", files[0], "--figure", str(tmp_path / "a.svg"), "--force"]) == 0


def test_bad_input_is_one_line(files, paired, capsys):
    assert cli.run(["atlas", str(paired[0])]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "expert.*.ffn_act:tokens=chunk,keep=each" in err

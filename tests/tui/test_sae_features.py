"""`vla-trace sae features`, `steer` and `eval`, on traces alone."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from traces.autoencoder import Autoencoder, save_autoencoder
from traces.intervention import Intervention
from tui import cli

SITE = "vlm.1.resid_post"
WIDTH = 5


def identity(width=WIDTH, scale=1.0, **metadata):
    eye, zeros = np.eye(width, dtype=np.float32), np.zeros(width, np.float32)
    about = {"site": SITE, "tower": "vlm", "layer": 1, "kind": "resid_post", "rows": "mean"}
    about |= {"tokens": "all", "policy": "p", "policy_sha256": "ab" * 32}
    return Autoencoder(
        *(eye * scale, zeros, eye, zeros), k=width, normalisation="none", metadata=about | metadata
    )


@pytest.fixture
def recorded(traces, tmp_path, monkeypatch):
    """Feature 0 follows the speed; 4 never fires; an autoencoder in `sae`."""
    monkeypatch.chdir(tmp_path)
    rng, made = np.random.default_rng(0), []
    for i in range(20):
        cm = rng.uniform(0.5, 2, 10)
        x = rng.uniform(0, 1, (10, WIDTH)).astype(np.float32)
        x[:, 0], x[:, 3], x[:, 4] = 2 * cm, 10.0, -1.0
        made.append(traces.episode(f"p{i:02d}", list(cm), ffn_act=None, activations={SITE: x}))
    save_autoencoder("sae", identity())
    return str(traces.write(tmp_path / "base.h5", made))


def refused(capsys, *arguments):
    """The one line of an error with exit 2."""
    assert cli.run(["sae", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    return line


def test_the_screen_of_features(recorded, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(["sae", "features", "sae", "--traces", recorded, "--signal", "speed"]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert "5 features" in lines[0] and "1 silent" in " ".join(lines[:3])
    surest = next(line.split() for line in lines if line.startswith("0 "))
    assert surest[1] == "20" and float(surest[2]) > 0.9
    table = pl.read_parquet("sae/features_coverage.parquet")
    assert table["feature"].to_list() == list(range(WIDTH))
    assert json.loads(Path("sae/features.json").read_text())["episodes"] == 20


def test_json_of_features_and_the_viewer(recorded, capsys):
    ask = ["sae", "features", "sae", "--traces", recorded]
    assert cli.run([*ask, "--json", "--viewer", "v"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert (len(found["coverage"]), found["decisions"]) == (WIDTH, 200)
    assert Path("v/features.json").exists()
    assert "v is not empty; --force" in refused(capsys, *ask[1:], "--viewer", "v")
    assert cli.run([*ask, "--viewer", "v", "--force"]) == 0
    capsys.readouterr()
    assert "unknown signal 'mood'" in refused(capsys, *ask[1:], "--signal", "mood")


def test_features_of_another_policy(recorded, capsys):
    save_autoencoder("other", identity(policy_sha256="cd" * 32))
    for sub in (["features", "other"], ["eval", "other"]):
        line = refused(capsys, *sub, "--traces", recorded)
        assert "was trained on p, this is" in line and "--other-policy" in line
        assert cli.run(["sae", *sub, "--traces", recorded, "--other-policy"]) == 0
        capsys.readouterr()


def test_steer_writes_what_record_takes(recorded, capsys):
    assert "not described yet" in refused(capsys, "steer", "sae", "--feature", "0")
    assert cli.run(["sae", "features", "sae", "--traces", recorded]) == 0
    capsys.readouterr()
    assert cli.run(["sae", "steer", "sae", "--feature", "0", "-o", "f.json"]) == 0
    out, err = capsys.readouterr()
    assert out == "f.json\n" and "mean peak" in err and "record --intervention f.json" in err
    chosen = Intervention.from_json(Path("f.json").read_text())
    assert chosen.operator == "add_direction"
    assert "f.json already exists" in refused(
        capsys, "steer", "sae", "--feature", "0", "-o", "f.json"
    )
    for way, operator in (("set", "sae_set"), ("scale", "sae_scale")):
        assert cli.run(["sae", "steer", "sae", "--feature", "0", "--way", way]) == 0
        assert Intervention.from_json(capsys.readouterr().out).operator == operator
    silent = ["steer", "sae", "--feature", "4"]
    assert "active in no recorded episode" in refused(capsys, *silent)
    assert cli.run(["sae", *silent, "--way", "project_out"]) == 0
    capsys.readouterr()
    rival = ["--signal", "speed", "--traces", recorded]
    assert cli.run(["sae", "steer", "sae", "--feature", "0", *rival]) == 0
    rival_vector = Intervention.from_json(capsys.readouterr().out).sites[0].vector
    assert np.linalg.norm(rival_vector) == pytest.approx(np.linalg.norm(chosen.sites[0].vector))
    assert abs(rival_vector[0]) > 0.9 * np.linalg.norm(rival_vector)
    assert "so it has no size" in refused(capsys, *silent, "--way", "project_out", *rival)
    assert "add --traces" in refused(capsys, "steer", "sae", "--feature", "0", "--signal", "speed")
    assert "feature 99 does not exist; 0 to 4" in refused(capsys, "steer", "sae", "--feature", "99")


def test_eval_on_rows(recorded, capsys):
    save_autoencoder("again", identity(scale=2.0))
    ask = ["eval", "sae", "again", "--traces", recorded]
    assert cli.run(["sae", *ask]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("sae: FVU ") and "dead 20.0%" in lines[0]
    assert "stability 1.00 (random 0." in lines[0] and lines[1].startswith("again: FVU")
    assert cli.run(["sae", *ask, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["autoencoders"]
    assert found["again"]["fvu"] > found["sae"]["fvu"] >= 0
    assert found["sae"]["stability"] == pytest.approx(1.0)


def test_eval_of_one_has_no_stability(recorded, capsys):
    assert cli.run(["sae", "eval", "sae", "--traces", recorded, "--json"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert found["autoencoders"]["sae"]["stability"] is None
    assert cli.run(["sae", "eval", "sae", "--traces", recorded]) == 0
    assert "stability" not in capsys.readouterr().out


def test_what_does_not_fit_is_one_line(recorded, traces, tmp_path, capsys):
    steered = str(traces.write(tmp_path / "s.h5", [traces.episode("p", [1.0])], traces.steer()))
    save_autoencoder("wide", identity(7))
    save_autoencoder("far", identity(site="vlm.8.resid_post"))
    for sub in ("features", "eval"):
        assert "holds no sparse autoencoder" in refused(capsys, sub, "no", "--traces", recorded)
        assert "reads rows of 7" in refused(capsys, sub, "wide", "--traces", recorded)
        assert "vlm.8.resid_post" in refused(capsys, sub, "far", "--traces", recorded)
        assert "are steered" in refused(capsys, sub, "sae", "--traces", steered)
        assert "nowhere.h5" in refused(capsys, sub, "sae", "--traces", "nowhere.h5")

"""`vla-trace survive`: the table, the plan, bad input."""

import json

import polars as pl
import pytest

from traces.intervention import Intervention
from tui import cli

TUNED = {"sha256": "cd" * 32, "policy_path": "runs/one/checkpoints/000040/pretrained_model"}


@pytest.fixture
def arms(traces, tmp_path):
    """Steering slows the base by half a centimetre and the tuned policy hardly."""
    paths = []
    for name, cm, steered, options in (
        ("b0", 2.0, False, {}),
        ("bs", 1.5, True, {}),
        ("t0", 3.0, False, TUNED),
        ("ts", 2.9, True, TUNED),
    ):
        episodes = [
            traces.episode(f"p{i}", [cm + 0.1 * i + 0.01 * (i % 3) * steered] * 3) for i in range(8)
        ]
        intervention = traces.steer(name="slow") if steered else None
        path = tmp_path / f"{name}.h5"
        paths.append(str(traces.write(path, episodes, intervention, **options)))
    return paths


def test_the_screen_fits_80_columns_and_says_what_is_left(arms, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(["survive", *arms]) == 0
    out = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    assert "slow α=8 on tabletop task 0 (lift)" in out
    for shown in ("MEED cm/step", "common steps", "success", "-0.491", "-0.091", "+0.400"):
        assert shown in out
    assert "the tuned policy shows 19 % [18, 19] of the base's effect on MEED" in out


def test_json_and_table(arms, tmp_path, capsys):
    folder = tmp_path / "table"
    assert cli.run(["survive", *arms, "--json", "--out", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert [row["measure"] for row in found["rows"]] == ["meed_cm", "meed_common_cm", "success"]
    assert found["missing"] == []
    assert pl.read_parquet(folder / "survival.parquet").to_dicts() == found["rows"]


def test_the_plan_writes_interventions_and_prints_commands(arms, traces, tmp_path, capsys):
    folder = tmp_path / "plan"
    assert cli.run(["survive", *arms[:3]]) == 0
    assert "missing: slow α=8 of pretrained_model@cdcdcdcd" in capsys.readouterr().out
    assert cli.run(["survive", *arms[:3], "--plan", str(folder)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"vla-trace record --policy {TUNED['policy_path']}")
    written = Intervention.from_json((folder / "slow-a8.json").read_text())
    assert written.fingerprint() == traces.steer(name="slow").fingerprint()
    assert cli.run(["survive", *arms, "--plan", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "no arm lacks: vla-trace survive FILES\n")


def test_bad_input_is_one_line(arms, tmp_path, capsys):
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "slow-a8.json").write_text("mine")
    cases = {
        (arms[0],): "no steered condition of a base and a fine-tuned policy",
        (arms[0], "--policy", "x"): "add --plan FOLDER",
        (*arms[:2], "--plan", str(tmp_path / "p")): "which is the fine-tuned policy?",
        (*arms[:3], "--plan", str(tmp_path / "plan")): "holds another intervention",
        (*arms, "--base", "nobody"): "unknown base policy",
    }
    for args, expected in cases.items():
        assert cli.run(["survive", *args]) == 2, args
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1
        assert expected in err
    assert (tmp_path / "plan" / "slow-a8.json").read_text() == "mine"

"""`vla-trace train` and `eval` as typed: what they refuse, in one line."""

import json

import pytest

from tui.cli import run

TRAIN = [
    (["--likelihood", "flow-sd"], "flow-sde"),
    (["--group-size", "1"], "at least 2"),
    (["--replan", "99"], "chunk"),
    (["--task", "push"], "push_cube_to_zone"),
    (["--train", "vision"], "expert"),
    (["--noise-level", "0"], "without noise"),
    (["--policy", "nowhere"], "config.json"),
    (["--resume", "nowhere"], "no such file"),
    (["--resume", "x", "--lr", "1"], "leave --lr out"),
    (["--name", "../x"], "--name"),
    (["--lr", "-1"], "greater than 0"),
]
EVAL = [
    (["--policy", "nowhere"], "config.json"),
    (["--base", "nowhere"], "config.json"),
    (["--task", "push"], "push_cube_to_zone"),
    (["--episodes", "2000"], "evaluation scenes"),
    (["--replan", "0"], "at least 1"),
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "arguments, says",
    [(["train", *a], s) for a, s in TRAIN] + [(["eval", *a], s) for a, s in EVAL],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_2(arguments, says, here, capsys):
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("loading")]
    assert out == ""
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert says in lines[0]
    assert not list(here.iterdir())


def test_a_pickle_is_not_a_checkpoint(here, capsys):
    """Weights in a .pt file are never opened."""
    folder = here / "policy"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"type": "smolvla"}))
    (folder / "model.pt").write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    assert run(["eval", "--policy", "policy"]) == 2
    assert "no model.safetensors" in capsys.readouterr().err
    assert not (here / "opened").exists()

"""`vla-trace sae train` and `export`: what they write, how they go on, what they refuse."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from traces.autoencoder import load_autoencoder
from tui import cli

SITE = "vlm.1.resid_post"
FAST = ["--epochs", "3", "--batch", "32", "--latents", "8", "--k", "2"]


def rows(rng, n=40, width=6):
    basis = np.eye(width)[rng.integers(0, width, n)]
    return (basis * rng.uniform(1, 3, (n, 1)) + 0.1 * rng.normal(size=(n, width))).astype("f4")


@pytest.fixture
def recorded(activations, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    return str(activations(tmp_path / "a.h5", [{SITE: rows(rng)} for _ in range(12)]))


def refused(capsys, *arguments):
    """The one line of an error with exit 2."""
    assert cli.run(["sae", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    return line


def test_seeds_are_trained_and_told(recorded, capsys):
    assert cli.run(["sae", "train", recorded, "--site", SITE, "--seeds", "2", *FAST]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[:2] for line in out.splitlines()] == [
        [f"sae/{SITE}/seed{seed}", "FVU"] for seed in (0, 1)
    ]
    assert "8 latents, k 2" in err and "warning: fewer than 50 rows a latent" not in err
    assert f"next: vla-trace sae eval sae/{SITE}/seed*" in err
    sae = load_autoencoder(f"sae/{SITE}/seed1")
    about = sae.metadata
    assert (sae.site, about["tower"], about["layer"], about["kind"]) == (
        SITE,
        "vlm",
        1,
        "resid_post",
    )
    assert (about["rows"], about["tokens"], about["policy_sha256"]) == ("mean", "all", "ab" * 32)
    assert about["config"]["seed"] == 1 and about["epochs"] == 3
    log = Path(f"sae/{SITE}/seed1/training.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in log] == [1, 2, 3]


def test_json(recorded, capsys):
    arguments = ["sae", "train", recorded, "--site", SITE, "--seeds", "1", *FAST, "--json"]
    assert cli.run([*arguments, "--latents", "48"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert found["config"]["latents"] == 48
    (one,) = found["autoencoders"]
    assert one["fvu"] >= 0 and one["l0"] <= 2 and sum(one["density"]["features"]) > 0
    assert "warning: fewer than 50 rows a latent" in err


def test_what_is_there_stays_without_force(recorded, capsys):
    train = ["train", recorded, "--site", SITE, "--seeds", "1", "--out", "o", *FAST]
    assert cli.run(["sae", *train]) == 0
    first = load_autoencoder("o/seed0").sha256
    capsys.readouterr()
    assert "holds an autoencoder; --force replaces it" in refused(capsys, *train)
    assert cli.run(["sae", *train, "--resume"]) == 0  # nothing is left to do
    assert load_autoencoder("o/seed0").sha256 == first
    capsys.readouterr()
    assert "trained with other settings" in refused(capsys, *train, "--resume", "--lr", "0.1")
    assert "give one of them" in refused(capsys, *train, "--resume", "--force")
    assert cli.run(["sae", *train, "--force", "--lr", "0.1"]) == 0
    assert load_autoencoder("o/seed0").sha256 != first


def test_ctrl_c_then_resume_gives_the_same_bits(recorded, capsys):
    """A process of its own is interrupted in the middle of an epoch."""
    train = ["train", recorded, "--site", SITE, "--seeds", "1", *FAST, "--epochs", "150"]
    train += ["--patience", "150", "--batch", "16"]
    root = Path(cli.__file__).parents[1]
    run = "import sys; sys.path.insert(0, sys.argv.pop(1)); from tui.cli import run; "
    command = [sys.executable, "-c", run + "sys.exit(run(sys.argv[1:]))", str(root), "sae", *train]
    process = subprocess.Popen(
        [*command, "--out", "cut"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    log, until = Path("cut/seed0/training.jsonl"), time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") >= 3) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "error: interrupted" and "Traceback" not in err
    assert not Path("cut/seed0/cfg.json").exists()
    assert "a training that stopped; go on: --resume" in refused(capsys, *train, "--out", "cut")
    other = refused(capsys, *train, "--out", "cut", "--resume", "--lr", "0.1")
    assert "other settings or rows" in other
    for options in (["--out", "cut", "--resume"], ["--out", "whole"]):
        assert cli.run(["sae", *train, *options]) == 0
    hashes = {load_autoencoder(f"{name}/seed0").sha256 for name in ("cut", "whole")}
    assert len(hashes) == 1


def test_batchtopk_is_written_as_jumprelu(recorded, capsys):
    more = [
        "--seeds",
        "1",
        *FAST,
        "--architecture",
        "batchtopk",
        "--normalisation",
        "expected_norm",
    ]
    assert cli.run(["sae", "train", recorded, "--site", SITE, *more, "--out", "b"]) == 0
    sae = load_autoencoder("b/seed0")
    assert (sae.architecture, sae.normalisation) == ("jumprelu", "none")
    capsys.readouterr()
    assert "expected topk" in refused(capsys, "export", "b/seed0", "d")


def test_export(recorded, capsys):
    assert cli.run(["sae", "train", recorded, "--site", SITE, "--seeds", "1", *FAST]) == 0
    capsys.readouterr()
    folder = f"sae/{SITE}/seed0"
    assert cli.run(["sae", "export", folder, "d"]) == 0
    out, err = capsys.readouterr()
    assert out == "d\n" and "give it rows after layer_norm" in err
    assert sorted(path.name for path in Path("d").iterdir()) == ["ae.pt", "config.json"]
    assert "--force replaces it" in refused(capsys, "export", folder, "d")
    assert cli.run(["sae", "export", folder, "d", "--force"]) == 0
    capsys.readouterr()
    assert "holds no sparse autoencoder" in refused(capsys, "export", "nowhere", "e")


def test_bad_input_is_one_line(recorded, activations, traces, tmp_path, capsys):
    def told(*options, file=recorded):
        return refused(capsys, "train", file, *options)

    assert "vlm.1.resid_post" in told("--site", "vlm.9.resid_post")
    assert "unknown architecture" in told("--site", SITE, "--architecture", "gated")
    assert "k = 9 of 4 latents" in told("--site", SITE, "--latents", "4", "--k", "9")
    assert "unknown device" in told("--site", SITE, "--device", "tpu")
    assert "batch must be at least 1" in told("--site", SITE, "--batch", "0")
    assert "lr must be at least 0" in told("--site", SITE, "--lr", "nan")
    few = activations(tmp_path / "few.h5", [{SITE: np.ones((3, 6), np.float32)}] * 3)
    assert "rows are too few to train on; record more" in told("--site", SITE, file=str(few))
    bad = {SITE: np.full((40, 6), np.nan, np.float32)}
    bad = activations(tmp_path / "bad.h5", [bad] * 3, dtype="float32")
    assert "are finite" in told("--site", SITE, file=str(bad))
    steered = traces.write(tmp_path / "s.h5", [traces.episode("p", [1.0])], traces.steer())
    assert "are steered" in told("--site", "vlm.1.ffn_act", file=str(steered))
    bare = traces.write(tmp_path / "n.h5", [traces.episode("p", [1.0], ffn_act=None)] * 1)
    assert "no activations in these traces" in told("--site", SITE, file=str(bare))
    assert "unknown sae command 'trian'" in refused(capsys, "trian")
    assert not Path("sae").exists()

"""Recording, training, judging and steering on the organism, as typed."""

import json
import re

import h5py
import pytest

from traces.collection import open_traces
from tui.cli import run

SITE = "vlm.2.resid_post"  # what the organism's reader reads
TRAIN = ["--site", SITE, "--seeds", "1", "--epochs", "30", "--latents", "16", "--batch", "16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six episodes with frames, and an autoencoder of them that is described."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("organism")
        patch.chdir(folder)
        record = ["record", "--policy", "organism", "--episodes", "6", "--keep", "frames"]
        assert (
            run([*record, "--capture", "light", "--replan", "5", "--out", "t", "--name", "a"]) == 0
        )
        (path,) = (folder / "t").rglob("*.h5")
        path.rename(folder / "base.h5")
        assert run(["sae", "train", "base.h5", *TRAIN, "--out", "s"]) == 0
        assert run(["sae", "features", "s/seed0", "--traces", "base.h5"]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def parsed(text):
    return json.loads(text, parse_constant=lambda name: pytest.fail(name))


def test_eval_asks_the_policy_again(capsys):
    ask = ["sae", "eval", "s/seed0", "--traces", "base.h5", "--policy", "organism"]
    ask += ["--actions", "base.h5", "--episodes", "2", "--rollouts", "2"]
    assert run([*ask, "--json"]) == 0
    (row,) = parsed(capsys.readouterr().out)["autoencoders"].values()
    actions, rollouts = row["actions"], row["rollouts"]
    assert actions["episodes"] == 2 and actions["mse"] >= 0
    assert actions["recovered_mean"] <= 1 and len(actions["recovered_mean_ci"]) == 2
    assert rollouts["n"] == 2
    assert rollouts["success"] <= 2 and rollouts["base_success"] <= 2


def test_one_episode_has_no_interval(capsys):
    ask = ["sae", "eval", "s/seed0", "--traces", "base.h5", "--policy", "organism"]
    ask += ["--actions", "base.h5", "--episodes", "1"]
    assert run(ask) == 0
    out = capsys.readouterr().out
    assert re.search(r"actions: -?\d\.\d+ recovered against the mean, .*, 1 episode,", out)


def test_another_policy_is_refused(capsys):
    ask = ["sae", "eval", "s/seed0", "--traces", "base.h5", "--actions", "base.h5"]
    assert run(ask) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert "was trained on organism" in line and "--other-policy" in line


@pytest.mark.parametrize("way", ["set", "add"])
def test_a_feature_is_steered_with_its_controls(capsys, way):
    described = parsed(_table(capsys))
    feature = max(described["coverage"], key=lambda row: row["coverage"])["feature"]
    name = f"{way}.json"
    steer = ["sae", "steer", "s/seed0", "--feature", str(feature), "--way", way, "-o", name]
    assert run([*steer, "--concept", "fast"]) == 0
    record = ["record", "--policy", "organism", "--episodes", "1", "--replan", "10"]
    record += ["--intervention", name, "--alpha", "2", "--controls", "light", "--no-baseline"]
    assert run([*record, "--capture", "light", "--out", f"steered-{way}"]) == 0
    capsys.readouterr()
    with open_traces(f"steered-{way}") as traces:
        roles = sorted(one.header.condition.role for one in traces.recordings())
        header = next(
            one.header for one in traces.recordings() if one.header.condition.role == "steered"
        )
        steered = [site.name for site in traces.sites() if site.name.endswith(".steered")]
    assert roles.count("random") == 2 and "prompt" in roles
    assert ("null" in roles) == (way == "add")
    assert steered == []  # features are no neurons
    assert header.intervention.provenance["feature"] == feature


def _table(capsys):
    capsys.readouterr()
    assert run(["sae", "features", "s/seed0", "--traces", "base.h5", "--json"]) == 0
    return capsys.readouterr().out


def test_frames_are_needed_to_ask_again(capsys, folder):
    bare = folder / "bare.h5"
    bare.write_bytes((folder / "base.h5").read_bytes())
    with h5py.File(bare, "r+") as file:
        del file["frames"]
    ask = ["sae", "eval", "s/seed0", "--traces", "base.h5", "--policy", "organism"]
    assert run([*ask, "--actions", str(bare)]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert "--keep frames" in line

"""One value vector of the organism is rotated: exactly that neuron is found."""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from analysis.shifts import activation_shifts
from engine import sites
from engine.config import RecordConfig
from engine.policies import organism as planted
from engine.policies.smolvla import load_policy
from engine.record import record
from engine.rescore import asked_like, rescore
from engine.weight_diff import angles, rank_biased_overlap, stable_rank, weight_diff
from traces.collection import open_traces
from traces.condition import BASELINE
from traces.errors import UserError
from tui import cli

LAYER, NEURON = planted.FAST
DEGREES = 25.0


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def organism():
    return load_policy("organism")


@pytest.fixture(scope="module")
def rotated(organism):
    """The organism with the fast neuron's value vector turned within a plane, its length kept."""
    changed = replace(
        organism, name="rotated", sha256="ab" * 32, policy=copy.deepcopy(organism.policy)
    )
    weight = sites.ffn_input(changed.policy, "vlm", LAYER).weight
    v = weight[:, NEURON].double()
    aside = torch.linalg.svd(v[None], full_matrices=True).Vh[1] * v.norm()
    turn = math.radians(DEGREES)
    with torch.no_grad():
        weight[:, NEURON] = math.cos(turn) * v + math.sin(turn) * aside
    return changed


@pytest.fixture(scope="module")
def found(organism, rotated):
    return weight_diff(organism, rotated)


def test_exactly_that_neuron(found):
    moved = found.values.filter(~pl.col("frozen"))
    assert moved.select("tower", "layer", "neuron").rows() == [("vlm", LAYER, NEURON)]
    row = moved.row(0, named=True)
    assert row["angle"] == pytest.approx(DEGREES, abs=1e-3)
    assert row["norm_change"] == pytest.approx(0, abs=1e-6)
    assert row["delta"] == pytest.approx(2 * math.sin(math.radians(DEGREES / 2)), abs=1e-5)
    assert row["top_kept"] < 1
    assert row["top_overlap"] < 1
    others = found.values.filter("frozen")
    assert others.select("angle", "norm_change", "delta").max().row(0) == (0, 0, 0)
    assert others.select("angle", "norm_change", "delta").min().row(0) == (0, 0, 0)
    assert others.filter(tower="vlm")["top_kept"].min() == 1
    assert others.filter(tower="expert")["top_kept"].null_count() == len(
        others.filter(tower="expert")
    )


def test_every_other_matrix_is_frozen(found, organism):
    moved = found.matrices.filter(~pl.col("frozen"))
    assert moved["parameter"].str.ends_with(f"layers.{LAYER}.mlp.down_proj.weight").to_list() == [
        True
    ]
    assert moved["changed"].item() == pytest.approx(1 / planted.TEXT["intermediate_size"])
    assert found.matrices.filter("frozen").select("delta_norm", "max_abs").max().row(0) == (0, 0)
    towers = {row["tower"]: row for row in found.towers.to_dicts()}
    assert towers["expert"]["frozen"]
    assert towers["expert"]["relative"] == 0
    assert towers["vlm"]["changed"] == 1
    assert {"vision", "connector", "lm_head", "state_proj"} <= set(towers)
    assert sum(row["parameters"] for row in towers.values()) == len(found.matrices)


def test_activations_find_the_first_layer_that_it_reaches(organism, rotated, tmp_path, monkeypatch):
    """What is computed before the neuron's output is frozen; what follows is not."""
    monkeypatch.chdir(tmp_path)
    config = RecordConfig(episodes=1, replan=10, keep=("frames",), policy="organism")
    (path,) = record(config, organism, [BASELINE], "base")
    replays = {
        one.name: rescore(path, asked_like(path, one), tmp_path / one.name, "again")
        for one in (organism, rotated)
    }
    with open_traces(path) as base, open_traces(*replays["rotated"]) as tuned:
        shifts = activation_shifts(base, tuned)
    frozen = dict(shifts.sites.select("site", "frozen").rows())
    last = {f"vlm.{LAYER}.ffn_act"} | {
        f"vlm.{layer}.{kind}" for layer in range(LAYER) for kind in ("ffn_act", "resid_post")
    }
    assert {site for site, still in frozen.items() if still} == last
    assert shifts.neurons.filter("frozen").select("shift", "d", "ks").max().row(0) == (0, 0, 0)
    with open_traces(path) as base, open_traces(*replays["organism"]) as same:
        assert activation_shifts(base, same).sites["frozen"].all()


def test_the_command_says_what_is_frozen(organism, capsys):
    assert cli.run(["diff", "organism", "organism", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["compared"] == "weights"
    assert all(row["frozen"] for row in found["towers"])
    assert cli.run(["diff", "organism", "organism"]) == 0
    text = capsys.readouterr().out
    assert text.count("frozen") == len(found["towers"]) + 2  # and a strip a tower
    assert "both are the same weights" in text
    assert cli.run(["diff", "organism", "organism", "--site", "vlm"]) == 2
    assert "these are policies" in capsys.readouterr().err


def test_angles_are_exact_where_arccos_is_not():
    v = torch.eye(3, dtype=torch.float64)[:1]
    w = torch.tensor([[1.0, 1e-9, 0.0]], dtype=torch.float64)
    assert float(angles(v, w)) == pytest.approx(math.degrees(1e-9), rel=1e-6)
    assert float(angles(v, -v)) == pytest.approx(180)
    assert float(angles(3 * v, v)) == 0
    assert angles(v, 0 * v).isnan().all()


def test_one_neuron_is_a_change_of_rank_one(found):
    (changed,) = found.matrices.filter(~pl.col("frozen"))["stable_rank"]
    assert changed == pytest.approx(1, abs=1e-6)


def test_stable_rank_against_singular_values():
    torch.manual_seed(0)
    for shape in ((7, 4), (4, 7)):
        delta = 1e-5 * torch.randn(*shape, dtype=torch.float64)
        values = torch.linalg.svdvals(delta)
        expected = float((values**2).sum() / values[0] ** 2)
        assert stable_rank(delta) == pytest.approx(expected)
    assert stable_rank(torch.eye(5)) == pytest.approx(5)
    assert stable_rank(torch.zeros(2, 2)) is None
    assert stable_rank(torch.ones(3)) is None


def test_rank_biased_overlap_by_hand():
    one = np.array([[1, 2, 3]])
    assert rank_biased_overlap(one, one) == pytest.approx([1])
    assert rank_biased_overlap(one, one + 10) == pytest.approx([0])
    shares = (0, 2 / 2, 2 / 3)  # of 1 2 3 and 2 1 4, at depths 1, 2 and 3
    expected = shares[2] * 0.9**3 + 0.1 / 0.9 * sum(
        x * 0.9**d for d, x in enumerate(shares, start=1)
    )
    assert rank_biased_overlap(one, np.array([[2, 1, 4]])) == pytest.approx([expected])


def test_another_architecture_is_refused(organism):
    other = replace(organism, name="other", policy=copy.deepcopy(organism.policy))
    other.policy.model.state_proj = nn.Linear(32, 7)
    with pytest.raises(
        UserError, match=r"not the same architecture: .*state_proj.weight is 64 x 8"
    ):
        weight_diff(organism, other)
    del other.policy.model.state_proj
    with pytest.raises(
        UserError, match=r"only one of them has model\.state_proj\.bias \(and 1 more\)"
    ):
        weight_diff(organism, other)
    assert weight_diff(organism, organism).notes[0].startswith("both are the same weights")

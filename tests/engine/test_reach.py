"""Reach by structure and by trial, on the shipped policy and on one whose layer writes nothing."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine import sites
from engine.policies.smolvla import load_policy
from engine.reach import EPSILON, first_observations, reach
from tui import cli


@pytest.fixture(scope="module")
def found(loaded, requests):
    return {site.site: site for site in reach(loaded, requests)}


def test_every_ffn_of_both_towers_is_tried(found):
    assert list(found) == [f"{t}.{i}.ffn_act" for t in ("vlm", "exp") for i in range(6)]
    assert all(site.agrees for site in found.values())
    assert not found["vlm.5.ffn_act"].trial
    assert found["vlm.5.ffn_act"].max_change == found["vlm.5.ffn_act"].rms_change == 0.0
    others = [site for name, site in found.items() if name != "vlm.5.ffn_act"]
    assert all(site.max_change >= site.rms_change > 1e-4 for site in others)


def test_how_much_is_per_unit_of_relative_change(loaded, requests, found):
    """Layer 2's down projection a tenth larger does the same as its input a tenth larger."""
    from engine.actor import Actor
    from engine.likelihoods.flow_sde import FlowSDE

    larger = copy.deepcopy(loaded.policy)
    with torch.no_grad():
        sites.ffn_input(larger, "vlm", 2).weight.mul_(1 + EPSILON)
    chunks = [
        np.stack([d.action for d in actor.decide(requests)])
        for policy in (loaded.policy, larger)
        for actor in [Actor(replace(loaded, policy=policy), FlowSDE(5, 0.0), 10, wanted=())]
    ]
    change = (chunks[1] - chunks[0]).astype(float) / EPSILON
    assert found["vlm.2.ffn_act"].max_change == pytest.approx(np.abs(change).max(), rel=1e-2)
    rms = np.sqrt(np.square(change).mean())
    assert found["vlm.2.ffn_act"].rms_change == pytest.approx(rms, rel=1e-2)


def test_a_layer_that_should_act_and_does_not_is_no_agreement(requests):
    silent = copy.deepcopy(load_policy("organism").policy)
    with torch.no_grad():
        sites.ffn_input(silent, "expert", 1).weight.zero_()
    found = reach(replace(load_policy("organism"), policy=silent), requests[:2])
    assert [site.site for site in found if not site.agrees] == ["exp.1.ffn_act"]


def test_observations_are_those_of_a_recording(requests):
    seen = first_observations("tabletop", 0, 2)
    for mine, theirs in zip(seen, requests[:2], strict=True):
        for camera, picture in theirs.pixels.items():
            np.testing.assert_array_equal(mine.pixels[camera], picture)
        np.testing.assert_array_equal(mine.state, theirs.state)


def test_the_command_prints_json_and_a_table(capsys):
    assert cli.run(["reach", "organism", "--observations", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["policy"] == "organism"
    dead = [site["site"] for site in printed["sites"] if not site["structure"]]
    assert dead == ["vlm.3.ffn_act"]
    assert all(site["agrees"] for site in printed["sites"])
    assert cli.run(["reach", "organism", "--observations", "1"]) == 0
    assert "read by nothing  no bit changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no config.json in 'nothing'; give 'smolvla-tabletop', 'organism' or"),
        (["organism", "--observations", "9"], "expected 1 to 8"),
        (["organism", "--seed", "-1"], "expected 0 or larger"),
        (["organism", "--task", "9"], "unknown task '9'"),
        (["organism", "--suite", "kitchen"], "unknown suite 'kitchen'"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments, message, capsys):
    assert cli.run(["reach", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-1]
    assert sum(line.startswith("error:") for line in lines) == 1

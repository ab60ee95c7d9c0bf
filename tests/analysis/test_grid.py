"""The arms of a sweep."""

import pytest

from analysis.grid import COUNTERFACTUALS, ablation_arms, once, prompt_arms
from traces.condition import BASELINE, Condition


def test_every_block_is_silenced_once():
    arms = ablation_arms([("vlm", 0, True), ("vlm", 1, False), ("expert", 3, True)])
    assert [arm.label for arm in arms] == ["vlm 0 off", "vlm 1 off", "expert 3 off"]
    assert {arm.intervention.operator for arm in arms} == {"zero_ablation"}
    assert {arm.alpha for arm in arms} == {None}
    assert [arm.role for arm in arms] == ["steered", "null", "steered"]


@pytest.mark.parametrize("name", COUNTERFACTUALS)
def test_every_prompt_says_something_else(name):
    (arm,) = prompt_arms([name])
    said = arm.told("pick up the red cube", "pick up the blue cube")
    assert said != "pick up the red cube"
    assert arm.role == "prompt"


def test_the_baseline_comes_first_and_nothing_twice():
    quick = Condition(prompt="{} quickly")
    assert once([quick, BASELINE, quick]) == [BASELINE, quick]

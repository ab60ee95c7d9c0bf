"""Arms of an experiment: role, name and words follow from what is done."""

from dataclasses import replace

import pytest

from traces.condition import BASELINE, Condition
from traces.intervention import Intervention, Site

FAST = Intervention("fast", "overwrite", (Site("vlm", 1, (1, 2)),), 8.0)
RANDOM = replace(FAST, name="random 3 for fast", provenance={"control": "random"})
ABLATION = Intervention("vlm 1 off", "zero_ablation", (Site("vlm", 1, (1, 2)),), 0.0)


@pytest.mark.parametrize(
    ("condition", "role", "alpha", "label", "slug"),
    [
        (BASELINE, "baseline", None, "baseline", "baseline"),
        (Condition(FAST), "steered", 8.0, "fast α=8", "fast-a8"),
        (Condition(FAST.with_coefficient(-0.5)), "steered", -0.5, "fast α=-0.5", "fast-a-0.5"),
        (Condition(RANDOM), "random", 8.0, "random 3 for fast α=8", "random-3-for-fast-a8"),
        (Condition(ABLATION), "steered", None, "vlm 1 off", "vlm-1-off"),
        (Condition(prompt="{} quickly"), "prompt", None, 'told "... quickly"', "told-quickly"),
        (Condition(prompt=""), "prompt", None, 'told ""', "told"),
        (Condition(FAST, "{} now"), "steered", 8.0, 'fast told "... now" α=8', "fast-told-now-a8"),
    ],
)
def test_role_dose_and_name(condition, role, alpha, label, slug):
    assert (condition.role, condition.alpha) == (role, alpha)
    assert (condition.label, condition.slug) == (label, slug)


def test_a_role_that_does_not_exist_is_none():
    odd = Intervention("x", "overwrite", FAST.sites, 1.0, provenance={"control": ["null"]})
    assert Condition(odd).role == "steered"


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("{}", "pick up {x}"),
        ("{} quickly", "pick up {x} quickly"),
        ("do not {}", "do not pick up {x}"),
        ("{other}", "pick up {y}"),
        ("", ""),
        ("wait {", "wait {"),
    ],
)
def test_a_prompt_is_filled_in_with_texts_of_any_kind(prompt, told):
    assert Condition(prompt=prompt).told("pick up {x}", "pick up {y}") == told

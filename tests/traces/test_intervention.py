import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.errors import BadIntervention, UnknownName
from traces.intervention import (
    DIRECTION_OPERATORS,
    FEATURE_OPERATORS,
    OFFSET_OPERATORS,
    OPERATORS,
    PLAIN_OPERATORS,
    SAE_OPERATORS,
    TOKEN_GROUPS,
    Donor,
    Intervention,
    Site,
)

finite = st.floats(allow_nan=False, allow_infinity=False)
windows = st.none() | st.tuples(st.integers(0, 50), st.integers(51, 100))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)

scenes = st.just("*") | st.integers(0, 999).map(str)
donors = st.builds(Donor, st.text(min_size=1), st.dictionaries(scenes, st.text(), max_size=2))


@st.composite
def sites_for(draw, operator):
    layers = draw(st.lists(st.integers(0, 40), min_size=1, max_size=4, unique=True))
    sites = []
    for layer in layers:
        neurons, vector, offset, kind = (), (), (), ""
        if operator in DIRECTION_OPERATORS:
            vector = draw(st.lists(finite, min_size=1, max_size=5).filter(any))
        elif operator == "patch" and draw(st.booleans()):
            kind = "resid_post"
        elif operator in SAE_OPERATORS:
            kind = draw(st.sampled_from(["", "ffn_act", "resid_post"]))
            least, most = (1, 5) if operator in FEATURE_OPERATORS else (0, 0)
            features = st.lists(st.integers(0, 99), min_size=least, max_size=most, unique=True)
            neurons = draw(features)
            if operator == "sae_set" and draw(st.booleans()):
                vector = draw(st.lists(finite, min_size=len(neurons), max_size=len(neurons)))
        else:
            least = 0 if operator in PLAIN_OPERATORS else 1
            numbers = st.lists(st.integers(0, 4000), min_size=least, max_size=5, unique=True)
            neurons = draw(numbers)
            each = st.lists(finite, min_size=len(neurons), max_size=len(neurons))
            if operator == "mean_ablation" or (
                operator not in PLAIN_OPERATORS and draw(st.booleans())
            ):
                vector = draw(each)
            if operator in OFFSET_OPERATORS and draw(st.booleans()):
                offset = draw(each)
        tower = draw(st.sampled_from(["vlm", "expert"]))
        sites.append(Site(tower, layer, neurons, vector, offset, kind))
    return tuple(sites)


@st.composite
def interventions(draw):
    operator = draw(st.sampled_from(OPERATORS))
    return Intervention(
        name=draw(st.text()),
        operator=operator,
        sites=draw(sites_for(operator)),
        coefficient=draw(finite),
        token_groups=draw(
            st.lists(st.sampled_from(TOKEN_GROUPS), min_size=1, max_size=3, unique=True)
        ),
        step_window=draw(windows),
        denoise_window=draw(windows),
        sae="sae/seed0" if operator in SAE_OPERATORS else "",
        sae_sha256="ab" * 32 if operator in SAE_OPERATORS else "",
        provenance=draw(st.dictionaries(st.text(), json_values, max_size=3)),
        every=draw(st.integers(1, 9)),
        donor=draw(donors) if operator == "patch" else None,
    )


@given(interventions())
def test_json_round_trip_is_exact(intervention):
    copy = Intervention.from_json(intervention.to_json())
    assert copy == intervention
    assert copy.to_json() == intervention.to_json()
    assert copy.fingerprint() == intervention.fingerprint()


@given(interventions(), finite)
def test_only_the_coefficient_changes_with_the_dose(intervention, alpha):
    other = intervention.with_coefficient(alpha)
    assert replace(other, coefficient=intervention.coefficient) == intervention
    same = json.dumps(alpha) == json.dumps(intervention.coefficient)
    assert (other.fingerprint() == intervention.fingerprint()) == same


FAST = Intervention("fast", "overwrite", (Site("vlm", 1, (3, 5)), Site("vlm", 2, (7,))), 8)


def test_fingerprint_is_of_what_acts():
    assert replace(FAST, name="x", provenance={"a": 1}).fingerprint() == FAST.fingerprint()
    for changes in (
        {"operator": "add"},
        {"sites": FAST.sites[:1]},
        {"token_groups": ("state",)},
        {"step_window": (0, 5)},
        {"denoise_window": (0, 5)},
        {"every": 2},
        {"sites": (replace(FAST.sites[0], offset=(1.0, 2.0)), FAST.sites[1])},
    ):
        assert replace(FAST, **changes).fingerprint() != FAST.fingerprint()


def test_fingerprint_is_the_same_in_every_release():
    assert FAST.fingerprint() == (
        "d869b913b13c3a5ae7dd065de35df2ec1a1fc5391289fa49b2e287a763047b5f"
    )


def test_neuron_count():
    assert FAST.neuron_count == 3


def test_numpy_numbers_become_plain_ones():
    site = Site("vlm", np.int64(1), np.array([3, 5]), np.array([0.5, 1.5], np.float32))
    assert site == Site("vlm", 1, (3, 5), (0.5, 1.5))
    assert Intervention("n", "add", [site], np.float32(2)).to_json().count("numpy") == 0


def test_keys_of_later_versions_are_ignored():
    content = json.loads(FAST.to_json())
    content["colour"] = "red"
    content["sites"][0]["head"] = 4
    assert Intervention.from_json(json.dumps(content)) == FAST


SAE = {"operator": "sae_set", "sae": "sae/seed0", "sae_sha256": "ab" * 32}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sites": ()}, "sites: expected at least one site"),
        ({"sites": (Site("vlm", 1, (3,)), Site("vlm", 1, (4,)))}, "each (tower, layer) once"),
        ({"sites": (Site("vlm", 1),)}, "neurons: expected at least one for overwrite"),
        ({"sites": (Site("vlm", 1, (3,), (1.0, 2.0)),)}, "vector: expected 0 or 1 numbers"),
        ({"operator": "mean_ablation"}, "vector: expected 2 numbers for mean_ablation"),
        ({"operator": "project_out"}, "neurons: expected none for project_out"),
        ({"operator": "sae_set"}, "sae: expected one for the sae operators"),
        ({"sae_sha256": "ab"}, "sae_sha256: expected one for the sae operators and none for"),
        (SAE | {"operator": "sae_splice"}, "neurons: expected none for sae_splice"),
        (SAE | {"sites": (Site("vlm", 1),)}, "neurons: expected at least one feature"),
        (SAE | {"sites": (Site("vlm", 1, (3,), (1.0, 2.0)),)}, "vector: expected 0 or 1 numbers"),
        (
            SAE | {"operator": "sae_scale", "sites": (Site("vlm", 1, (3,), (1.0,)),)},
            "vector: expected 0 numbers for sae_scale",
        ),
        ({"coefficient": float("nan")}, "coefficient: expected finite numbers, found nan"),
        ({"coefficient": "much"}, "coefficient: expected finite numbers, found 'much'"),
        ({"token_groups": ()}, "at least one token group"),
        ({"every": 0}, "every: expected 1 or larger"),
        ({"sites": (Site("vlm", 1, (3,), (), (1.0, 2.0)),)}, "offset: expected 0 or 1 numbers"),
        ({"sites": (Site("vlm", 1, (3,), kind="resid_post"),)}, "kind: expected none"),
        ({"operator": "add", "sites": (Site("vlm", 1, (3,), (), (1.0,)),)}, "offset: expected "),
        ({"operator": "patch"}, "donor: expected a recording for patch"),
        ({"donor": Donor("x.h5")}, "none for other operators"),
        ({"step_window": (5, 5)}, "step_window: expected start before stop"),
        ({"denoise_window": (1, 2, 3)}, "denoise_window: expected two whole numbers"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(BadIntervention) as caught:
        replace(FAST, **changes)
    assert message in str(caught.value)


def test_a_direction_must_point_somewhere():
    with pytest.raises(BadIntervention, match="a direction for add_direction"):
        Intervention("d", "add_direction", (Site("vlm", 1, (), (0.0, 0.0)),), 1.0)


@pytest.mark.parametrize("operator", PLAIN_OPERATORS)
def test_no_neurons_mean_the_whole_layer(operator):
    donor = Donor("x.h5") if operator == "patch" else None
    whole = Intervention("w", operator, (Site("vlm", 1),), 0.5, donor=donor)
    assert Intervention.from_json(whole.to_json()) == whole
    assert whole.kind(whole.sites[0]) == "ffn_act"


def test_a_donor_names_scenes_and_episodes():
    with pytest.raises(BadIntervention, match="scene seed"):
        Donor("x.h5", {"first": "run/u0"})
    with pytest.raises(BadIntervention, match="the path of a trace"):
        Donor("")
    text = Intervention("p", "patch", (Site("vlm", 1),), 1.0, donor=Donor("x.h5")).to_json()
    with pytest.raises(BadIntervention, match="also path"):
        Intervention.from_json(text.replace('"path"', '"file"'))


def test_windows_and_every_count_decisions():
    """Asked every 5 steps: decisions at 0, 5, 10, 15, 20."""
    chosen = replace(FAST, step_window=(3, 20), every=2)
    assert [d for d in range(5) if chosen.acts_at(5 * d, d)] == [2]
    assert [d for d in range(5) if replace(chosen, every=1).acts_at(5 * d, d)] == [1, 2, 3]
    assert [d for d in range(5) if replace(FAST, every=3).acts_at(5 * d, d)] == [0, 3]


def test_a_null_control_says_so():
    assert not FAST.is_null_control
    assert replace(FAST, provenance={"control": "null"}).is_null_control


def test_files_of_version_0_1_load():
    old = json.loads(FAST.to_json())
    for later in ("every", "donor"):
        del old[later]
    for site in old["sites"]:
        del site["offset"], site["kind"]
    assert Intervention.from_json(json.dumps(old)) == FAST


@pytest.mark.parametrize("neurons", [(3, 3), (-1,), (1.5,), (True,), ("a",)])
def test_neurons_are_different_whole_numbers(neurons):
    with pytest.raises(BadIntervention, match="neurons"):
        Site("vlm", 1, neurons)


def test_unknown_operator_and_token_group_offer_a_near_name():
    with pytest.raises(UnknownName, match="did you mean overwrite"):
        replace(FAST, operator="overwite")
    with pytest.raises(UnknownName, match="did you mean language"):
        replace(FAST, token_groups=("langauge",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ("[]", "expected a JSON object"),
        ('{"name": "x"}', "expected also coefficient, operator, sites"),
        ('{"name": "x", "operator": "add", "coefficient": 1, "sites": 3}', "a list of sites"),
        ('{"name": "x", "operator": "add", "coefficient": 1, "sites": [3]}', "a JSON object"),
        (
            '{"name": "x", "operator": "add", "coefficient": 1, "sites": [{"tower": "vlm"}]}',
            "expected also layer",
        ),
        (
            '{"name": "x", "operator": "add", "coefficient": 1, '
            '"sites": [{"tower": "vlm", "layer": 1, "neurons": 4}]}',
            "fields of the right type",
        ),
        (
            '{"name": "x", "operator": [], "coefficient": 1, '
            '"sites": [{"tower": "vlm", "layer": 1, "neurons": [4]}], "token_groups": 5}',
            "fields of the right type",
        ),
    ],
)
def test_unreadable_json_is_the_users_to_fix(text, message):
    with pytest.raises(BadIntervention) as caught:
        Intervention.from_json(text)
    assert message in str(caught.value)

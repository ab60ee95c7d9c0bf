"""Controls of directions and features: as long, as frequent, and where nothing reads."""

import numpy as np
import polars as pl
import pytest

from analysis.controls import LEVELS, can_be_matched, family
from analysis.direction_controls import (
    POOL,
    has_controls,
    random_directions,
    random_features,
    with_controls,
)
from traces.errors import UserError
from traces.intervention import Intervention, Site

SAE = {"sae": "sae/seed0", "sae_sha256": "ab" * 32}


def direction(**provenance):
    site = Site("vlm", 1, vector=(3.0, 0.0, 4.0))
    return Intervention("d", "add_direction", (site,), 1.0, provenance=provenance)


def feature(operator="sae_set", features=(3,)):
    vector = tuple(float(f) for f in features) if operator == "sae_set" else ()
    return Intervention("f", operator, (Site("vlm", 1, features, vector),), 1.0, **SAE)


def table(n=100):
    """Feature f is active in f % of the episodes and reaches 10 f; every fifth is silent."""
    number = np.arange(n)
    coverage = np.where(number % 5, number / 100, 0.0)
    return pl.DataFrame({"feature": number, "coverage": coverage, "strength": 10.0 * number})


def test_which_have_controls():
    assert all(map(has_controls, (direction(), feature(), feature("sae_scale"))))
    places = tuple(Site("vlm", layer, vector=(1.0,)) for layer in (0, 1))
    two = Intervention("t", "add_direction", places, 1.0)
    assert not has_controls(two)
    assert not has_controls(Intervention("s", "sae_splice", (Site("vlm", 1),), 1.0, **SAE))
    assert not can_be_matched(feature("sae_scale"))  # features are no neurons


def test_random_directions_are_as_long_and_point_anywhere():
    found = random_directions(direction(), 200)
    vectors = np.array([one.sites[0].vector for one in found])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 5.0)
    assert np.linalg.norm(vectors.mean(axis=0)) < 1.0
    assert len({one.fingerprint() for one in found}) == 200
    assert found == random_directions(direction(), 200)
    assert found[7].provenance == {
        **{"control": "random", "matched_to": family(direction()), "seed": 0, "number": 7}
    }


def test_all_conditions_of_a_direction():
    made = with_controls(direction(concept="fast"), [1.0, -2.0], "light", dead_layer=3)
    steered = [one.intervention for one in made if one.intervention]
    assert [one.coefficient for one in steered[:2]] == [1.0, -2.0]
    assert made[2].prompt == "{} quickly"
    null = steered[2]
    assert null.is_null_control and null.coefficient == -2.0
    assert (null.sites[0].layer, null.sites[0].vector) == (3, direction().sites[0].vector)
    randoms = steered[3:]
    assert [one.coefficient for one in randoms] == [1.0] * 2 + [-2.0] * 2
    assert len(with_controls(direction(), [1.0], "full")) == 1 + LEVELS["full"]  # none is dead
    assert len(with_controls(direction(concept="x"), [1.0, 2.0], "none")) == 2


def test_random_features_come_as_often():
    found = random_features(feature(features=(52,)), table(), 20)
    drawn = [one.sites[0].neurons[0] for one in found]
    assert len(set(drawn)) == 20  # none twice
    assert 52 not in drawn and all(f % 5 for f in drawn)
    assert max(abs(f - 52) for f in drawn) <= POOL * 5 / 8 + 1
    assert [one.sites[0].vector for one in found] == [(10.0 * f,) for f in drawn]
    scaled = random_features(feature("sae_scale", (52, 53)), table(), 3)
    for one in scaled:
        assert len(set(one.sites[0].neurons)) == 2 and one.sites[0].vector == ()
        assert one.operator == "sae_scale" and one.sae == "sae/seed0"


def test_all_conditions_of_a_feature():
    made = with_controls(feature(), [0.5, 1.0], "light", dead_layer=3, features=table())
    assert len(made) == 2 + 2 * 2
    assert [one.role for one in made[:2]] == ["steered"] * 2
    assert {one.role for one in made[2:]} == {"random"}


def test_features_that_were_not_described_have_no_controls():
    with pytest.raises(UserError, match=r"not described.*vla-trace sae features.*--controls none"):
        with_controls(feature(), [1.0], "light")
    few = table(3).with_columns(coverage=pl.Series([0.0, 0.5, 0.0]))
    with pytest.raises(UserError, match="has 1 other active features: too few"):
        random_features(feature(features=(0, 2)), few, 1)

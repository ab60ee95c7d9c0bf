import warnings

import numpy as np
import polars as pl
import pytest

from analysis.clusters import Choice, choose_cluster, members, places_of, rows_of, sites_of
from traces.errors import UnknownName, UserError
from traces.intervention import Intervention


def choose(table, concept="fast", **options):
    return choose_cluster(table, concept, **({"alpha": 8.0, "checkpoint_sha256": "ab"} | options))


def test_cluster_is_the_source_and_its_neighbours(table, build):
    found = choose(table, size=3)
    assert isinstance(found, Intervention)
    assert (found.operator, found.coefficient, found.name) == ("overwrite", 8.0, "fast")
    (site,) = found.sites
    # Source at 10 degrees; 12 is nearest, then 0, then 40.
    assert (site.tower, site.layer, site.neurons) == ("vlm", 1, (2, 3, 1))
    cosines = [0, 1 - np.cos(np.radians(2)), 1 - np.cos(np.radians(10))]
    assert found.provenance.pop("distances") == pytest.approx(cosines, abs=1e-6)
    assert found.provenance == {
        "concept": "fast",
        "source": "best contrastive lexicon score",
        "method": "cosine nearest neighbours of the source's semantic embedding",
        "checkpoint_sha256": "ab",
        "layer": 1,
        "seed_neuron": 2,
        "score": 4,
        "hits": 4,
        "hit_tokens": build.fast[:4],
        "opposite": "slow",
        "opposite_hits": 0,
        "size": 3,
        "neurons": ["1:2", "1:3", "1:1"],
    }


def test_one_that_also_spells_the_opposite_is_no_source(table, build):
    """Five fast words and three slow ones: a hit more than neuron 1:2, but no fast neuron."""
    mixed = pl.DataFrame(
        [build.row(0, 9, [*build.fast, *build.slow[:3]], 0) | {"top_tokens": None}],
        schema=table.schema,
    ).with_columns(
        top_tokens=pl.lit([*build.fast, *build.slow[:3]]),
        top_logits=pl.lit([9.0] * 8).cast(pl.List(pl.Float32)),
    )
    found = choose(pl.concat([table, mixed]), size=1)
    assert places_of(found) == [(1, 2)]
    alone = pl.concat([table.filter(pl.col("layer") == 2), mixed])
    with pytest.raises(UserError, match="neuron 9, has 2 of the 4 hits more than of 'slow' needed"):
        choose(alone)
    assert choose(alone, size=1, choice=Choice(against="up")).provenance["opposite"] == "up"


def test_what_is_chosen_survives_json_and_row_order(table):
    found = choose(table, size=4)
    assert Intervention.from_json(found.to_json()) == found
    shuffled = table.sample(fraction=1, shuffle=True, seed=3)
    assert choose(shuffled, size=4) == found


def test_size_counts_the_source(table):
    assert choose(table, size=1).sites[0].neurons == (2,)
    assert len(choose(table, size=6).sites[0].neurons) == 6
    for size in (0, 7):
        with pytest.raises(UserError, match=f"a cluster of {size} neurons: layer 1 holds 1 to 6"):
            choose(table, size=size)


def test_across_layers_that_act(table):
    """0:0 at 0 degrees is as near to the source (10) as 1:1; the dead layer has twins at 0."""
    found = choose(table, size=4, choice=Choice(across=True))
    assert [(site.layer, site.neurons) for site in found.sites] == [(0, (0,)), (1, (2, 3, 1))]
    assert places_of(found)[0] == (1, 2)
    assert len(found.provenance["distances"]) == found.neuron_count == 4
    everything = choose(table, size=9, choice=Choice(across=True))
    assert {layer for layer, _ in places_of(everything)} == {0, 1}
    with pytest.raises(UserError, match="the layers that work hold 1 to 9"):
        choose(table, size=10, choice=Choice(across=True))


def test_filled_by_score(table):
    found = choose(table, size=3, choice=Choice(by="score"))
    assert places_of(found) == [(1, 2), (1, 1), (1, 5)]
    found = choose(table, size=3, choice=Choice(by="score", across=True))
    assert places_of(found) == [(1, 2), (1, 1), (0, 0)]
    with pytest.raises(UnknownName, match="neighbours, score"):
        Choice(by="magic")


def test_a_source_chosen_by_hand(table):
    found = choose(table, size=2, choice=Choice(source=(0, 2)))
    assert (found.name, places_of(found)) == ("fast", [(0, 2), (0, 0)])
    assert found.provenance["source"] == "by hand"
    assert found.provenance["hits"] == 0
    nameless = choose(table, "", size=2, choice=Choice(source=(0, 2)))
    assert (nameless.name, nameless.sites) == ("neuron 0:2", found.sites)
    assert "hits" not in nameless.provenance
    with pytest.raises(UserError, match="needs a concept"):
        choose(table, "")


def test_accepted_are_in_it_and_rejected_are_not(table):
    choice = Choice(accept=((1, 5), (0, 1)), reject=((1, 3),))
    found = choose(table, size=4, choice=choice)
    assert set(places_of(found)) == {(1, 2), (1, 5), (0, 1), (1, 1)}
    assert found.provenance["accepted"] == ["1:5", "0:1"]
    assert found.provenance["rejected"] == ["1:3"]
    with pytest.raises(UserError, match="a cluster of 2 neurons: layer 1 holds 3 to"):
        choose(table, size=2, choice=choice)
    # A rejected source makes room for the next.
    assert choose(table, size=1, choice=Choice(reject=((1, 2),))).sites[0].neurons == (1,)


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"source": (0, 77)}, "no neuron 0:77; this policy has 0:0 to 2:5"),
        ({"accept": ((2, 0),)}, "layer 2 cannot change the action"),
        ({"source": (9, 0)}, "no layer 9"),
        ({"reject": ((1, 77),)}, "no neuron 1:77"),
        ({"source": (1, 2), "reject": ((1, 2),)}, "1:2 is both wanted and rejected"),
    ],
)
def test_neurons_by_hand_must_exist_and_act(table, choice, says):
    with pytest.raises(UserError, match=says):
        choose(table, choice=Choice(**choice))


def test_identical_twins_are_both_taken(table, build):
    """The source is itself once, even when another neuron has the very same embedding."""
    twin = table.with_columns(
        pl.when(pl.col("neuron") == 0)
        .then(pl.lit(build.angle(10), dtype=pl.List(pl.Float32)))
        .otherwise("embedding")
        .alias("embedding")
    )
    assert choose(twin, size=2).sites[0].neurons == (2, 0)


def test_layers_without_reach_are_never_chosen(table):
    assert choose(table, size=2).sites[0].layer == 1
    with pytest.raises(UserError, match=r"layer 2 cannot change the action.*layers that work: 0-1"):
        choose(table, layer=2, size=2)


def test_layer_out_of_range(table):
    with pytest.raises(UserError, match=r"no layer 9; this policy has 0-2; .* that work: 0-1$"):
        choose(table, layer=9)


def test_a_layer_with_too_few_hits_points_to_the_others(table):
    message = r"no neuron of layer 0 .* layer 0 neuron 0, has 3 of the 4 hits .* have one: 1$"
    with pytest.raises(UserError, match=message):
        choose(table, layer=0)
    assert choose(table, layer=0, min_hits=3, size=2).sites[0].neurons == (0, 2)


def test_a_concept_the_policy_lacks_lists_those_it_has(table):
    with pytest.raises(UserError) as caught:
        choose(table, "careful")
    assert str(caught.value) == (
        "no neuron of this policy speaks of 'careful': the best, layer 0 neuron 1, has 0 of the 4 "
        "hits more than of 'fast' needed; concepts it has: fast (layer 1, 4 hits), "
        "slow (layer 0, 4 hits)"
    )


def test_no_concept_at_all(table):
    with pytest.raises(UserError, match=r"concepts it has: none$"):
        choose(table.filter(pl.col("neuron") == 2, pl.col("layer") == 0), "slow")
    with pytest.raises(UserError, match="no layer of this policy's neuron table"):
        choose(table.filter(~pl.col("reach")))


def test_unknown_concept_offers_near_matches(table):
    with pytest.raises(UnknownName, match="unknown concept 'fasst'; did you mean fast"):
        choose(table, "fasst")


def test_a_lexicon_of_ones_own_is_kept_with_the_cluster(table):
    pets = {"pets": frozenset({"cat", "dog"})}
    found = choose(table, "pets", size=1, min_hits=1, choice=Choice(lexicons=pets))
    assert found.provenance["lexicon"] == ["cat", "dog"]
    assert found.provenance["opposite"] == ""


def test_members_describe_a_cluster_in_its_order(table):
    found = members(table, choose(table, size=3), "fast")
    assert found.select("layer", "neuron").rows() == [(1, 2), (1, 3), (1, 1)]
    assert found["hits"].to_list() == [4, 0, 4] == found["hits_fast"].to_list()
    assert found["distance"].to_list() == sorted(found["distance"])
    assert rows_of(table, [(1, 5), (0, 0)])["layer"].to_list() == [1, 0]


def test_sites_are_one_a_layer():
    sites = sites_of([(3, 7), (1, 2), (3, 1)])
    assert [(site.layer, site.neurons) for site in sites] == [(1, (2,)), (3, (7, 1))]


def test_a_large_layer_chooses_without_a_warning(table):
    """24,000 neurons in one layer; warnings of polars and scikit-learn are errors."""
    rng = np.random.default_rng(0)
    big = pl.concat([table.filter(pl.col("layer") == 1)] * 4000).with_columns(
        pl.int_range(pl.len(), dtype=pl.Int32).alias("neuron")
    )
    embedding = rng.normal(size=(len(big), 32)).astype(np.float32)
    big = big.with_columns(pl.Series("embedding", embedding).arr.to_list())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(choose(big, size=20).sites[0].neurons) == 20

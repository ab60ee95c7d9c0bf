"""Choosing neurons from a small hand-made table in which every answer is known."""

import subprocess
import sys
import warnings

import numpy as np
import polars as pl
import pytest

from analysis.neurons import LEXICONS, choose_cluster, concept_hits
from traces.errors import UnknownName, UserError
from traces.intervention import Intervention

FAST = [" fast", "Quick", " rapid", " swiftly", " hurry"]
SLOW = [" slow", " slowly", " gradual", " sluggish"]
NOISE = [" breakfast", "fastidious", " cat", " the", " unfast", "ing"]


def angle(degrees):
    return [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))]


def row(layer, neuron, tokens, degrees, reach=True, logit=1.0):
    tokens = (tokens + NOISE)[:6]
    return {
        "layer": layer,
        "neuron": neuron,
        "reach": reach,
        "v_norm": 1.0,
        "top_ids": list(range(6)),
        "top_tokens": tokens,
        "top_pieces": [token.replace(" ", "Ġ") for token in tokens],
        "top_logits": [logit] * 6,
        "embedding": angle(degrees),
    }


@pytest.fixture
def table():
    rows = [
        row(0, 0, FAST[:3], 0),
        row(0, 1, SLOW, 90),
        row(0, 2, [], 45),
        row(1, 0, [], 60),
        row(1, 1, FAST[:4], 0, logit=1.0),
        row(1, 2, FAST[:4], 10, logit=2.0),  # as many hits as neuron 1, larger logits: the seed
        row(1, 3, [], 12),
        row(1, 4, [], 40),
        row(1, 5, FAST[:1], 300),
        row(2, 0, FAST, 0, reach=False),
        row(2, 1, FAST, 0, reach=False),
    ]
    schema = {"layer": pl.Int32, "neuron": pl.Int32, "v_norm": pl.Float32}
    floats = {"top_logits": pl.List(pl.Float32), "embedding": pl.List(pl.Float32)}
    return pl.DataFrame(rows, schema_overrides=schema | floats)


def choose(table, concept="fast", **options):
    return choose_cluster(table, concept, **({"alpha": 8.0, "checkpoint_sha256": "ab"} | options))


def test_hits_are_whole_words(table):
    hits = concept_hits(table, LEXICONS["fast"])
    assert hits.get_column("hits").to_list() == [3, 0, 0, 0, 4, 4, 0, 0, 1, 5, 5]
    assert hits.row(4, named=True)["hit_tokens"] == FAST[:4]
    assert hits.row(5, named=True)["hit_logit"] == 8.0
    assert hits.row(1, named=True)["hit_tokens"] == []


def test_cluster_is_the_seed_and_its_neighbours(table):
    found = choose(table, size=3)
    assert isinstance(found, Intervention)
    assert (found.operator, found.coefficient, found.name) == ("overwrite", 8.0, "fast")
    (site,) = found.sites
    # Seed at 10 degrees; 12 is nearest, then 0, then 40.
    assert (site.tower, site.layer, site.neurons) == ("vlm", 1, (2, 3, 1))
    cosines = [0, 1 - np.cos(np.radians(2)), 1 - np.cos(np.radians(10))]
    assert found.provenance.pop("distances") == pytest.approx(cosines, abs=1e-6)
    assert found.provenance == {
        "concept": "fast",
        "method": "value-vector lexicon hits, cosine nearest neighbours of semantic embeddings",
        "checkpoint_sha256": "ab",
        "layer": 1,
        "seed_neuron": 2,
        "hits": 4,
        "hit_tokens": FAST[:4],
        "size": 3,
    }


def test_what_is_chosen_survives_json_and_row_order(table):
    found = choose(table, size=4)
    assert Intervention.from_json(found.to_json()) == found
    shuffled = table.sample(fraction=1, shuffle=True, seed=3)
    assert choose(shuffled, size=4) == found


def test_size_counts_the_seed(table):
    assert choose(table, size=1).sites[0].neurons == (2,)
    assert len(choose(table, size=6).sites[0].neurons) == 6
    with pytest.raises(UserError, match="a cluster of 7 neurons: layer 1 holds 1 to 6"):
        choose(table, size=7)


def test_identical_twins_are_both_taken(table):
    """The seed is itself once, even when another neuron has the very same embedding."""
    twin = table.with_columns(
        pl.when(pl.col("neuron") == 0)
        .then(pl.lit(angle(10), dtype=pl.List(pl.Float32)))
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
        "no neuron of this policy speaks of 'careful': the best, layer 0 neuron 0, has 0 of the 4 "
        "hits needed; concepts it has: fast (layer 1, 4 hits), slow (layer 0, 4 hits)"
    )


def test_no_concept_at_all(table):
    with pytest.raises(UserError, match=r"concepts it has: none$"):
        choose(table.filter(pl.col("neuron") == 2, pl.col("layer") == 0), "slow")
    with pytest.raises(UserError, match="no layer of this policy's neuron table"):
        choose(table.filter(~pl.col("reach")))


def test_unknown_concept_offers_near_matches(table):
    with pytest.raises(UnknownName, match="unknown concept 'fasst'; did you mean fast"):
        choose(table, "fasst")


def test_lexicons_are_words_and_opposites_share_none():
    wanted = {"fast", "slow", "up", "down", "left", "right", "open", "close", "careful"}
    assert set(LEXICONS) == wanted
    for words in LEXICONS.values():
        assert len(words) >= 10
        assert all(word.isalpha() and word == word.lower() for word in words)
    for one, other in [("fast", "slow"), ("up", "down"), ("left", "right"), ("open", "close")]:
        assert not LEXICONS[one] & LEXICONS[other]


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


def test_importing_it_does_not_import_sklearn():
    code = "import sys, analysis.neurons; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code]).returncode == 0

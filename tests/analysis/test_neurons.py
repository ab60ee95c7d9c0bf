import subprocess
import sys

import polars as pl
import pytest

from analysis.lexicons import LEXICONS
from analysis.neurons import (
    Query,
    all_hits,
    answer,
    best_first,
    chance,
    concept_hits,
    concept_scores,
    layers_named,
    spelling,
)
from traces.errors import UnknownName, UserError


def places(rows):
    return rows.select("layer", "neuron").rows()


def test_hits_are_whole_words(table, build):
    hits = concept_hits(table, LEXICONS["fast"])
    assert hits.get_column("hits").to_list() == [3, 0, 0, 0, 4, 4, 0, 0, 1, 5, 5]
    assert hits.row(4, named=True)["hit_tokens"] == build.fast[:4]
    assert hits.row(5, named=True)["hit_logit"] == 8.0
    assert hits.row(1, named=True)["hit_tokens"] == []


def test_words_of_the_opposite_count_against(build):
    both = [
        build.row(0, 0, [*build.fast[:3], *build.slow[:3]], 0),
        build.row(0, 1, build.fast[:2], 0, logit=0.5),
        build.row(1, 2, build.fast[:2], 0, logit=2.0),
        build.row(1, 3, build.slow[:1], 0),
    ]
    scores = concept_scores(pl.DataFrame(both), "fast")
    assert scores["score"].to_list() == [0, 2, 2, -1]
    assert scores["contrast"].to_list() == [0.0, 1.0, 4.0, -1.0]
    assert scores["opposite_hits"].to_list() == [3, 0, 0, 1]
    assert scores["opposite_tokens"].to_list()[0] == build.slow[:3]
    # Of equal scores the earliest layer, although the later one has the larger logits.
    assert places(best_first(scores)) == [(0, 1), (1, 2), (0, 0), (1, 3)]
    against_up = concept_scores(pl.DataFrame(both), "fast", against="up")
    assert against_up["score"].to_list() == [3, 2, 2, 0]


def test_hits_of_every_concept_agree_with_those_of_one(table):
    hits = all_hits(table)
    assert hits.columns == [f"hits_{concept}" for concept in LEXICONS]
    for concept, words in LEXICONS.items():
        assert hits[f"hits_{concept}"].to_list() == concept_hits(table, words)["hits"].to_list()


def test_a_word_finds_its_neurons_by_its_logit(table):
    found = spelling(table, "QUICK ")
    assert places(found) == [(1, 2), (0, 0), (1, 1), (2, 0), (2, 1)]
    assert found["word_rank"].to_list() == [2] * 5
    assert found["word_logit"][0] == 2.0
    assert spelling(table, "qui").is_empty()


def test_chance_scores_what_random_directions_spell():
    random = [[" fast", "quick ", " slow"], ["x"], ["sluggish", " slow"]]
    assert chance(random, "fast") == [1, 0, -2]
    assert chance(random, "fast", against="up") == [2, 0, 0]


def test_answers_are_sorted_cut_and_in_layers(table):
    assert places(answer(table, Query(top=2))) == [(2, 0), (2, 1)]
    assert places(answer(table, Query(layers=(0,), concept="slow"))) == [(0, 1), (0, 2), (0, 0)]
    assert places(answer(table, Query(layers=(0, 1), sort="-neuron", top=2))) == [(0, 0), (1, 0)]
    word = answer(table, Query(word="cat", concept="fast", sort="score"))
    assert "word_rank" in word.columns
    assert word["score"].is_sorted(descending=True)


def test_more_columns_come_by_layer_and_neuron(table):
    fired = pl.DataFrame({"layer": [1], "neuron": [5], "act_mean": [0.25]})
    fired = fired.cast({"layer": pl.Int32, "neuron": pl.Int32})
    found = answer(table, Query(sort="act_mean"), fired)
    assert places(found)[0] == (1, 5)
    assert found["act_mean"].null_count() == len(table) - 1


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"sort": "top_tokens"}, "unknown column of numbers 'top_tokens'"),
        ({"sort": "v_nrom"}, "did you mean v_norm"),
        ({"layers": (7,)}, "no layer 7; this policy has 0-2"),
    ],
)
def test_what_cannot_be_answered_is_said(table, query, says):
    with pytest.raises(UserError, match=says):
        answer(table, Query(**query))


def test_queries_are_checked_when_they_are_made():
    with pytest.raises(UnknownName, match="did you mean fast"):
        Query(concept="fasst")
    with pytest.raises(UnknownName, match="unknown concept 'x'"):
        Query(concept="fast", against="x")
    with pytest.raises(UserError, match="add --concept"):
        Query(against="slow")


def test_layers_are_named_in_runs():
    assert layers_named([0, 2, 3, 4, 6]) == "0, 2-4, 6"
    assert layers_named([]) == ""


def test_importing_it_does_not_import_sklearn():
    code = "import sys, analysis.neurons, analysis.clusters; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code]).returncode == 0

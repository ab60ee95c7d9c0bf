"""Columns, filters and orders of the Neurons screen, beside what polars finds in the same table."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from analysis.neurons import concept_scores
from traces.errors import UserError
from traces.intervention import Intervention
from traces.neuron_file import neuron_file, neuron_files
from tui.data.draft import cluster, home_of, named_dose, record_command, save
from tui.data.effects import Dose, chosen_dose
from tui.data.model import Run
from tui.data.neuron_filter import concept_of, matching, parse
from tui.data.neuron_table import read_neurons, read_spelling, read_words
from tui.data.neurons import known_columns, ordered
from tui.screens.neuron_rows import COLUMNS, SORTED_BY, NeuronRows
from tui.screens.order import Order

SHA = "5f3a" * 16


def beside(name):
    path = Path(__file__).parent / "golden" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tui_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = beside("neuron_scenes")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield patch


@pytest.fixture(scope="module")
def table(cache):
    return tables.write_table(SHA, layers=3)


@pytest.fixture(scope="module")
def neurons(table):
    return replace(read_neurons(table, SHA), words=read_words(table))


@pytest.fixture(scope="module")
def large(cache):
    """100,000 neurons: 32 layers of 3,125, of which each spells four of 1,000 words."""
    rng = np.random.default_rng(0)
    words = [*tables.VOCABULARY, *(f"word{i}" for i in range(961))]
    ids = rng.integers(0, len(words), (100_000, 4)).astype(np.int32)
    return tables.write_table("ab" * 32, layers=32, neurons=3125, vocabulary=words, ids=ids)


def dose(delta, places=((0, 1),), role="steered", alpha=8.0, n_pairs=6):
    return Dose("fast", role, "lift", alpha, places, 3, 6, n_pairs, delta, None, None)


def rows(neurons, text, marks=None):
    return matching(neurons, parse(text)[0], marks or {}).tolist()


def test_a_file_is_found_by_the_hash_of_the_weights(cache, table):
    assert neuron_file(SHA) == table
    assert neuron_files()[SHA] == table
    raw = neuron_file(SHA, token_norm="none", fold_norm=True)
    assert raw.name == f"neurons-{SHA}-raw-folded.parquet"
    raw.touch()
    assert raw not in neuron_files().values()


def test_columns_and_scores_are_those_of_the_table(neurons, table):
    frame = pl.read_parquet(table)
    assert neurons.layer.tolist() == frame["layer"].to_list()
    assert neurons.norm.tolist() == frame["v_norm"].to_list()
    assert neurons.words.tokens(5) == frame["top_tokens"][5].to_list()
    for concept in ("fast", "slow", "careful"):
        expected = concept_scores(frame, concept)["score"].to_list()
        assert neurons.words.scores[concept].tolist() == expected
    assert read_spelling(table, (1, 2)).promotes == tuple(frame["top_tokens"][18].to_list())


def test_a_row_is_found_by_its_place(neurons):
    assert [neurons.row_of(neurons.place(row)) for row in (0, 17, 47)] == [0, 17, 47]
    assert neurons.row_of((1, 16)) is None and neurons.row_of((3, 0)) is None


def test_what_filters_keep(neurons):
    everything = list(range(48))
    assert rows(neurons, "") == everything
    assert rows(neurons, "layer=1") == list(range(16, 32))
    assert rows(neurons, "layer=0-1 reach=yes") == list(range(32))
    assert rows(neurons, "!layer=0-1") == list(range(32, 48))
    assert rows(neurons, "neuron=7 layer>0") == [23, 39]
    assert rows(neurons, "slowly !quick") == [row for row in everything if row % 5 == 1]
    assert rows(neurons, "TOKEN~Slow") == [row for row in everything if row % 5 < 2]
    assert rows(neurons, "token=slow") == []
    assert rows(neurons, "token=slowly") == rows(neurons, "slowly")
    assert rows(neurons, "concept=up") == [row for row in everything if row % 5 == 2]
    assert rows(neurons, "concept=slow score>=6") == [row for row in everything if row % 5 == 1]
    assert rows(neurons, "norm>0.5") == np.flatnonzero(neurons.norm > 0.5).tolist()


def test_what_is_not_known_satisfies_nothing(neurons):
    assert rows(neurons, "effect>0") == rows(neurons, "mean<=0") == rows(neurons, "p99>0") == []
    bare = replace(neurons, words=None)
    assert rows(bare, "quick") == rows(bare, "concept=fast") == []


def test_effects_and_marks(neurons):
    steered = replace(neurons, doses=(dose(-0.2, ((0, 1), (0, 2), (9, 9))), dose(1.5, ((1, 0),))))
    assert rows(steered, "effect>1") == [16]
    assert rows(steered, "effect<0") == [1, 2]
    marks = {(0, 1): True, (0, 3): False}
    assert rows(neurons, "mark=accepted", marks) == [1]
    assert rows(neurons, "mark=rejected", marks) == [3]
    assert rows(neurons, "mark=any", marks) == [1, 3]
    assert rows(neurons, "mark=none layer=0", marks) == [0, 2, *range(4, 16)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour=red", "unknown column 'colour'"),
        ("layer~3", "expected layer and a number"),
        ("token>3", "expected token~part or token=word"),
        ("reach~yes", "expected reach=yes|no"),
        ("concept>fast", "expected concept=NAME"),
        ("concept=quickish", "unknown concept 'quickish'"),
        ("mark=seen", "expected mark=accepted|rejected|any|none"),
        ("norm>much", "expected norm and a number"),
        ("effect>nan", "expected effect and a number"),
    ],
)
def test_a_term_that_cannot_be_read_is_a_sentence_and_the_others_hold(text, said):
    terms, trouble = parse(f"{text} layer=1")
    assert said in trouble
    assert [term.field for term in terms] == ["layer"]


def test_what_is_still_being_typed_does_not_count():
    for text in ("layer=", "concept=fa", "effect>-", "layer=0-", "!", "mark=acc"):
        assert parse(text) == ((), "")
    assert concept_of(parse("concept=fast")[0]) == "fast"
    assert concept_of(parse("!concept=fast")[0]) == ""


def test_order_is_stable_and_the_unknown_comes_last():
    values = np.array([2.0, np.nan, -3.0, 2.0, 1.0])
    every = np.arange(5)
    assert ordered(values, every, descending=False).tolist() == [2, 4, 0, 3, 1]
    assert ordered(values, every, descending=True).tolist() == [0, 3, 4, 2, 1]
    assert ordered(values, every, descending=True, absolute=True).tolist() == [2, 0, 3, 4, 1]
    assert ordered(values, np.array([4, 2]), descending=True).tolist() == [4, 2]


def test_a_list_shows_a_chosen_cluster_at_its_largest_dose_not_the_largest_effect():
    small, large = dose(0.9, alpha=2.0), dose(0.1, alpha=8.0)
    random, null = dose(2.0, role="random", alpha=16.0), dose(0.0, role="null")
    assert chosen_dose([small, random, large, null]) is large
    assert chosen_dose([null, random]) is random


def test_firing_finds_its_rows(neurons):
    layers = {1: (np.arange(16.0), np.arange(16.0) + 1), 2: (np.ones(40), np.ones(40))}
    layers[0] = np.zeros(3), np.zeros(3)  # fewer than the table has
    fired = neurons.with_firing(layers, "5 decisions")
    assert np.isnan(fired.mean[:16]).tolist() == [False] * 3 + [True] * 13
    assert fired.mean[16:32].tolist() == list(range(16)) and fired.p99[31] == 16
    assert (fired.mean[32:] == 1).all()
    assert known_columns(neurons, ("norm", "mean")) == ["norm"]
    assert known_columns(fired, ("norm", "mean")) == ["norm", "mean"]


def test_a_table_of_other_weights_or_a_damaged_one_is_refused(table, tmp_path):
    with pytest.raises(UserError, match="another version"):
        read_neurons(table, "00" * 32)
    damaged = tmp_path / "x.parquet"
    damaged.write_bytes(table.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read"):
        read_neurons(damaged, SHA)


def test_a_hundred_thousand_rows_are_filtered_and_sorted_as_polars_does(large):
    frame = pl.read_parquet(large).with_row_index()
    neurons = replace(read_neurons(large, "ab" * 32), words=read_words(large))
    assert len(neurons) == 100_000
    assert rows(neurons, "rise layer=3-7 norm>0.5") == (
        frame.filter(
            pl.col("top_tokens").cast(pl.List(pl.String)).list.contains(" rise"),
            pl.col("layer").is_between(3, 7),
            pl.col("v_norm") > 0.5,
        )["index"].to_list()
    )
    found = ordered(neurons.numbers("norm"), np.arange(100_000), descending=True)
    by_polars = frame.sort("v_norm", descending=True, maintain_order=True)["index"]
    assert found.tolist() == by_polars.to_list()
    score = concept_scores(frame, "up")["score"]
    assert neurons.numbers("score", "up").tolist() == score.to_list()
    by_score = ordered(neurons.numbers("score", "up"), np.arange(100_000), descending=True)
    expected = frame.with_columns(score).sort("score", descending=True, maintain_order=True)
    assert by_score.tolist() == expected["index"].to_list()  # nearly all are equal
    listed = NeuronRows(neurons, found, {})
    last = listed[99_999]
    assert listed.place_of(last.key) == 99_999
    assert [text for text, _ in last.cells[1:3]] == [
        str(frame[name][by_polars[-1]]) for name in ("layer", "neuron")
    ]


def test_no_cell_is_wider_than_the_widest_row(neurons):
    marks = {(0, 0): True, (0, 1): False}
    steered = replace(neurons, doses=(dose(-0.2), dose(0.4, ((1, 1),), role="random")))
    for some in (neurons, steered):
        listed = NeuronRows(some, np.arange(48), marks)
        widest = [len(text) for text, _ in listed.widest.cells]
        for row in listed:
            assert all(len(cell[0]) <= wide for cell, wide in zip(row.cells, widest, strict=True))


def test_the_sorted_column_bears_an_arrow():
    titles = [
        column.title for column in Order("effect", descending=True).titled(COLUMNS, SORTED_BY)
    ]
    assert titles[-1] == "effect, cm ▼" and titles[1] == "layer"


def test_where_a_recording_is_started(tmp_path):
    path = tmp_path / "interventions" / "x.json"
    said = "vla-trace record --intervention"
    assert home_of(tmp_path) == tmp_path
    assert record_command(path, tmp_path, "", None).startswith(f"{said} interventions/x.json")
    for name in ("traces", "arms"):
        (tmp_path / name).mkdir()
    (tmp_path / "arms" / "a.h5").touch()
    assert home_of(tmp_path) == home_of(tmp_path / "traces") == tmp_path
    # runs/ and traces/ in arms/ would hide what is there
    assert home_of(tmp_path / "arms") == tmp_path
    assert record_command(path, tmp_path / "arms", "", None).endswith("--out arms --episodes 20")
    assert "--out" not in record_command(path, tmp_path / "traces", "", None)


def test_the_command_repeats_how_the_run_was_recorded(tmp_path):
    run = Run("x", "x", "closed", config={"task_id": 2, "replan": 5, "suite": "tabletop"})
    command = record_command(tmp_path / "x.json", tmp_path, "a policy", run)
    assert command.endswith("x.json --policy 'a policy' --task 2 --replan 5 --episodes 20")
    odd = Run("x", "x", "closed", config={"task_id": [1], "replan": None})
    assert "--task" not in record_command(tmp_path / "x.json", tmp_path, "", odd)


@pytest.mark.parametrize("text", ["", "name", "name eight", "8", "name nan", "name inf"])
def test_a_name_needs_a_dose(text):
    with pytest.raises(UserError, match="expected a name and a dose"):
        named_dose(text)
    assert named_dose(" quick  wrist -2.5") == ("quick wrist", -2.5)


def test_a_saved_cluster_has_a_plain_file_name(tmp_path):
    for name in ("../../etc/passwd", "\x1b[2J", "a b", "." * 60, "x" * 300):
        path = save(cluster(name, 8.0, {(1, 2): True}, SHA), tmp_path)
        assert path.parent == tmp_path / "interventions"
        assert path.name.isascii() and path.name.isprintable() and not path.name.startswith(".")
        assert Intervention.from_json(path.read_text()).name == name

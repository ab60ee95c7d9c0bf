"""Clusters as flat indices in YAML, over a policy of 3 layers with 6 neurons each."""

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from analysis.clusters import places_of, sites_of
from analysis.dictionaries import read_cluster, read_dictionaries, strangers, written
from traces.errors import UnknownName, UserError
from traces.intervention import Intervention

LAYERS, WIDTH = 3, 6
TABLE = pl.DataFrame(
    {
        "layer": np.repeat(np.arange(LAYERS, dtype=np.int32), WIDTH),
        "neuron": np.tile(np.arange(WIDTH, dtype=np.int32), LAYERS),
        "top_tokens": [[f" w{i}", "yes", "[action: -0.2]", "дар", "\n"] for i in range(18)],
    }
)
PUBLISHED = """
blank: {}
up_3:
  7: ['w7', 'Up', '[action: 0.824]']
  17: ['w17']
  2: ['raised', 'high']
high_cluster:
  - 13
  - 0
"""


def imported(path, name="", table=TABLE):
    return read_cluster(path, name, table, alpha=4.0, checkpoint_sha256="ab")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "dictionaries.yaml"
    path.write_text(PUBLISHED)
    return path


def test_both_published_forms_are_read(file):
    assert read_dictionaries(file) == {
        "blank": {},
        "up_3": {7: ("w7", "Up", "[action: 0.824]"), 17: ("w17",), 2: ("raised", "high")},
        "high_cluster": {13: (), 0: ()},
    }
    found = imported(file, "up_3")
    assert places_of(found) == [(1, 1), (2, 5), (0, 2)]
    assert (found.name, found.operator, found.coefficient) == ("up_3", "overwrite", 4.0)
    assert found.provenance["file"] == "dictionaries.yaml"
    assert places_of(imported(file, "high_cluster")) == [(2, 1), (0, 0)]


def test_the_flat_indices_of_the_paper(tmp_path):
    """Neurons 126 and 2253 of the 2,560 in layer 15; a neuron named twice is one."""
    path = tmp_path / "x.yaml"
    path.write_text("x: [38526, 40653, 38526]")
    table = pl.DataFrame({"layer": [31], "neuron": [2559]})
    assert places_of(imported(path, table=table)) == [(15, 126), (15, 2253)]


@given(st.sets(st.integers(0, LAYERS * WIDTH - 1), min_size=1), st.text("abc yes:[]#", min_size=1))
def test_what_is_written_comes_back(tmp_path_factory, flats, name):
    places = [divmod(flat, WIDTH) for flat in flats]
    cluster = Intervention(name, "overwrite", sites_of(places), 4.0)
    path = tmp_path_factory.mktemp("yaml") / "x.yaml"
    text = written(TABLE, cluster)
    path.write_text(text)
    assert yaml.safe_load(text).keys() == {name}
    back = imported(path)
    assert (back.name, back.sites) == (cluster.name, cluster.sites)
    assert written(TABLE, back) == text
    assert strangers(TABLE, path, back) == 0


def test_neurons_of_another_model_are_strangers(file):
    """w7 and w17 are what those neurons spell here too; of neuron 2 nothing is."""
    assert strangers(TABLE, file, imported(file, "up_3")) == 1
    assert strangers(TABLE, file, imported(file, "high_cluster")) == 0  # nothing is said of them


def test_which_cluster_must_be_clear(file, tmp_path):
    with pytest.raises(UserError, match="has the clusters blank, up_3, high_cluster; choose one"):
        imported(file)
    with pytest.raises(UnknownName, match="did you mean up_3"):
        imported(file, "up_30")
    with pytest.raises(UserError, match="'blank' is empty"):
        imported(file, "blank")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x: [18]", "holds the flat index 18; this policy has 3 layers of 6 neurons, 0 to 17"),
        ("x: [999999999999999999999]", "0 to 17"),
        ("x: [-1]", "no flat index"),
        ("x: [1.5]", "no flat index"),
        ("x: [true]", "no flat index"),
        ("x: [[1]]", "no flat index"),
        ("x: {a: [b]}", "no flat index"),
        ("x: 3", "should be {flat index: "),
        (f"x: [{'1' * 5000}]", "no flat index"),
        ("x: [1", "is not YAML"),
    ],
)
def test_what_is_no_such_file_is_one_line(text, says, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        imported(path)
    assert "\n" not in str(caught.value)

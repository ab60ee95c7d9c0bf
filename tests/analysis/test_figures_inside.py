"""Figures of shifts and atlases hold the numbers of their tables."""

import numpy as np
import pytest

from analysis.atlas import atlas, atlas_change
from analysis.drawing import rendered
from analysis.figures_inside import atlas_figure, shift_figure
from analysis.shifts import activation_shifts
from traces.collection import open_traces

EXPERT = "exp.2.ffn_act.chunk.each"
LAYERS = ("vlm.0.ffn_act", "vlm.1.ffn_act")


@pytest.fixture
def sides(activations, tmp_path):
    """Layer 0 is frozen, layer 1 and one cell of the expert moved."""
    rng = np.random.default_rng(0)
    base, tuned = [], []
    for _ in range(7):
        one = {name: rng.normal(size=(9, 6)).astype(np.float16) for name in LAYERS}
        one[EXPERT] = rng.normal(1, 0.1, size=(9, 3, 4, 5)).astype(np.float16)
        other = {name: values.copy() for name, values in one.items()}
        other[LAYERS[1]] += np.float16(1)
        other[EXPERT][:, 2, 3] *= np.float16(2)
        base.append(one)
        tuned.append(other)
    paths = [
        activations(tmp_path / "base.h5", base),
        activations(tmp_path / "tuned.h5", tuned, sha256="cd" * 32),
        activations(tmp_path / "own.h5", tuned, sha256="cd" * 32, seed=5),
    ]
    opened = [open_traces(path) for path in paths]
    yield opened
    for one in opened:
        one.close()


def test_shifts_are_drawn_by_layer(sides):
    found = activation_shifts(sides[0], sides[1])
    figure = shift_figure(found)
    moved, alike = figure.axes
    lines = {line.get_label(): line for line in moved.get_lines()}
    drawn = lines["vlm ffn_act"].get_data()
    medians = found.sites.filter(found.sites["kind"] == "ffn_act", found.sites["tower"] == "vlm")
    assert list(drawn[0]) == [0, 1]
    assert list(drawn[1]) == medians["median_d"].to_list() and drawn[1][0] == 0
    colour = lines["vlm ffn_act"].get_color()
    same, _ = (line.get_ydata() for line in alike.get_lines() if line.get_color() == colour)
    assert same[0] == 1
    assert "replay, n 7 episodes" in figure.get_suptitle()


def test_a_frozen_tower_is_called_so(sides):
    found = activation_shifts(sides[0], sides[1], sites=["vlm.0"])
    labels = [line.get_label() for line in shift_figure(found).axes[0].get_lines()]
    assert "vlm ffn_act, frozen" in labels


def test_own_rollouts_have_no_similarity(sides):
    (only,) = shift_figure(activation_shifts(sides[0], sides[2])).axes
    assert "deviations" in only.get_ylabel()


def test_the_atlas_is_drawn_cell_by_cell(sides):
    found = atlas(sides[0])
    picture, bar = atlas_figure(found).axes
    (image,) = picture.get_images()
    cells = found.cells["strength"].to_numpy().reshape(3, 4)
    np.testing.assert_array_equal(image.get_array(), cells)
    assert "rms" in bar.get_ylabel()


def test_what_moved_is_drawn_where_it_moved(sides):
    picture, bar = atlas_figure(atlas_change(sides[0], sides[1])).axes
    values = np.asarray(picture.get_images()[0].get_array())
    assert values.argmax() == 2 * 4 + 3 and values[:2].max() == 0
    assert "base" in bar.get_ylabel()
    own = atlas_figure(atlas_change(sides[0], sides[2]))
    assert "strength, tuned / base" in own.axes[-1].get_ylabel()


def test_equal_data_gives_equal_bytes(sides):
    one, other = (rendered(lambda: atlas_figure(atlas(sides[0]))) for _ in range(2))
    assert one == other and one.startswith(b"<?xml")

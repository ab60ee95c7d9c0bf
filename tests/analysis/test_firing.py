"""Mean, 99th percentile and single values of recorded neurons, beside numpy on the whole array."""

import numpy as np
import pytest

from analysis import firing as module
from analysis.firing import firing, values_of


@pytest.fixture
def recorded(activations, tmp_path):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(n, 3)).astype(np.float16) for n in (40, 60)]
    episodes = [{"vlm.2.ffn_act": one, "vlm.2.resid_post": one} for one in values]
    return activations(tmp_path / "a.h5", episodes), np.concatenate(values).astype(np.float32)


def test_mean_and_percentile_of_every_row(recorded):
    path, values = recorded
    found = firing([path])
    assert list(found.layers) == [2]
    assert (found.decisions, found.episodes) == (100, 2)
    mean, p99 = found.layers[2]
    assert mean == pytest.approx(values.mean(0))
    assert p99 == pytest.approx(np.quantile(values, 0.99, 0))


def test_of_long_recordings_spans_are_read(recorded, monkeypatch):
    path, values = recorded
    monkeypatch.setattr(module, "BLOCKS", 3)
    monkeypatch.setattr(module, "BLOCK_ROWS", 10)
    found = firing([path])
    assert found.decisions == 30
    expected = np.concatenate([values[start : start + 10] for start in (0, 45, 90)])
    assert found.layers[2][0] == pytest.approx(expected.mean(0))
    assert values_of([path], 2, 1) == pytest.approx(values[:, 1])  # of one neuron, all


def test_values_of_one_neuron(recorded):
    path, values = recorded
    assert values_of([path], 2, 1) == pytest.approx(values[:, 1])
    assert len(values_of([path], 2, 3)) == len(values_of([path], 5, 0)) == 0


def test_what_is_not_finite_does_not_count(activations, tmp_path):
    values = np.array([[1, 2], [3, np.inf], [5, 6]], np.float16)
    path = activations(tmp_path / "a.h5", [{"vlm.0.ffn_act": values}])
    assert firing([path]).layers[0][0].tolist() == [3, 4]
    assert values_of([path], 0, 1).tolist() == [2, 6]
    assert values_of([path], 0, 0).tolist() == [1, 3, 5]

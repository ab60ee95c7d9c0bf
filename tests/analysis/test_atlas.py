"""The atlas of activations that the test chose, and of two policies."""

import numpy as np
import pytest
from scipy import stats

from analysis import atlas as atlas_module
from analysis.atlas import CELLS, CHANGES, NEURONS, atlas, atlas_change
from traces.collection import open_traces
from traces.errors import UserError

SITE = "exp.2.ffn_act.chunk.each"
STEPS, ROWS, UNITS = 4, 3, 5
OTHER = "cd" * 32


@pytest.fixture
def base():
    """Neuron 0 acts in step 3 only, neuron 1 for row 1 only, neuron 2 never, 3 and 4 everywhere."""
    rng = np.random.default_rng(0)
    episodes = []
    for n in (9, 12, 7, 10, 8, 11, 9):
        values = rng.normal(1, 0.1, size=(n, STEPS, ROWS, UNITS))
        values[:, :3, :, 0] = 0
        values[:, :, [0, 2], 1] = 0
        values[..., 2] = 0
        episodes.append({SITE: values.astype(np.float16)})
    return episodes


def test_strength_and_centres_by_hand(activations, base, tmp_path):
    with open_traces(activations(tmp_path / "a.h5", base, replan=2)) as traces:
        found = atlas(traces)
    assert dict(found.cells.schema) == CELLS
    assert dict(found.neurons.schema) == NEURONS
    every = np.concatenate([e[SITE].astype(float) for e in base])
    expected = np.sqrt((every**2).mean(axis=(0, 3)))
    assert found.cells["strength"].to_list() == pytest.approx(expected.ravel(), rel=1e-5)
    assert found.cells["step"].to_list() == [k for k in range(STEPS) for _ in range(ROWS)]
    assert found.cells["executed"].to_list() == [True, True, False] * STEPS
    assert found.cells["n"].unique().to_list() == [len(every)]
    step, row, never, *_ = found.neurons.to_dicts()
    assert (step["step_peak"], step["step_share"], step["step_centre"]) == pytest.approx((3, 1, 3))
    assert (row["row_peak"], row["row_share"], row["row_centre"]) == pytest.approx((1, 1, 1))
    assert row["step_share"] == pytest.approx(1 / STEPS, abs=0.02)
    assert (never["strength"], never["step_share"], never["step_centre"]) == (0, None, None)


def test_a_replay_says_how_far_each_cell_moved(activations, base, tmp_path, monkeypatch):
    monkeypatch.setattr(atlas_module, "BLOCK_VALUES", 200)  # blocks smaller than an episode
    rng = np.random.default_rng(1)
    tuned = [{SITE: e[SITE].copy()} for e in base]
    for episode in tuned:
        episode[SITE][:, 1, 2, 3:] *= np.float16(1.5 + 0.05 * rng.normal())
    one = activations(tmp_path / "a.h5", base)
    two = activations(tmp_path / "b.h5", tuned, sha256=OTHER)
    with open_traces(one) as a, open_traces(two) as b:
        found = atlas_change(a, b)
    assert (found.design, found.notes) == ("replay", ())
    assert dict(found.cells.schema) == CHANGES
    still = found.cells.filter((found.cells["step"] != 1) | (found.cells["row"] != 2))
    assert still.select("moved", "change").max().row(0) == (0, 0)
    assert still["p"].null_count() == len(still)
    (cell,) = found.cells.filter(step=1, row=2).to_dicts()
    x, y = (np.concatenate([e[SITE][:, 1, 2].astype(float) for e in arm]) for arm in (base, tuned))
    assert cell["moved"] == pytest.approx(np.sqrt(((y - x) ** 2).mean() / (x**2).mean()), rel=1e-3)
    assert cell["change"] == pytest.approx(np.sqrt((y**2).mean() / (x**2).mean()) - 1, rel=1e-3)
    each = [
        np.sqrt((t[SITE][:, 1, 2].astype(float) ** 2).mean())
        - np.sqrt((e[SITE][:, 1, 2].astype(float) ** 2).mean())
        for e, t in zip(base, tuned, strict=True)
    ]
    assert cell["p"] == pytest.approx(stats.ttest_1samp(each, 0).pvalue, rel=0.01)
    assert cell["p_holm"] == cell["p"]


def test_own_rollouts_have_no_moved(activations, base, tmp_path):
    one = activations(tmp_path / "a.h5", base)
    own = activations(tmp_path / "b.h5", base[:6], sha256=OTHER, seed=3)
    with open_traces(one) as a, open_traces(own) as b:
        found = atlas_change(a, b)
    assert found.design == "on-policy"
    assert found.cells["moved"].null_count() == len(found.cells)
    assert found.cells["p"].min() > 0.05
    assert "states differ, too" in found.notes[0]


def test_what_has_no_atlas_is_one_line(activations, base, tmp_path):
    one = activations(tmp_path / "a.h5", base)
    flat = activations(tmp_path / "b.h5", [{"exp.2.ffn_act": np.ones((3, 4), np.float16)}])
    fewer = activations(tmp_path / "c.h5", [{SITE: np.ones((3, 2, ROWS, UNITS), np.float16)}])
    with open_traces(flat) as traces, pytest.raises(UserError, match="keep=each'"):
        atlas(traces)
    with (
        open_traces(one) as a,
        open_traces(fewer) as b,
        pytest.raises(UserError, match="other steps, rows or neurons in TUNED"),
    ):
        atlas_change(a, b)

"""Statistics of activations in real traces whose every value the test chose."""

import math

import numpy as np
import pytest

from analysis.activity import BLOCK_ROWS, activity
from traces.errors import NoFilesMatch, UserError

SHA = "ab" * 32
LAYER = [1]
STEPS = [np.array([1.0, 2.0, 3.0]), np.array([4.0, 2.0]), np.array([1.0] * 4), np.array([5.0, 7.0])]


def episodes(traces, rng):
    """Neuron 0 follows the speed, 1 opposes it, 2 is noise, 3 never changes."""
    made = []
    for i, cm in enumerate(STEPS):
        values = np.stack([cm, -2 * cm, rng.normal(size=len(cm)), np.full(len(cm), 0.5)], axis=1)
        made.append(traces.episode(f"p{i}", list(cm), ffn_act=values.astype(np.float32)))
    return made


@pytest.fixture
def recorded(traces, tmp_path):
    rng = np.random.default_rng(0)
    return str(traces.write(tmp_path / "base.h5", episodes(traces, rng)))


def test_they_are_what_numpy_says(recorded):
    found = activity((recorded,), SHA, LAYER)
    speed = np.concatenate(STEPS)
    assert (found.decisions, found.episodes) == (len(speed), len(STEPS))
    rows = found.rows
    assert rows.select("layer", "neuron").rows() == [(1, n) for n in range(4)]
    noise = np.random.default_rng(0)
    drawn = np.concatenate([noise.normal(size=len(cm)) for cm in STEPS]).astype(np.float16)
    values = np.stack([speed, -2 * speed, drawn.astype(float), np.full(len(speed), 0.5)])
    assert rows["act_mean"].to_list() == pytest.approx(values.mean(1))
    assert rows["act_std"].to_list() == pytest.approx(values.std(1), abs=1e-9)
    assert rows["act_positive"].to_list() == pytest.approx((values > 0).mean(1))
    assert rows["act_max"].to_list() == pytest.approx(values.max(1))
    r = [1.0, -1.0, np.corrcoef(values[2], speed)[0, 1], None]
    assert rows["speed_r"].to_list() == [x if x is None else pytest.approx(x) for x in r]


def test_the_episode_is_the_unit_of_the_test(recorded):
    rows = activity((recorded,), SHA, LAYER).rows
    noise = np.random.default_rng(0)
    drawn = [noise.normal(size=len(cm)).astype(np.float16).mean() for cm in STEPS]
    r = np.corrcoef(drawn, [cm.mean() for cm in STEPS])[0, 1]
    assert rows["speed_r_episodes"][2] == pytest.approx(r, abs=2e-3)
    p = math.erfc(abs(math.atanh(rows["speed_r_episodes"][2])) * math.sqrt(1 / 2))
    assert rows["speed_p"][2] == pytest.approx(p)  # the largest of three: times one
    assert rows["speed_p"][3] is None


def test_more_rows_than_a_block(traces, tmp_path):
    """What is summed block by block is what is summed at once."""
    rng = np.random.default_rng(1)
    n = BLOCK_ROWS + 300
    values = rng.normal(3, 2, size=(n, 4)).astype(np.float16)
    values[5, 2] = np.inf  # too large for float16: the decision is left out
    cm = rng.uniform(0.1, 2, size=n)
    path = traces.write(tmp_path / "long.h5", [traces.episode("p", list(cm), ffn_act=values)])
    rows = activity((str(path),), SHA, LAYER).rows
    kept = np.delete(values.astype(float), 5, axis=0)
    assert rows["act_mean"].to_list() == pytest.approx(kept.mean(0))
    assert rows["act_std"].to_list() == pytest.approx(kept.std(0))
    expected = [np.corrcoef(column, np.delete(cm, 5))[0, 1] for column in kept.T]
    assert rows["speed_r"].to_list() == pytest.approx(expected, abs=1e-6)
    assert rows["speed_p"].null_count() == 4  # one episode tests nothing


def test_steered_recordings_are_left_out(traces, recorded, tmp_path):
    steered = episodes(traces, np.random.default_rng(3))
    other = str(traces.write(tmp_path / "fast.h5", steered, traces.steer()))
    both = activity((recorded, other), SHA, LAYER)
    alone = activity((recorded,), SHA, LAYER)
    assert both.rows.equals(alone.rows)
    assert both.notes[0] == "steered recordings left out, being unnatural: 1"
    with pytest.raises(UserError, match="all of these traces are steered"):
        activity((other,), SHA, LAYER)


def test_what_does_not_fit_is_said(recorded):
    with pytest.raises(UserError, match=r"base\.h5 was recorded with other weights \(abababab\)"):
        activity((recorded,), "cd" * 32, LAYER)
    with pytest.raises(UserError, match=r"no recorded activations of vlm\.7\.ffn_act"):
        activity((recorded,), SHA, [7])
    with pytest.raises(NoFilesMatch):
        activity((recorded + "x",), SHA, LAYER)
    assert (
        "layers without recorded activations: 0, 2" in activity((recorded,), SHA, [0, 1, 2]).notes
    )

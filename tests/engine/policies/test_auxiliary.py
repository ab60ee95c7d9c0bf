import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.policies.auxiliary import GRID, AuxiliaryHeads, cell_targets

pictures = arrays(
    np.float32, (2, 2, 3, 2), elements=st.floats(-2, 3, width=32) | st.just(np.float32("nan"))
)


@given(pictures)
def test_a_point_is_in_one_cell_at_most_and_found_again_from_it(pixels):
    inside, offset = cell_targets(pixels)
    visible = ((pixels >= 0) & (pixels < 1)).all(-1)
    np.testing.assert_array_equal(inside.sum(2), visible)
    assert np.abs(offset).max() <= 0.5
    row, camera, cell, colour = np.nonzero(inside)
    corner = np.stack([cell % GRID, cell // GRID], axis=1)
    found = (corner + 0.5 + offset[row, camera, cell, colour]) / GRID
    np.testing.assert_allclose(found, pixels[row, camera, colour], atol=1e-6)
    assert not offset[inside == 0].any()


def test_a_known_point():
    """In picture widths (0.3, 0.9): column 1 of 4, line 3 of 4, near the cell's left, below."""
    pixels = np.full((1, 2, 3, 2), np.nan, np.float32)
    pixels[0, 1, 2] = 0.3, 0.9
    inside, offset = cell_targets(pixels)
    assert np.argwhere(inside).tolist() == [[0, 1, 13, 2]]
    np.testing.assert_allclose(offset[0, 1, 13, 2], [-0.3, 0.1], atol=1e-6)


def test_the_heads_learn_what_the_stream_says():
    """A stream that holds the targets: after a few steps every loss is a fraction of the first."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    pixels = rng.uniform(-0.2, 1.2, (16, 2, 3, 2)).astype(np.float32)
    named = rng.integers(3, size=16)
    places = rng.normal(0, 0.1, (16, 6)).astype(np.float32)
    residuals = [torch.randn(16, 49, 600) for _ in range(6)]
    heads = AuxiliaryHeads(600)
    optimizer = torch.optim.Adam(heads.parameters(), 1e-2)
    history = []
    for _ in range(120):
        losses = heads.losses(residuals, pixels, named, places)
        history.append({name: float(loss.detach()) for name, loss in losses.items()})
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    for name in ("seen", "named", "located"):
        assert history[-1][name] < 0.4 * history[0][name], name


def test_nothing_in_sight_is_no_division_by_zero():
    pixels = np.full((2, 2, 3, 2), np.nan, np.float32)
    stream = [torch.zeros(2, 49, 8)] * 6
    losses = AuxiliaryHeads(8).losses(
        stream, pixels, np.zeros(2, int), np.zeros((2, 6), np.float32)
    )
    assert all(np.isfinite(float(loss.detach())) for loss in losses.values())


@pytest.mark.parametrize("point", [(0.0, 0.0), (0.99999, 0.99999)])
def test_the_corners_belong_to_the_picture(point):
    pixels = np.full((1, 1, 1, 2), point, np.float32)
    assert cell_targets(pixels)[0].sum() == 1

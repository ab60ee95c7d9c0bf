"""Throw-away heads that teach a tiny policy to see and to read while it learns to act.

From actions alone a vision tower of this size never finds the cubes in the pictures, and without
cubes a colour word has nothing to point at. So three linear heads ask for what acting needs, each
at the depth where it should be known; none of them ships:

- `seen`, image tokens after layer 0: which cubes lie in the token's cell of the picture, and where;
- `named`, image tokens after layer 2: the same, of the cube that the instruction names now;
- `located`, state token after the last layer but one: named cube and goal as seen from the hand.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.envs.tabletop import CAMERAS, COLOURS

SEEN_AFTER, NAMED_AFTER, LOCATED_AFTER = 0, 2, -2  # layers
GRID = 4  # image tokens a side and camera
UNIT = 0.1  # m, of the located positions


class AuxiliaryHeads(nn.Module):
    """The three heads; `width` is the residual stream's."""

    def __init__(self, width: int):
        super().__init__()
        self.seen = nn.Linear(width, 3 * len(COLOURS))
        self.named = nn.Linear(width, 3)
        self.located = nn.Linear(width, 6)

    def losses(
        self, residuals: list[Tensor], pixels: np.ndarray, named: np.ndarray, places: np.ndarray
    ) -> dict[str, Tensor]:
        """One loss per head.

        Args:
            residuals: the prefix stream after every layer, (B, P, width); images come first.
            pixels: (B, cameras, colours, 2) where each camera sees each cube, in picture widths.
            named: (B,) colour index of the cube that the instruction names now.
            places: (B, 6) m, named cube and goal, from the hand.
        """
        rows, n_image = np.arange(len(named)), len(CAMERAS) * GRID**2
        inside, offset = cell_targets(pixels)
        shape = (len(named), len(CAMERAS), GRID**2)
        seen = self.seen(residuals[SEEN_AFTER][:, :n_image].float())
        of_named = self.named(residuals[NAMED_AFTER][:, :n_image].float())
        located = self.located(residuals[LOCATED_AFTER][:, -1].float())
        return {
            "seen": _cell_loss(seen.view(*shape, len(COLOURS), 3), inside, offset),
            "named": _cell_loss(
                of_named.view(*shape, 3), inside[rows, :, :, named], offset[rows, :, :, named]
            ),
            "located": F.smooth_l1_loss(located, torch.from_numpy(places) / UNIT),
        }


def cell_targets(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which cell of a GRID x GRID picture a point falls into, and where in it.

    Args:
        pixels: (B, cameras, colours, 2) in picture widths; outside the picture or NaN is nowhere.

    Returns:
        (B, cameras, cells, colours) float32, 1 in the point's cell, and (..., 2) float32, the
        point from that cell's centre in cell widths, 0 elsewhere. Cells run row by row.
    """
    point = GRID * pixels
    with np.errstate(invalid="ignore"):
        cell = np.floor(np.nan_to_num(point, nan=-1.0)).astype(int)
    visible = ((cell >= 0) & (cell < GRID)).all(-1)  # (B, cameras, colours)
    batch, cameras, colours, _ = pixels.shape
    inside = np.zeros((batch, cameras, GRID**2, colours), np.float32)
    offset = np.zeros((*inside.shape, 2), np.float32)
    row, camera, colour = np.nonzero(visible)
    column, line = cell[row, camera, colour].T
    at = (row, camera, GRID * line + column, colour)
    inside[at] = 1.0
    offset[at] = point[row, camera, colour] - cell[row, camera, colour] - 0.5
    return inside, offset


def _cell_loss(logits: Tensor, inside: np.ndarray, offset: np.ndarray) -> Tensor:
    """Binary cross entropy of the presence, plus the distance in cell widths where present."""
    present = torch.from_numpy(inside)
    miss = (logits[..., 1:] - torch.from_numpy(offset)).abs().sum(-1)
    where = (miss * present).sum() / present.sum().clamp_min(1)
    return F.binary_cross_entropy_with_logits(logits[..., 0], present) + where

"""Curves as braille characters: a cell is two dots wide and four dots high."""

import numpy as np

DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.uint8)
"""Bit of each dot of a cell, (row, column)."""
BLANK = 0x2800


def to_dots(
    x: np.ndarray,
    y: np.ndarray,
    columns: int,
    rows: int,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Return dot coordinates of points, y upwards in the data and downwards in the dots.

    Args:
        x: (n,) abscissae.
        y: (n,) ordinates.
        columns: cells across.
        rows: cells down.
        x_range: data at the left and the right edge.
        y_range: data at the bottom and the top edge.

    Returns:
        (n,) whole dots across and (n,) down, inside the canvas.
    """
    across = _scaled(x, x_range, 2 * columns - 1)
    down = 4 * rows - 1 - _scaled(y, y_range, 4 * rows - 1)
    return across, down


def _scaled(values: np.ndarray, low_high: tuple[float, float], last: int) -> np.ndarray:
    low, high = low_high
    share = (values - low) / (high - low) if high > low else np.full(len(values), 0.5)
    return np.clip(np.rint(share * last), 0, last).astype(int)


def line_cells(across: np.ndarray, down: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """Return (rows, columns) dot masks of the polyline through some dots; 0 is an empty cell."""
    cells = np.zeros((rows, columns), dtype=np.uint8)
    for i in range(len(across)):
        j = min(i + 1, len(across) - 1)
        n = int(max(abs(across[j] - across[i]), abs(down[j] - down[i]), 1))
        u = np.rint(np.linspace(across[i], across[j], n + 1)).astype(int)
        v = np.rint(np.linspace(down[i], down[j], n + 1)).astype(int)
        np.bitwise_or.at(cells, (v // 4, u // 2), DOTS[v % 4, u % 2])
    return cells


def text_of(cells: np.ndarray) -> list[str]:
    """Return one text per row; empty cells are spaces."""
    return ["".join(chr(BLANK + mask) if mask else " " for mask in row) for row in cells.tolist()]

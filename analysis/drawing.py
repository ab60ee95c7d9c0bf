"""How figures are drawn: colours, axes, and files whose bytes depend on nothing but the data.

matplotlib draws and is imported when something is drawn. Colours are Okabe and Ito's, which stay
apart for the colour-blind.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#999999"
HEAT = "cividis"
"""A scale of one order for the colour-blind, too."""


def rendered(make: Callable[[], Figure | None], kind: str = "svg") -> bytes:
    """Draw a figure and return its file; empty when there is nothing to draw.

    Args:
        make: makes the figure.
        kind: svg or png.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    with matplotlib.rc_context({"svg.hashsalt": "vla-trace", "svg.fonttype": "none"}):
        figure = make()
        if figure is None:
            return b""
        file = io.BytesIO()
        stamp = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(file, format=kind, dpi=150, metadata=stamp)
        plt.close(figure)
    return file.getvalue()


def axes_of(
    n: int, width: float = 5.5, height: float = 3.6, rows: int = 1
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its axes, n in a row, without frames above and at the right."""
    from matplotlib import pyplot as plt

    size = (width, height)
    figure, axes = plt.subplots(rows, n, figsize=size, layout="constrained", squeeze=False)
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
    return figure, list(axes.flat)


def cycle() -> Iterator[str]:
    """Yield the colours, again and again."""
    while True:
        yield from COLOURS

"""Tables and heat strips on a terminal, for the commands that look inside policies."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

BLOCKS = " ▁▂▃▄▅▆▇█"
SHADES = "·░▒▓█"


def console() -> Console:
    """One that prints what it is given."""
    return Console(highlight=False, markup=False, emoji=False)


def print_rows(
    screen: Console,
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    left: int = 1,
    words: int = 0,
) -> None:
    """Print a table that a narrow terminal wraps rather than cut digits off.

    Args:
        screen: where to.
        headers: of the columns.
        rows: texts.
        left: how many of the first columns are set to the left.
        words: how many of the last ones.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    rows = list(rows)
    for place, header in enumerate(headers):
        width = max(len(row[place]) for row in [headers, *rows])
        justify = "right" if left <= place < len(headers) - words else "left"
        table.add_column(header, justify=justify, no_wrap=True, min_width=width)
    for row in rows:
        table.add_row(*row)
    needed = screen.measure(table, options=screen.options.update(width=1000)).minimum
    screen.width = max(screen.width, needed)
    screen.print(table)


def strip(values: Sequence[float | None], largest: float) -> str:
    """Values as blocks that fill up towards the largest; ? for what is unknown."""
    scale = (len(BLOCKS) - 1) / largest if largest > 0 else 0.0
    return "".join(
        "?" if value is None else BLOCKS[min(len(BLOCKS) - 1, round(value * scale))]
        for value in values
    )


def shade(values: Sequence[float | None], low: float | None, high: float | None) -> str:
    """Values from low to high as five shades, of one width each; ? for what is unknown."""
    if low is None or high is None:
        return "?" * len(values)
    scale = len(SHADES) / (high - low) if high > low else 0.0
    last = len(SHADES) - 1
    return "".join(
        "?" if value is None else SHADES[min(last, int((value - low) * scale))] for value in values
    )


def number(value: float | None, digits: int = 3, sign: str = "") -> str:
    """A number with some significant digits; "-" where there is none."""
    return "-" if value is None else f"{value:{sign}.{digits}g}"


def p_value(value: float | None) -> str:
    """A p as tables show it."""
    if value is None:
        return "-"
    return "<.0001" if value < 0.0001 else f"{value:.4f}"

"""Columns, rows and cards of the tabs of Compare."""

from operator import itemgetter
from typing import TYPE_CHECKING

from tui.commands.strips import BLOCKS, strip
from tui.commands.strips import number as significant
from tui.data.records import Record, pair_record
from tui.screens.neuron_rows import signed
from tui.terminal import one_line
from tui.widgets.lines import Span, fit, pad, wrap
from tui.widgets.table import Column, Row
from tui.wording import DESIGNS, interval, number, p_value, share

if TYPE_CHECKING:
    from analysis.paired_tasks import Arms, Rate, TaskPairs
    from tui.data.shifts import SiteShifts

PAIRS = (
    Column("task", least=8, most=30),
    Column("A success", right=True),
    Column("B success", right=True),
    Column("B−A, pairs", right=True),
    Column("McNemar", right=True, rank=2),
    Column("ΔMEED cm", right=True),
    Column("pairs", right=True),
)
SITES = (
    Column("site", least=12, most=24),
    Column("median |d|"),
    Column("max |d|", right=True),
    Column("cosine", right=True, rank=3),
    Column("CKA", right=True, rank=4),
    Column("shuffled", right=True, rank=5),
    Column("found", right=True),
    Column("rows", right=True, rank=2),
)
NOTHING = "·"
"""A block of no height."""
LABEL = 18
"""Cells for the name of a strip."""

Lines = list[list[Span]]


def pair_rows(arms: "Arms") -> list[Row]:
    """Return one row a task; all together come last."""
    return [Row(row.task, _pair_cells(row)) for row in arms.tasks]


def _pair_cells(row: "TaskPairs") -> tuple[Span, ...]:
    success, meed = row.success, row.meed
    return (
        (one_line(row.task), ""),
        (_rate(row.a), ""),
        (_rate(row.b), ""),
        (_difference(success.difference, success.ci, _signed_share), _sure(success.ci)),
        (p_value(success.p_value).removeprefix("p "), ""),
        (_difference(meed.mean, meed.ci, signed), _sure(meed.ci)),
        (str(success.n), ""),
    )


def _rate(rate: "Rate") -> str:
    return f"{rate.successes}/{rate.n} {share(rate.successes / rate.n)}" if rate.n else "0/0"


def _difference(value: float | None, ci: tuple[float, float] | None, shown) -> str:
    if value is None:
        return "none"
    return f"{shown(value)} {interval(ci, shown).replace(' ', '')}".strip()


def _sure(ci: tuple[float, float] | None) -> str:
    """Dim what may well be nothing; the interval itself says so in numbers."""
    return "" if ci is not None and (ci[0] > 0 or ci[1] < 0) else "dim"


def _signed_share(value: float) -> str:
    return f"{value:+.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:+.2f}"


def pair_card(arms: "Arms", task: object, width: int) -> Lines:
    """Return intervals and discordant pairs of a task, then what the numbers do not rest on."""
    lines: Lines = []
    row = next((row for row in arms.tasks if row.task == task), None)
    if row is not None:
        success, meed = row.success, row.meed
        lines.append([(fit(one_line(row.task), width), "bold")])
        for name, rate in (("A", row.a), ("B", row.b)):
            lines.append([(f"{name} {_rate(rate)} ", ""), (f"95 % {interval(rate.ci)}", "dim")])
        solved = f"only B solved {success.only_a} of {success.n} pairs, only A {success.only_b}"
        lines.append([(fit(solved, width), "")])
        if meed.mean is not None:
            sure = f"sign-flip {p_value(meed.p_value)}" if meed.p_value is not None else "no p"
            text = f"ΔMEED {number(meed.mean, 3, '+')} cm over {meed.n} pairs, {sure}"
            lines.append([(fit(text, width), "")])
            lines += _notes(meed.notes, width)
        lines.append([])
    return lines + _notes(arms.notes, width)


def _notes(notes: tuple[str, ...], width: int) -> Lines:
    return [[(text, "dim")] for note in notes for text in wrap(one_line(note), width, 4)]


def site_rows(shifts: "SiteShifts") -> list[Row]:
    """Return one row a site, the VLM first, kinds together, layers ascending."""
    sites = sorted(shifts.sites, key=itemgetter("kind", "layer"))
    sites.sort(key=itemgetter("tower"), reverse=True)
    largest = _largest(shifts)
    return [Row(row["site"], _site_cells(row, largest)) for row in sites]


def _largest(shifts: "SiteShifts") -> float:
    return max((row["median_d"] or 0.0 for row in shifts.sites), default=0.0)


def _site_cells(row: dict, largest: float) -> tuple[Span, ...]:
    moved = f"{_blocks([row['median_d']], largest)} {significant(row['median_d'])}"
    n = str(row["n_base"])
    return (
        (one_line(row["site"]), ""),
        (f"{NOTHING} frozen", "dim") if row["frozen"] else (moved, ""),
        (significant(row["max_d"]), ""),
        (significant(row["mean_cosine"]), ""),
        (significant(row["cka"]), ""),
        (significant(row["cka_shuffled"], 2), ""),
        (f"{row['found']}/{row['tested']}" if row["tested"] else "no p", ""),
        (n if n == str(row["n_tuned"]) else f"{n}, {row['n_tuned']}", ""),
    )


def site_card(shifts: "SiteShifts", site: object, width: int) -> Lines:
    """Return the layers as strips, the neurons of a site that moved most, and the caveats."""
    n = " and ".join(map(str, sorted(set(shifts.episodes))))
    said = f"{shifts.design}, {n} episodes: {DESIGNS[shifts.design]}"
    lines: Lines = [[(text, "bold")] for text in wrap(said, width, 2)]
    lines += [*layer_strips(shifts, width), []]
    moved = shifts.moved.get(site, ())
    if moved:
        lines.append(
            [(fit(f"{one_line(site)}: neurons by |d|, p by {shifts.correction}", width), "dim")]
        )
    for row in moved:
        means = f"{significant(row['mean_base'])} to {significant(row['mean_tuned'])}"
        p = row["p_corrected"]
        sure = p_value(p) if p is not None else "no p"
        text = f"{row['neuron']:>5}  d {number(row['d'], 2, '+')}  {means}  {sure}"
        lines.append([(fit(text, width), "")])
    lines.append([])
    return lines + _notes(shifts.notes, width)


def _blocks(values: list[float | None], largest: float) -> str:
    return strip(values, largest).replace(BLOCKS[0], NOTHING)


def layer_strips(shifts: "SiteShifts", width: int) -> Lines:
    """Return median |d| over the layers of each tower: blocks, and what they say in words."""
    largest = _largest(shifts)
    parts: dict[tuple[str, str], list[dict]] = {}
    for row in shifts.sites:
        parts.setdefault((row["tower"], row["kind"]), []).append(row)
    lines: Lines = [[(f"median |d| by layer, {BLOCKS[-1]} being {significant(largest)}", "dim")]]
    for (tower, kind), part in parts.items():
        part.sort(key=itemgetter("layer"))
        values = [row["median_d"] for row in part]
        wide = max(1, min(3, (width - LABEL - 20) // max(1, len(values))))
        blocks = "".join(block * wide for block in _blocks(values, largest))
        if wide > 1 and len(lines) == 1:
            numbers = "".join(pad(str(layer), wide) for layer in (row["layer"] for row in part))
            lines.append([(f"{'layer':<{LABEL}}{numbers}", "dim")])
        known = [value for value in values if value is not None]
        if all(row["frozen"] for row in part):
            words = "frozen"
        elif not any(known):
            words = "0 in every layer"
        else:
            most = values.index(max(known))
            words = f"most in {part[most]['layer']}: {significant(values[most])}"
        label = pad(f"{tower} {kind}", LABEL)
        lines.append([(label, ""), (blocks, "accent"), (f"  {words}", "")])
    return lines


def setting_columns(room: int) -> tuple[Column, ...]:
    """Return columns for some cells: both sides get the same."""
    half = max(10, (room - 30) // 2)
    return Column("setting", most=26), Column("A", most=half), Column("B", most=half)


def setting_rows(differing: list[tuple[str, str, str]]) -> list[Row]:
    """Return one row a setting that differs."""
    return [Row(row[0], tuple((text, "") for text in row)) for row in differing]


def record(tab: str, content: object, row: Row) -> Record:
    """Return what a row of a tab stands for, for scripts."""
    if tab == "pairs":
        return pair_record(next(task for task in content.tasks if task.task == row.key))
    if tab == "neurons":
        return next(site for site in content.sites if site["site"] == row.key)
    (name, _), (a, _), (b, _) = row.cells
    return {"setting": name, "value A": a, "value B": b}


def setting_card(row: Row, width: int) -> Lines:
    """Return a setting whole: tables shorten."""
    (name, _), (a, _), (b, _) = row.cells
    lines: Lines = [[(fit(name, width), "bold")]]
    for side, text in (("A", a), ("B", b)):
        lines += [
            [(f"{side} " if not i else "  ", "dim"), (part, "")]
            for i, part in enumerate(wrap(text, width - 2, 6))
        ]
    return lines

"""The card of one neuron: what it writes, how it fires, what steering it did, how it moved."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tui.screens.neuron_rows import MARKS, spelled
from tui.terminal import one_line
from tui.widgets.lines import Span, fit, wrap
from tui.widgets.tracks import BLOCKS
from tui.wording import interval, number, p_value

if TYPE_CHECKING:
    from tui.data.effects import Dose
    from tui.data.neuron_evidence import Fired, Moved
    from tui.data.neurons import Neurons, Spelling

DOSES = 8
"""Interventions that are listed."""

Lines = list[list[Span]]


@dataclass(frozen=True)
class Known:
    """What is known of the neuron under the cursor; a text says why something is not."""

    spelling: "Spelling | str"
    fired: "tuple[Fired, ...] | str"
    moved: "Moved | str"


def neuron_card(
    neurons: "Neurons", row: int, mark: bool | None, known: Known, size: tuple[int, int]
) -> Lines:
    """Return the card for some columns and lines, most important lines first."""
    (layer, neuron), (width, height) = neurons.place(row), size
    head: list[Span] = [(f"vlm layer {layer}, neuron {neuron}", "bold")]
    if not neurons.reach[row]:
        head.append((fit(": reaches no action", width - 30), "warn"))
    if mark is not None:
        head.append((f"  {MARKS[mark][0]}", MARKS[mark][1]))
    lines: Lines = [head, *_spelled(neurons, row, known.spelling, width)]
    lines += [[], *_doses(neurons, row, width)]
    lines += [[], *_moved(known.moved, width)]
    return [*lines, [], *_fired(neurons, row, known.fired, width, max(2, min(6, height // 8)))]


def _spelled(neurons: "Neurons", row: int, spelling: "Spelling | str", width: int) -> Lines:
    if isinstance(spelling, str):
        return _said(spelling, width)
    lines = _wrapped("promotes", spelling.promotes, width, 4)
    lines += _wrapped("suppresses", spelling.suppresses, width, 2)
    facts = f"norm {neurons.norm[row]:.3f}, entropy {spelling.entropy:.2f} nats"
    if neurons.words is not None:
        scores = {name: int(values[row]) for name, values in neurons.words.scores.items()}
        best = sorted((item for item in scores.items() if item[1] > 0), key=lambda item: -item[1])
        speaks = ", ".join(f"{name} {score}" for name, score in best[:4]) or "no concept"
        lines += [[(text, "")] for text in wrap(f"speaks of {speaks}; {facts}", width, 2)]
    return lines


def _wrapped(what: str, tokens: tuple[str, ...], width: int, limit: int) -> Lines:
    first, *rest = wrap(f"{what} {' '.join(map(spelled, tokens))}", width, limit)
    label = first[: len(what)]
    return [
        [(label, "dim"), (first[len(what) :], "accent")],
        *([(text, "accent")] for text in rest),
    ]


def _doses(neurons: "Neurons", row: int, width: int) -> Lines:
    """Dose-response of the interventions that it was in."""
    if neurons.doses is None:
        return [[("what steering did is not known yet", "dim")]]
    doses = neurons.steered.get(row, [])
    if not doses:
        return _said("n/a: not steered, no recording here has it in its cluster", width)
    doses = sorted(doses, key=lambda d: (d.role != "steered", d.task, d.label, d.alpha or 0.0))
    lines: Lines = [[(fit("steered in a cluster: ΔMEED to the baseline, cm", width), "dim")]]
    for dose in doses[:DOSES]:
        lines += _dose(dose, width)
    if len(doses) > DOSES:
        lines.append([(f"and {len(doses) - DOSES} more", "dim")])
    return lines


def _dose(dose: "Dose", width: int) -> Lines:
    role = "" if dose.role == "steered" else f" ({dose.role} control)"
    name = f"{dose.label}{role}, {len(dose.places)} neurons, success {dose.successes}/{dose.n}"
    effect: list[Span] = [
        (f"  {number(dose.delta_cm, 3, '+')} ", "bold"),
        (interval(dose.delta_ci, lambda v: number(v, 3, "+")), ""),
        (f" {dose.n_pairs} pairs ", "dim"),
        (p_value(dose.p_value), ""),
    ]
    return [[(fit(name, width), "accent")], effect]


def _fired(
    neurons: "Neurons", row: int, fired: "tuple[Fired, ...] | str", width: int, high: int
) -> Lines:
    if isinstance(fired, str):
        return _said(fired, width)
    lines: Lines = []
    if neurons.mean is not None and np.isfinite(neurons.mean[row]):
        mean, p99 = number(float(neurons.mean[row]), 3), number(float(neurons.p99[row]), 3)
        lines.append([("fires ", "dim"), (fit(f"mean {mean}, p99 {p99}", width - 6), "bold")])
    everything = np.concatenate([one.values for one in fired])
    least, most = float(everything.min()), float(everything.max())
    for one in fired:
        n = f"{len(one.values):,} decisions"
        lines.append([(fit(f"{one.policy}, {n}", width), "dim")])
        lines += [[(text, "accent")] for text in histogram(one.values, least, most, width, high)]
    left, right = number(least), number(most)
    gap = " " * max(1, width - len(left) - len(right))
    return [*lines, [(f"{left}{gap}{right}", "dim")]]


def histogram(values: np.ndarray, low: float, high: float, width: int, lines: int) -> list[str]:
    """Return counts of values over equal bins as blocks, the top line first.

    A bin is one or more cells wide, so that few values make few bins; what occurs at all is never
    blank.
    """
    edges = (low, high) if high > low else (low - 0.5, low + 0.5)
    bins = max(1, min(width, max(8, round(2 * len(values) ** 0.5))))
    counts, _ = np.histogram(values, bins, edges)
    levels = np.ceil(counts / max(counts.max(), 1) * 8 * lines).astype(int)
    levels = levels[np.arange(width) * bins // max(width, 1)].tolist()
    return [
        "".join(BLOCKS[min(max(level - 8 * line, 0), 8)] for level in levels)
        for line in reversed(range(lines))
    ]


def _moved(moved: "Moved | str", width: int) -> Lines:
    """Its shift from the base to the fine-tuned policy."""
    if isinstance(moved, str):
        return _said(moved, width)
    row = moved.row
    if row["frozen"]:
        change = "frozen: not a bit differs"
    elif row["d"] is None:
        change = "no shift in standard deviations: it never varies"
    else:
        change = (
            f"mean {number(row['mean_base'], 3)} to {number(row['mean_tuned'], 3)}, "
            f"d {number(row['d'], 2, '+')}, KS {number(row['ks'])}"
        )
    shifts, p = moved.shifts, row["p_corrected"]
    sure = f"{p_value(p)} (Holm over {shifts.tested})" if p is not None else "too few for a p"
    n = " and ".join(map(str, sorted(set(shifts.episodes))))
    return [
        [(fit(f"{moved.base} to {moved.tuned}", width), "dim")],
        *([(text, "")] for text in wrap(change, width, 2)),
        *([(text, "")] for text in wrap(f"{shifts.design}, {n} episodes, {sure}", width, 2)),
    ]


def _said(text: str, width: int) -> Lines:
    return [[(line, "dim")] for line in wrap(one_line(text), width, 3)]

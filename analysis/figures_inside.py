"""Figures of what happens inside a policy: shifts by layer, and the denoising atlas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from analysis.atlas import Atlas, AtlasChange
from analysis.drawing import GREY, HEAT, axes_of, cycle
from analysis.shifts import Shifts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PER_ROW = 4
"""Layers side by side in an atlas."""


def shift_figure(found: Shifts) -> Figure:
    """How far means moved, by layer; under replay also how alike representations stayed (CKA)."""
    replay = found.design == "replay"
    figure, axes = axes_of(1 + replay, width=5.5 + 4 * replay)
    n = sorted(set(found.episodes))
    for colour, (name, part) in zip(cycle(), _kinds(found.sites), strict=False):
        frozen = ", frozen" if part["frozen"].all() else ""
        axes[0].plot(part["layer"], part["median_d"], "o-", color=colour, ms=4, label=name + frozen)
        if replay:
            axes[1].plot(part["layer"], part["cka"], "o-", color=colour, ms=4)
            axes[1].plot(part["layer"], part["cka_shuffled"], ":", color=colour, linewidth=1)
    axes[0].axhline(0, color=GREY, linewidth=1)
    axes[0].set(xlabel="layer", ylabel="median |d| over neurons\n[standard deviations]")
    axes[0].legend(frameon=False, fontsize=8)
    if replay:
        axes[1].set(xlabel="layer", ylabel="linear CKA, base and tuned\n(dotted: rows shuffled)")
        axes[1].set(ylim=(0, 1.03))
    counted = " and ".join(map(str, n))
    figure.suptitle(f"{found.base} -> {found.tuned}; {found.design}, n {counted} episodes", size=8)
    return figure


def _kinds(sites: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """One curve a tower and kind; of several sites in a layer (tokens, windows) the mean."""
    numbers = pl.col("median_d", "cka", "cka_shuffled").mean()
    found = []
    for (tower, kind), part in sites.group_by("tower", "kind", maintain_order=True):
        by_layer = part.group_by("layer").agg(numbers, pl.col("frozen").all()).sort("layer")
        found.append((f"{tower} {kind}", by_layer))
    return found


def atlas_figure(found: Atlas | AtlasChange) -> Figure:
    """The expert by denoising step (down) and action row (across), one picture a layer."""
    column, label, title = _shown(found)
    pictures = found.cells.partition_by("site", maintain_order=True)
    wide = min(PER_ROW, len(pictures))
    rows = -(-len(pictures) // wide)
    figure, axes = axes_of(wide, 2.6 * wide + 0.8, 2.1 * rows + 0.5, rows)
    low, high = found.cells[column].min(), found.cells[column].max()
    for one in axes[len(pictures) :]:
        one.set_visible(False)
    for place, (one, part) in enumerate(zip(axes, pictures, strict=False)):
        values = part.sort("step", "row")[column].to_numpy()
        steps, first = part["step"].n_unique(), part["step"].min()
        extent = (-0.5, part["row"].max() + 0.5, first + steps - 0.5, first - 0.5)
        picture = one.imshow(
            values.reshape(steps, -1),
            cmap=HEAT,
            vmin=low,
            vmax=high,
            aspect="auto",
            extent=extent,
        )
        one.set_title(f"expert {part['layer'][0]} {part['kind'][0]}", fontsize=8)
        if place >= len(pictures) - wide:
            one.set_xlabel("action row")
        if place % wide == 0:
            one.set_ylabel("denoising step")
    figure.colorbar(picture, ax=axes, label=label, shrink=0.8)
    n, episodes = found.cells["n"][0], found.cells["episodes"][0]
    figure.suptitle(f"{title}; n {n} decisions of {episodes} episodes", size=8)
    return figure


def _shown(found: Atlas | AtlasChange) -> tuple[str, str, str]:
    """Return the column of the cells that is drawn, what it is, and whose it is."""
    if isinstance(found, Atlas):
        return "strength", "strength\n(rms of activations)", found.policy
    title = f"{found.base} -> {found.tuned}, {found.design}"
    if found.design == "replay":
        return "moved", "|tuned - base| / |base|", title
    return "change", "strength, tuned / base - 1", title

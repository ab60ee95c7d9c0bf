"""The denoising atlas: which neurons of the expert act at which denoising step, for which action.

An expert module runs once a denoising step k (from noise, k = 0, to the action) over the H action
rows h of a chunk. Recorded with `--capture expert.*.ffn_act:tokens=chunk,keep=each`, activations
are (decisions, K, H, neurons), and the atlas is their strength in each cell (k, h):

    strength of a neuron    rms over decisions,  sqrt(mean_d a^2)
    strength of a layer     rms over decisions and neurons
    centre                  sum_kh k s_kh / sum_kh s_kh with squares s; likewise of h
    share                   of a neuron's squares in its strongest step, or row; 1/K, 1/H if even

Two recordings are compared cell by cell. On equal inputs (`record --replay`) by `moved`, the rms of
a_t - a_b over that of a_b; always by strength, with a t test whose unit is the episode (paired on
equal inputs, else Welch's), Holm-corrected over all cells of all layers. Equal inputs are those of
a decision: what the expert reads at k > 0 is its own action so far, which already differs.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.multiplicity import corrected
from analysis.sides import Pairs, Side, decisions_of, replayed, side
from analysis.site_shift import shift_p
from analysis.tally import as_float32
from traces.collection import TraceCollection
from traces.errors import UserError
from traces.header import SiteInfo

CAPTURE = "vla-trace record --capture 'expert.*.ffn_act:tokens=chunk,keep=each'"
BLOCK_VALUES = 1 << 22
WINDOW = re.compile(r"\.denoise(\d+)-\d+$")

CELLS = {
    "site": pl.String,
    "layer": pl.Int32,
    "kind": pl.String,
    "step": pl.Int32,  # k
    "t": pl.Float64,  # 1 - k/K: 1 is noise, 0 the action
    "row": pl.Int32,  # h
    "executed": pl.Boolean,  # whether this action row was sent
    "n": pl.Int64,  # decisions
    "episodes": pl.Int64,
    "strength": pl.Float64,
}

NEURONS = {
    "site": pl.String,
    "layer": pl.Int32,
    "kind": pl.String,
    "neuron": pl.Int32,
    "n": pl.Int64,
    "strength": pl.Float64,  # rms over decisions, steps and rows
    "step_centre": pl.Float64,
    "row_centre": pl.Float64,
    "step_peak": pl.Int32,
    "row_peak": pl.Int32,
    "step_share": pl.Float64,
    "row_share": pl.Float64,
}

CHANGES = {
    **{name: kind for name, kind in CELLS.items() if name != "strength"},
    "strength_base": pl.Float64,
    "strength_tuned": pl.Float64,
    "change": pl.Float64,  # strength_tuned / strength_base - 1
    "moved": pl.Float64,  # |a_t - a_b| / |a_b|; null where inputs differ
    "p": pl.Float64,  # of the change of strength, over episodes
    "p_holm": pl.Float64,
}


@dataclass(frozen=True)
class Atlas:
    """The atlas of one policy."""

    policy: str
    cells: pl.DataFrame
    """Columns of `CELLS`: one row a site, step and action row."""
    neurons: pl.DataFrame
    """Columns of `NEURONS`."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class AtlasChange:
    """How the atlas of one policy differs from another's."""

    design: str
    """replay or on-policy."""
    base: str
    tuned: str
    cells: pl.DataFrame
    """Columns of `CHANGES`."""
    notes: tuple[str, ...]


def atlas(traces: TraceCollection) -> Atlas:
    """Where the neurons of the expert act.

    Raises:
        UserError: no site was recorded step by step and row by row.
    """
    one = side(traces, "FILES")
    cells, neurons = [], []
    for site in _sites(one):
        sums = _Sums.of(site, one, one.episodes)
        cells.append(_cells(site, one, sums).with_columns(strength=_flat(sums.strength)))
        neurons.append(_neurons(site, sums))
    return Atlas(
        policy=one.name,
        cells=pl.concat(cells).select(*CELLS).cast(CELLS),
        neurons=pl.concat(neurons).select(*NEURONS).cast(NEURONS),
        notes=one.notes,
    )


def atlas_change(base: TraceCollection, tuned: TraceCollection) -> AtlasChange:
    """How fine-tuning, or steering, moves the atlas.

    Raises:
        UserError: the two have no such site in common, or of other shapes.
    """
    one, other = side(base, "BASE"), side(tuned, "TUNED")
    pairs = replayed(one, other)
    paired = bool(len(pairs.base))
    if not paired:
        pairs = Pairs(one.episodes, other.episodes, ())
    theirs = {site.name: site for site in _sites(other)}
    common = [site for site in _sites(one) if site.name in theirs]
    if not common:
        raise UserError(f"the two have no site of the expert in common; record both with {CAPTURE}")
    frames = []
    for site in common:
        if site.shape != theirs[site.name].shape:
            raise UserError(
                f"{site.name} has other steps, rows or neurons in TUNED "
                f"({site.shape} and {theirs[site.name].shape}); ask both on the same recording: "
                "vla-trace record --replay"
            )
        frames.append(_changed(site, one, other, pairs, paired))
    cells = pl.concat(frames)
    p = corrected(cells["p"].fill_null(float("nan")).to_numpy())
    cells = cells.with_columns(p_holm=pl.Series(p).fill_nan(None))
    notes = [*one.notes, *other.notes, *pairs.notes]
    if not paired:
        notes.append("each policy's own rollouts: states differ, too, so `moved` is not known")
    return AtlasChange(
        design="replay" if paired else "on-policy",
        base=one.name,
        tuned=other.name,
        cells=cells.select(*CHANGES).cast(CHANGES),
        notes=tuple(notes),
    )


@dataclass
class _Sums:
    """Sums over the decisions of some episodes."""

    counts: np.ndarray
    """(E,) decisions."""
    by_episode: np.ndarray
    """(E, K, H) sums over decisions of the mean square over neurons."""
    squares: np.ndarray
    """(K, H, N) sums over decisions."""

    @classmethod
    def of(cls, site: SiteInfo, one: Side, episodes: np.ndarray) -> "_Sums":
        sums = cls.empty(site, len(episodes))
        for values, episode in _blocks(site, one, episodes):
            sums.add(values, episode)
        return sums

    @classmethod
    def empty(cls, site: SiteInfo, episodes: int) -> "_Sums":
        steps, rows, units = site.shape
        by_episode = np.zeros((episodes, steps, rows))
        return cls(np.zeros(episodes, np.int64), by_episode, np.zeros((steps, rows, units)))

    def add(self, values: np.ndarray, episode: int) -> None:
        """Add decisions (D, K, H, N) of an episode; what is not finite is left out."""
        values = values[np.isfinite(values).all(axis=(1, 2, 3))]
        squares = np.einsum("dkhn,dkhn->khn", values, values)
        self.counts[episode] += len(values)
        self.by_episode[episode] += squares.mean(axis=-1, dtype=np.float64)
        self.squares += squares

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    @property
    def strength(self) -> np.ndarray:
        """(K, H) of the layer."""
        return np.sqrt(self.by_episode.sum(axis=0) / max(self.n, 1))

    @property
    def of_episodes(self) -> np.ndarray:
        """(episodes with decisions, K * H) strength of the layer."""
        seen = self.counts > 0
        each = self.by_episode[seen] / self.counts[seen, None, None]
        return np.sqrt(each).reshape(len(each), -1)


def _sites(one: Side) -> list[SiteInfo]:
    found = [
        site
        for site in one.traces.sites()
        if site.dims == ("D", "K", "H", "N") and "neurons" not in site.tokens
    ]
    if not found:
        raise UserError(
            f"{one.called}: no activations of the expert by denoising step and action row; record "
            f"them with {CAPTURE}"
        )
    return found


def _blocks(site: SiteInfo, one: Side, episodes: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (decisions, K, H, N) float32 and the number of their episode, in order."""
    values = one.traces.activation(site.name)
    size = max(1, BLOCK_VALUES // int(np.prod(site.shape)))
    for number, span in enumerate(decisions_of(one.traces, episodes)):
        first, last = np.searchsorted(values.decisions, (span.start, span.stop))
        for start in range(first, last, size):
            yield as_float32(values[start : min(start + size, last)]), number


def _cells(site: SiteInfo, one: Side, sums: _Sums) -> pl.DataFrame:
    """The columns that say which cell it is."""
    header = one.traces.recordings()[0].header
    steps, rows, _ = site.shape
    window = WINDOW.search(site.name)
    step = np.repeat(np.arange(steps) + (int(window[1]) if window else 0), rows)
    row = np.tile(np.arange(rows), steps)
    return pl.DataFrame(
        {
            "step": step,
            "t": 1 - step / max(header.K, 1),
            "row": row,
            "executed": row < header.n_action_steps,
        }
    ).with_columns(n=pl.lit(sums.n), episodes=pl.lit(int((sums.counts > 0).sum())), **_about(site))


def _neurons(site: SiteInfo, sums: _Sums) -> pl.DataFrame:
    steps, rows, units = site.shape
    total = sums.squares.sum(axis=(0, 1))  # (N,)
    known = np.where(total > 0, total, np.nan)
    by_step, by_row = sums.squares.sum(axis=1) / known, sums.squares.sum(axis=0) / known
    frame = pl.DataFrame(
        {
            "neuron": np.arange(units),
            "strength": np.sqrt(total / max(sums.n * steps * rows, 1)),
            "step_centre": np.arange(steps) @ by_step,
            "row_centre": np.arange(rows) @ by_row,
            "step_peak": by_step.argmax(axis=0),
            "row_peak": by_row.argmax(axis=0),
            "step_share": by_step.max(axis=0),
            "row_share": by_row.max(axis=0),
        }
    )
    return frame.with_columns(n=pl.lit(sums.n), **_about(site)).fill_nan(None)


def _changed(site: SiteInfo, one: Side, other: Side, pairs: Pairs, paired: bool) -> pl.DataFrame:
    if paired:
        base, tuned, apart = _in_step(site, one, other, pairs)
        p = shift_p(None, tuned.of_episodes - base.of_episodes)
    else:
        base, tuned = _Sums.of(site, one, pairs.base), _Sums.of(site, other, pairs.tuned)
        apart = None
        p = shift_p(base.of_episodes, tuned.of_episodes)
    before = np.where(base.strength > 0, base.strength, np.nan)
    columns = {
        "strength_base": base.strength,
        "strength_tuned": tuned.strength,
        "change": tuned.strength / before - 1,
        "moved": np.full_like(before, np.nan) if apart is None else apart.strength / before,
        "p": p,
    }
    frame = _cells(site, one, base)
    return frame.with_columns(**{name: _flat(v) for name, v in columns.items()}).fill_nan(None)


def _in_step(site: SiteInfo, one: Side, other: Side, pairs: Pairs) -> tuple[_Sums, _Sums, _Sums]:
    """Sums of both on the same decisions, and of their difference."""
    sums = [_Sums.empty(site, len(pairs.base)) for _ in range(3)]
    blocks = zip(_blocks(site, one, pairs.base), _blocks(site, other, pairs.tuned), strict=True)
    for (base, episode), (tuned, _) in blocks:
        whole = np.isfinite(base + tuned).all(axis=(1, 2, 3))
        base, tuned = base[whole], tuned[whole]
        for part, values in zip(sums, (base, tuned, tuned - base), strict=True):
            part.add(values, episode)
    return sums[0], sums[1], sums[2]


def _flat(values: np.ndarray) -> pl.Series:
    return pl.Series(values.ravel())


def _about(site: SiteInfo) -> dict[str, pl.Expr]:
    kind = site.name.split(".")[2]
    return {"site": pl.lit(site.name), "layer": pl.lit(site.layer), "kind": pl.lit(kind)}

"""One site of two policies, compared in one pass over the activations of both."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from analysis.histograms import ks_distance
from analysis.sides import Pairs, Side, decisions_of
from analysis.similarity import MAX_ROWS, cka_beside_chance, cosine
from analysis.stats import MIN_PAIRS
from analysis.tails import kolmogorov_p, student_p
from analysis.tally import Differences, Tally, as_float32
from traces.header import SiteInfo
from traces.lazy import LazyActivations

BLOCK_VALUES = 1 << 23
"""Activations of one side that are read at once."""


@dataclass
class SiteShift:
    """What was added up of a site."""

    site: SiteInfo
    base: Tally
    tuned: Tally
    differences: Differences | None
    """Only under replay."""
    sample: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    """Rows of both for CKA, at most `MAX_ROWS` in all."""
    not_finite: int = 0
    """Rows left out, padding included."""

    @property
    def known(self) -> bool:
        """Whether both sides have a row."""
        return self.base.n > 0 and self.tuned.n > 0

    @property
    def frozen(self) -> bool:
        """Whether no bit differs."""
        return bool(self.differences and self.known and not self.differences.largest.any())


def read_site(site: SiteInfo, base: Side, tuned: Side, pairs: Pairs, paired: bool) -> SiteShift:
    """Add up a site over the episodes of `pairs`; row by row if these are paired."""
    sides = [
        _Rows.of(one.traces.activation(site.name), one, episodes)
        for one, episodes in ((base, pairs.base), (tuned, pairs.tuned))
    ]
    if paired:
        sides = _in_step(*sides)
    units, sizes = site.shape[-1], (len(pairs.base), len(pairs.tuned))
    tallies = [Tally(units, n, rows.first()) for n, rows in zip(sizes, sides, strict=True)]
    found = SiteShift(site, *tallies, Differences(units, len(pairs.base)) if paired else None)
    if paired:
        _add_pairs(found, *sides)
    else:
        for tally, rows in zip(tallies, sides, strict=True):
            for raw, values, episode in rows.blocks():
                whole = np.isfinite(values).all(axis=1)
                found.not_finite += int((~whole).sum())
                tally.add(*_kept(whole, values, raw, episode))
    return found


def neuron_rows(found: SiteShift) -> pl.DataFrame:
    """One row a neuron; null where nothing can be said. Columns as `shifts.NEURONS` has them."""
    base, tuned, units = found.base, found.tuned, found.site.shape[-1]
    columns = dict.fromkeys(("shift", "d", "d_z", "ks", "ks_at_most", "ks_p", "p"), np.nan)
    if found.frozen:
        columns |= dict.fromkeys(("shift", "d", "ks", "ks_at_most"), 0.0)
    elif found.known:
        columns |= _shifted(found)
    columns |= {
        "n_base": base.n,
        "n_tuned": tuned.n,
        "mean_base": base.mean if base.n else np.nan,
        "mean_tuned": tuned.mean if tuned.n else np.nan,
        "sd_base": base.std if base.n > 1 else np.nan,
        "sd_tuned": tuned.std if tuned.n > 1 else np.nan,
        "positive_base": base.histogram.positive(),
        "positive_tuned": tuned.histogram.positive(),
    }
    frame = pl.DataFrame(
        {"neuron": np.arange(units, dtype=np.int32)}
        | {name: np.broadcast_to(value, units).copy() for name, value in columns.items()}
    )
    return frame.with_columns(frozen=pl.lit(found.frozen), **_about(found.site)).fill_nan(None)


def site_row(found: SiteShift, neurons: pl.DataFrame) -> dict[str, object]:
    """The site as a whole. Keys as `shifts.SITES` has them."""
    base, tuned = found.base, found.tuned
    size = float(np.linalg.norm(base.mean))
    shift = float(np.linalg.norm(neurons["shift"].fill_null(0.0).to_numpy()))
    d = neurons["d"].abs()
    return {
        "site": found.site.name,
        "tower": found.site.tower,
        "layer": found.site.layer,
        "kind": _kind(found.site),
        "neurons": found.site.shape[-1],
        "n_base": base.n,
        "n_tuned": tuned.n,
        "episodes_base": int((base.counts > 0).sum()),
        "episodes_tuned": int((tuned.counts > 0).sum()),
        "frozen": found.frozen,
        "mean_cosine": cosine(base.mean, tuned.mean) if found.known else None,
        "relative_shift": shift / size if found.known and size else None,
        **_alignment(found),
        "median_d": d.median(),
        "max_d": d.max(),
        "max_ks": neurons["ks"].max(),
    }


def shift_p(base: np.ndarray | None, tuned: np.ndarray) -> np.ndarray:
    """Two-sided p of a difference of means, one number an episode and neuron.

    Args:
        base: (E, N) means of the episodes of one side; None if `tuned` holds paired differences.
        tuned: (F, N) of the other.

    Returns:
        (N,) p of Student's t of the differences (df = F - 1), or of Welch's t (Biometrika 34 (1947)
        28); NaN below `stats.MIN_PAIRS` episodes, and where nothing varies.
    """
    if min(len(tuned), len(tuned) if base is None else len(base)) < MIN_PAIRS:
        return np.full(tuned.shape[1], np.nan)
    shift, df = tuned.mean(axis=0), np.full(tuned.shape[1], len(tuned) - 1.0)
    variance, size = tuned.var(axis=0, ddof=1) / len(tuned), np.abs(tuned).max(axis=0)
    if base is not None:
        of_base = base.var(axis=0, ddof=1) / len(base)
        parts = variance**2 / (len(tuned) - 1) + of_base**2 / (len(base) - 1)
        shift, variance = shift - base.mean(axis=0), variance + of_base
        size = np.maximum(size, np.abs(base).max(axis=0))
        df = variance**2 / np.where(parts > 0, parts, 1.0)
    varies = np.sqrt(variance) > 1e-7 * size  # less is what rounding leaves of a constant
    return student_p(np.where(varies, shift / np.sqrt(np.where(varies, variance, 1.0)), np.nan), df)


def _shifted(found: SiteShift) -> dict[str, np.ndarray]:
    """The columns that compare."""
    base, tuned = found.base, found.tuned
    columns = {}
    if found.differences is None:
        shift = tuned.mean - base.mean
        columns["p"] = shift_p(base.episode_means(), tuned.episode_means())
    else:
        shift, each = found.differences.mean, found.differences.episode_means()
        columns["p"] = shift_p(None, each)
        if len(each) > 1:
            columns["d_z"] = _ratio(each.mean(axis=0), each.std(axis=0, ddof=1))
    ks, at_most = ks_distance(base.histogram, tuned.histogram)
    if min((t.counts > 0).sum() for t in (base, tuned)) >= MIN_PAIRS:
        n, m = _draws(base.counts), _draws(tuned.counts)
        columns["ks_p"] = kolmogorov_p(ks, n * m / (n + m))
    spread = np.sqrt((base.std**2 + tuned.std**2) / 2)
    return columns | {
        "shift": shift,
        "d": np.where(shift == 0, 0.0, _ratio(shift, spread)),
        "ks": ks,
        "ks_at_most": at_most,
    }


def _alignment(found: SiteShift) -> dict[str, float | int | None]:
    """CKA of the sampled rows, and of the same in another order."""
    rows = sum(len(x) for x, _ in found.sample)
    if found.frozen:
        return {"cka": 1.0, "cka_shuffled": None, "cka_rows": rows}
    if not rows:
        return dict.fromkeys(("cka", "cka_shuffled", "cka_rows"))
    x, y = (np.concatenate(part) for part in zip(*found.sample, strict=True))
    found.sample.clear()
    cka, chance = cka_beside_chance(x, y)
    return {"cka": cka, "cka_shuffled": chance, "cka_rows": rows}


@dataclass(frozen=True)
class _Rows:
    """The rows of one side's episodes, in their order."""

    values: LazyActivations
    rows: np.ndarray
    episode: np.ndarray
    """Number of the episode, from 0, of each."""
    decision: np.ndarray
    """Number of the decision within its episode, of each."""

    @classmethod
    def of(cls, values: LazyActivations, one: Side, episodes: np.ndarray) -> "_Rows":
        spans = decisions_of(one.traces, episodes)
        edges = [np.searchsorted(values.decisions, (s.start, s.stop)) for s in spans]
        rows = [np.arange(start, stop) for start, stop in edges]
        offsets = [values.decisions[r] - s.start for r, s in zip(rows, spans, strict=True)]
        numbers = np.repeat(np.arange(len(spans)), [len(r) for r in rows])
        none = [np.zeros(0, int)]
        return cls(values, np.concatenate(rows + none), numbers, np.concatenate(offsets + none))

    def at(self, places: np.ndarray) -> "_Rows":
        return _Rows(self.values, self.rows[places], self.episode[places], self.decision[places])

    def first(self) -> np.ndarray:
        """(units,) of the first row that is finite, as a pivot; zeros if none of a few is."""
        flat = as_float32(_flat(self.values[self.rows[:8]]))
        whole = np.flatnonzero(np.isfinite(flat).all(axis=1))
        return flat[whole[0]] if len(whole) else np.zeros(flat.shape[1], np.float32)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield (as read, as float32, episode) with one row a token and denoising step."""
        inner = int(np.prod(self.values.shape[1:-1], dtype=int))
        size = max(1, BLOCK_VALUES // (inner * self.values.shape[-1]))
        for start in range(0, len(self.rows), size):
            block = slice(start, start + size)
            raw = _flat(self.values[self.rows[block]])
            yield raw, as_float32(raw), np.repeat(self.episode[block], inner)


def _in_step(base: _Rows, tuned: _Rows) -> list[_Rows]:
    """The rows of decisions that both recorded."""
    size = 1 + max(int(one.decision.max(initial=0)) for one in (base, tuned))
    keys = [one.episode * size + one.decision for one in (base, tuned)]
    _, ours, theirs = np.intersect1d(*keys, assume_unique=True, return_indices=True)
    return [base.at(ours), tuned.at(theirs)]


def _add_pairs(found: SiteShift, base: _Rows, tuned: _Rows) -> None:
    inner = int(np.prod(found.site.shape[:-1], dtype=int))
    stride = max(1, -(-len(base.rows) * inner // MAX_ROWS))
    seen = 0
    for (raw_b, b, episode), (raw_t, t, _) in zip(base.blocks(), tuned.blocks(), strict=True):
        place = np.arange(seen, seen + len(b))
        seen += len(b)
        whole = np.isfinite(b).all(axis=1) & np.isfinite(t).all(axis=1)
        found.not_finite += int((~whole).sum())
        raw_b, b, raw_t, t, episode, place = _kept(whole, raw_b, b, raw_t, t, episode, place)
        found.base.add(b, raw_b, episode)
        found.tuned.add(t, raw_t, episode)
        found.differences.add(b, t, episode)
        sampled = place % stride == 0
        found.sample.append((b[sampled], t[sampled]))


def _kept(whole: np.ndarray, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Rows that are whole; no copy if all are."""
    return arrays if whole.all() else tuple(array[whole] for array in arrays)


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])


def _draws(counts: np.ndarray) -> float:
    """Independent draws that a mean over episodes of these lengths is worth."""
    return counts.sum() ** 2 / (counts.astype(float) ** 2).sum()


def _ratio(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Quotients; NaN where the divisor is what rounding leaves of zero."""
    known = scale > 1e-7 * np.abs(values)
    return np.where(known, values / np.where(known, scale, 1.0), np.nan)


def _about(site: SiteInfo) -> dict[str, pl.Expr]:
    return {
        "site": pl.lit(site.name),
        "tower": pl.lit(site.tower),
        "layer": pl.lit(site.layer, pl.Int32),
        "kind": pl.lit(_kind(site)),
    }


def _kind(site: SiteInfo) -> str:
    parts = site.name.split(".")
    return parts[2] if len(parts) > 2 else site.name

"""What fine-tuning changed inside: the activations of two policies, neuron by neuron.

Two designs, always named. *replay*: both policies were given the same inputs and the same noise
(`vla-trace record --replay`), and rows are compared with rows: what differs is the representation.
*on-policy*: each went its own way, so states differ as well, and only distributions are compared.

What describes is taken over all rows: means, their shift, Cohen's d, the Kolmogorov-Smirnov
statistic, CKA. What tests has the episode as its unit, because rows of an episode follow each other
too closely to be independent draws: each episode gives one number a neuron, its mean difference
(replay; paired t) or its mean (on-policy; Welch's t). A t test, not a sign flip: with E episodes
the latter has no p below 2^(1-E), which no correction for thousands of neurons leaves standing.

    d      (mean_t - mean_b) / sqrt((s_b^2 + s_t^2) / 2)
    d_z    mean over episodes of their mean differences / standard deviation of these (replay)
    KS     sup |F_b - F_t|, known to lie between ks and ks_at_most (see `analysis.histograms`)
    ks_p   of ks, as if a sample had (sum n_e)^2 / sum n_e^2 independent draws, n_e being the rows
           of episode e: as many as it has episodes, if these are equally long. An episode's share
           of rows below x varies no more than one draw does, so this errs towards no difference.

A site of which no bit differs under replay is `frozen`: nothing before it was trained.

Everything is read once, block by block. Memory: two histograms (16 kB a neuron each), the sums of
every episode (24 bytes a neuron and episode) and the rows of CKA, of one site at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from analysis.multiplicity import CORRECTIONS, corrected
from analysis.sides import Pairs, Side, common_sites, replayed, side
from analysis.site_shift import neuron_rows, read_site, site_row
from analysis.stats import MIN_PAIRS
from traces.collection import TraceCollection
from traces.errors import UnknownName

NEURONS = {
    "site": pl.String,
    "tower": pl.String,
    "layer": pl.Int32,
    "kind": pl.String,  # ffn_act, resid_post
    "neuron": pl.Int32,
    "n_base": pl.Int64,  # rows: decisions, times tokens and denoising steps where these were kept
    "n_tuned": pl.Int64,
    "mean_base": pl.Float64,
    "mean_tuned": pl.Float64,
    "shift": pl.Float64,  # tuned - base
    "sd_base": pl.Float64,
    "sd_tuned": pl.Float64,
    "positive_base": pl.Float64,  # share of rows above 1e-6
    "positive_tuned": pl.Float64,
    "d": pl.Float64,
    "d_z": pl.Float64,
    "ks": pl.Float64,
    "ks_at_most": pl.Float64,
    "ks_p": pl.Float64,
    "p": pl.Float64,  # of the shift, over episodes
    "p_corrected": pl.Float64,  # over all neurons of the table
    "frozen": pl.Boolean,
}

SITES = {
    "site": pl.String,
    "tower": pl.String,
    "layer": pl.Int32,
    "kind": pl.String,
    "neurons": pl.Int32,
    "n_base": pl.Int64,
    "n_tuned": pl.Int64,
    "episodes_base": pl.Int64,
    "episodes_tuned": pl.Int64,
    "frozen": pl.Boolean,
    "mean_cosine": pl.Float64,  # of the two mean vectors
    "relative_shift": pl.Float64,  # |mean_t - mean_b| / |mean_b|
    "cka": pl.Float64,  # linear; replay only
    "cka_shuffled": pl.Float64,  # of the same rows in another order: what no relation gives
    "cka_rows": pl.Int64,
    "median_d": pl.Float64,  # of |d|
    "max_d": pl.Float64,
    "max_ks": pl.Float64,
    "tested": pl.Int64,  # neurons with a p
    "found": pl.Int64,  # of them, those with p_corrected <= 0.05
}


@dataclass(frozen=True)
class Shifts:
    """What `activation_shifts` found."""

    design: str
    """replay or on-policy."""
    base: str
    tuned: str
    """Policies, with the condition where it is not the baseline."""
    episodes: tuple[int, int]
    """Of base and tuned that were compared."""
    correction: str
    neurons: pl.DataFrame
    """Columns of `NEURONS`, in the order of sites; null where nothing can be said."""
    sites: pl.DataFrame
    """Columns of `SITES`."""
    notes: tuple[str, ...]


def activation_shifts(
    base: TraceCollection,
    tuned: TraceCollection,
    *,
    correction: str = "holm",
    sites: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = lambda site, done, total: None,
) -> Shifts:
    """Compare the activations of two policies.

    Args:
        base: traces of the one; its unsteered recordings count, or else its only condition.
        tuned: of the other, on the same inputs (replay) or on its own rollouts.
        correction: holm, bh or none, over all tested neurons.
        sites: names or their beginnings (`vlm`, `vlm.3`); all that both have without.
        progress: told the next site, sites done and in all.

    Raises:
        UserError: no common site, other widths, several policies or conditions on one side.
    """
    if correction not in CORRECTIONS:
        raise UnknownName("correction", correction, CORRECTIONS)
    one, other = side(base, "BASE"), side(tuned, "TUNED")
    compared = common_sites(one, other, tuple(sites))
    pairs = replayed(one, other)
    notes = [*one.notes, *other.notes, *pairs.notes]
    paired = bool(len(pairs.base))
    if not paired:
        pairs = Pairs(one.episodes, other.episodes, ())
    frames, rows, not_finite = [], [], {}
    for done, site in enumerate(compared):
        progress(site.name, done, len(compared))
        found = read_site(site, one, other, pairs, paired)
        frames.append(neuron_rows(found))
        rows.append(site_row(found, frames[-1]))
        if found.not_finite and "token" not in site.dims:  # there it is padding
            not_finite[site.name] = found.not_finite
    neurons = pl.concat(frames)
    p = neurons["p"].fill_null(float("nan")).to_numpy()
    adjusted = pl.Series("p_corrected", corrected(p, correction)).fill_nan(None)
    neurons = neurons.with_columns(adjusted).select(*NEURONS)
    tests = neurons.group_by("site").agg(
        tested=pl.col("p").count(), found=(pl.col("p_corrected") <= 0.05).sum()
    )
    table = pl.DataFrame(rows).join(tests, on="site", maintain_order="left")
    notes += _about_design(one, other, paired, len(pairs.base))
    notes += _about_rows(neurons, not_finite)
    only = [s.name for t in (base, tuned) for s in t.sites()]
    if alone := sorted({name for name in only if only.count(name) == 1}):
        more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
        notes.append(f"recorded on one side only: {', '.join(alone[:3])}{more}")
    return Shifts(
        design="replay" if paired else "on-policy",
        base=one.name,
        tuned=other.name,
        episodes=(len(pairs.base), len(pairs.tuned)),
        correction=correction,
        neurons=neurons.cast(NEURONS),
        sites=table.select(*SITES).cast(SITES),
        notes=tuple(dict.fromkeys(notes)),
    )


def _about_design(base: Side, tuned: Side, paired: bool, episodes: int) -> list[str]:
    notes = []
    if not paired:
        notes.append(
            "on-policy: each side saw its own states, so a shift may be theirs rather than the "
            "policy's; for equal states: vla-trace record --replay BASE.h5 --policy TUNED"
        )
    if base.sha256 and base.sha256 == tuned.sha256:
        same = base.condition == tuned.condition
        why = "all that differs here is noise" if same else "what differs here is the steering"
        notes.append(f"both sides have the same weights ({base.policy}): {why}")
    elif base.condition != tuned.condition:
        notes.append(f"the sides differ in condition, too: {base.condition}, {tuned.condition}")
    least = min(episodes, len(tuned.episodes))
    if least < MIN_PAIRS:
        what = "1 episode" if least == 1 else f"{least} episodes"
        notes.append(f"{what}: {MIN_PAIRS} or more are needed for a test, so there is no p")
    return notes


def _about_rows(neurons: pl.DataFrame, not_finite: dict[str, int]) -> list[str]:
    notes = [
        f"{name}: rows left out because a value is not finite: {rows}"
        for name, rows in not_finite.items()
    ]
    empty = neurons.filter((pl.col("n_base") == 0) | (pl.col("n_tuned") == 0))
    if len(empty):
        notes.append(f"sites without a finite row: {', '.join(empty['site'].unique().sort())}")
    flat = neurons.filter(pl.col("d").is_null(), pl.col("shift").is_not_null())
    if len(flat):
        notes.append(f"neurons that never vary on either side, so they have no d: {len(flat)}")
    return notes

"""What recorded neurons mean over time: which signals they follow, and how often they come back.

    from analysis.meaning import meaning
    found = meaning(["traces/*.h5"])
    found.signals.filter(pl.col("signal") == "speed").sort("p_follows")

docs/meaning.md defines every column. Read from the unsteered episodes of one policy, one site after
the other and episode by episode, so that memory holds no more than a site's rows.

A neuron follows a signal if their correlation is not 0 and goes beyond that with the signals of
other episodes of the task (`other_episodes`), whether these are laid beside it by number or by
share. All of it has to be shown, so the p of following is the largest of the three
(an intersection-union test: Berger, Technometrics 24 (1982) 295).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from analysis.conditions import count_of
from analysis.episode_means import MIN_DECISIONS, MIN_EPISODES
from analysis.generality import LABELS, RESOLVING_EPISODES
from analysis.multiplicity import corrected
from analysis.natural import Chosen, chosen_sites, natural_episodes
from analysis.onsets import OFF, ON
from analysis.signals import SIGNALS
from analysis.units import read_units
from traces.collection import open_traces
from traces.errors import UserError

LEVEL = 0.05
"""False finds among the finds that a count of neurons allows (Benjamini and Hochberg)."""

UNIT = {"site": pl.String, "layer": pl.Int32, "neuron": pl.Int32}

OF_SIGNALS = UNIT | {
    "signal": pl.String,  # of `signals.SIGNALS`
    "n": pl.Int64,  # episodes in which both change
    "r": pl.Float64,  # mean of their correlations
    "low": pl.Float64,
    "high": pl.Float64,
    "p": pl.Float64,  # that r is 0
    "p_bh": pl.Float64,  # over all neurons, signal by signal
    "r_other": pl.Float64,  # with the signals of other episodes
    "n_other": pl.Int64,  # episodes that have both
    "p_beyond": pl.Float64,  # that r is r_other; 1 if r_other is beyond r
    "p_follows": pl.Float64,  # the larger of p and p_beyond; of time, p
    "p_follows_bh": pl.Float64,
}

OF_COVERAGE = UNIT | {
    "label": pl.String,  # of `generality.LABELS`
    "logit": pl.Float64,  # above 0: general by the logistic rule
    "episodes": pl.Int64,
    "active_episodes": pl.Int64,
    "coverage": pl.Float64,
    "onset_count": pl.Float64,
    "run_length": pl.Float64,  # control steps
    "relative_run_length": pl.Float64,
    "mean_active": pl.Float64,
    "mean_peak": pl.Float64,
    "effective_episodes": pl.Float64,
    "active_tasks": pl.Int64,
    "effective_tasks": pl.Float64,
}

OF_SITES = {
    "site": pl.String,
    "layer": pl.Int32,
    "episodes": pl.Int64,
    "neurons": pl.Int64,
    **dict.fromkeys(LABELS, pl.Int64),
    "general_share": pl.Float64,  # of the neurons that are ever active
    "logistic_differs": pl.Int64,  # neurons that the logistic rule labels otherwise
}


@dataclass(frozen=True)
class Meaning:
    """What the neurons of one policy follow."""

    policy: str
    episodes: int
    decisions: int
    signals: pl.DataFrame
    """Columns of `OF_SIGNALS`: one row a neuron and signal."""
    coverage: pl.DataFrame
    """Columns of `OF_COVERAGE`: one row a neuron."""
    sites: pl.DataFrame
    """Columns of `OF_SITES`: one row a site."""
    notes: tuple[str, ...]


def meaning(paths: Iterable[Path | str], sites: Iterable[str] = ()) -> Meaning:
    """Read what the neurons in some traces follow.

    Args:
        paths: traces, as `traces.open_traces` takes them.
        sites: names of sites, or what they begin with, such as "vlm.3"; all FFN activations if
            none is named.

    Raises:
        UserError: no unsteered episode, episodes of several policies, or no such activations.
    """
    paths = list(paths)
    frame, notes = natural_episodes(paths)
    with open_traces(*paths) as traces:
        chosen = Chosen.of(traces, frame)
        names, left_out = chosen_sites(traces, tuple(sites))
        layers = {site.name: site.layer for site in traces.sites()}
        read = [read_units(traces.activation(name), layers[name], chosen) for name in names]
    seen = [one for one in read if one.coverage["episodes"][0] > 0]
    if not seen:
        raise UserError(
            f"no activations of {', '.join(names[:6])} in the unsteered episodes; record some "
            "with: vla-trace record --capture standard"
        )
    if unseen := set(names) - {one.coverage["site"][0] for one in seen}:
        notes.append(f"recorded in no unsteered episode: {', '.join(sorted(unseen))}")
    signals = corrected_signals(pl.concat([one.signals for one in seen]))
    counted = pl.concat([one.coverage for one in seen])
    about = about_recording(chosen) + _about_signals(signals) + _about_rule(chosen)
    return Meaning(
        policy=frame["policy"][0],
        episodes=len(frame),
        decisions=int(chosen.decisions.n.sum()),
        signals=signals.select(*OF_SIGNALS).cast(OF_SIGNALS),
        coverage=counted.select(*OF_COVERAGE).cast(OF_COVERAGE),
        sites=_by_site(counted),
        notes=(*notes, *left_out, *about),
    )


def corrected_signals(signals: pl.DataFrame) -> pl.DataFrame:
    """Add p values corrected over all neurons, signal by signal; what is unknown is null."""
    for name in ("p", "p_follows"):
        p, adjusted = signals[name].to_numpy(), np.full(len(signals), np.nan)
        for signal in SIGNALS:
            family = (signals["signal"] == signal).to_numpy()
            adjusted[family] = corrected(p[family], "bh")
        signals = signals.with_columns(pl.Series(f"{name}_bh", adjusted))
    return signals.fill_nan(None)


def _by_site(counted: pl.DataFrame) -> pl.DataFrame:
    """How many neurons of each site have each label, by either rule."""
    silent = pl.col("label") == "silent"
    differs = ~silent & ((pl.col("logit") > 0) != (pl.col("label") == "general"))
    return (
        counted.group_by("site", "layer", maintain_order=True)
        .agg(
            pl.col("episodes").first(),
            pl.len().alias("neurons"),
            *((pl.col("label") == name).sum().alias(name) for name in LABELS),
            pl.when((~silent).any())
            .then((pl.col("label") == "general").sum() / (~silent).sum())
            .alias("general_share"),
            differs.sum().alias("logistic_differs"),
        )
        .select(*OF_SITES)
        .cast(OF_SITES)
    )


def about_recording(chosen: Chosen) -> list[str]:
    """What the episodes allow."""
    n = chosen.decisions.n
    notes = []
    if len(n) < MIN_EPISODES:
        few = "1 episode is" if len(n) == 1 else f"{len(n)} episodes are"
        notes.append(f"{few} fewer than the {MIN_EPISODES} that an interval or a p takes")
    if short := int((n < MIN_DECISIONS).sum()):
        notes.append(
            f"{count_of(short)} with fewer than {MIN_DECISIONS} decisions: no correlation there"
        )
    if alone := int((chosen.others[:, 0] < 0).sum()):
        notes.append(f"{count_of(alone)} without another of the same task: no r_other there")
    return notes


def _about_signals(signals: pl.DataFrame) -> list[str]:
    """What never changes, and so has no correlation."""
    known = signals.group_by("signal", maintain_order=True).agg(pl.col("n").sum())
    flat = known.filter(pl.col("n") == 0)["signal"].to_list()
    if len(flat) == len(SIGNALS):
        return ["no neuron changes within an episode together with a signal: no correlation"]
    notes = []
    if flat:
        notes.append(f"never changing beside a neuron, so without correlation: {', '.join(flat)}")
    constant = signals.group_by("site", "neuron").agg(pl.col("n").sum()).filter(pl.col("n") == 0)
    if len(constant):
        notes.append(
            f"{count_of(len(constant), 'neuron')} without change in any episode: no correlation"
        )
    return notes


def _about_rule(chosen: Chosen) -> list[str]:
    """Where a recording is not what the general-or-memorised rule was fitted to."""
    rows = chosen.decisions.rows
    executed = chosen.durations[rows]
    episodes, tasks = len(chosen.task), len(np.unique(chosen.task))
    notes = [
        "general or memorised: a rule fitted to sparse features of pi0.5 on LIBERO, used on "
        f"neurons whose rows are scaled to length 1; on at {ON:g}, off at {OFF:g}"
    ]
    if len(executed) and executed.mean() > 1:
        notes.append(
            f"the policy is asked every {executed.mean():.3g} control steps, "
            f"{len(rows) / episodes:.3g} times an episode: onsets between calls are not seen, and "
            "fewer neurons are general than by the published rule, made for a row every step"
        )
    if episodes < RESOLVING_EPISODES:
        notes.append(
            f"of {count_of(episodes)}, a general neuron must be active in every one: coverage "
            f"resolves the rule's threshold from {RESOLVING_EPISODES} on"
        )
    if tasks == 1:
        notes.append("one task only: general across tasks cannot be told from general in it")
    return notes

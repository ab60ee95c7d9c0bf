"""The founding study's Figures 2, 3, 4 and Table 1, in its layouts, with what it left out.

Figure 2 showed two value vectors and their words, Figure 3 the cumulative value of training,
Figure 4 MEED over alpha, Table 1 success of base and fine-tuned policy, task by task. Here each
has n and intervals, and Figure 4 the baseline and random clusters. What traces do not hold is said,
with the command that records it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from analysis.drawing import GREY, axes_of, cycle, rendered
from analysis.outcome import Condition, Report, analyse
from analysis.report_tables import Options, tables
from analysis.stats import wilson
from traces.collection import open_traces

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LACKING = {
    "figure-2": "no steered concept in these files: vla-trace record --steer fast",
    "figure-3": "no traces of training in these files: vla-trace train --traces 1",
    "figure-4": "no steering at a dose in these files: vla-trace sweep --help",
    "table-1": "no two policies on the same tasks in these files: vla-trace record --policy FOLDER",
}
TOLD = (
    "95 % intervals: Wilson; of differences Newcombe. p: exact McNemar over pairs (Fisher where",
    "there are none), corrected by Holm over the tasks.",
)
NO_DIFFERENCE = "no detectable difference"


@dataclass(frozen=True)
class Study:
    """Files by name, and sentences about those that could not be made."""

    files: dict[str, bytes]
    """figure-2.svg, ..., table-1.md."""
    notes: tuple[str, ...]


def study(paths: Iterable[Path | str], kind: str = "svg", base: str = "") -> Study:
    """Make what some traces hold of the study's figures and table.

    Args:
        paths: traces, as `open_traces` takes them.
        kind: of the figures, svg or png.
        base: which policy is the base of Table 1, see `base_policy.base_policy`.
    """
    paths = list(paths)
    clusters, report = read_clusters(paths), analyse(paths)
    value = tables("advantages", paths).frames["value_curve"]
    tasks = tables("training", paths, Options(base))
    made = {
        f"figure-2.{kind}": rendered(lambda: figure_2(clusters), kind),
        f"figure-3.{kind}": rendered(lambda: figure_3(value), kind),
        f"figure-4.{kind}": rendered(lambda: figure_4(report), kind),
        "table-1.md": table_1(tasks.frames["training_tasks"]).encode(),
    }
    lacking = [LACKING[name.partition(".")[0]] for name, file in made.items() if not file]
    return Study({name: file for name, file in made.items() if file}, tuple(lacking))


def read_clusters(paths: Iterable[Path | str]) -> list[dict]:
    """Return the provenance of every steered concept in some traces, each cluster once."""
    found = {}
    with open_traces(*paths) as traces:
        for recording in traces.recordings():
            done = recording.header.intervention
            if done and recording.header.condition.role == "steered":
                about = done.provenance
                if _is_cluster(about):
                    found[about["concept"], *about["neurons"]] = about
    return [found[key] for key in sorted(found)]


def _is_cluster(about: dict) -> bool:
    """Whether a provenance says what Figure 2 shows; files may hold anything."""
    names, far = about.get("neurons"), about.get("distances")
    return (
        isinstance(about.get("concept"), str)
        and isinstance(names, list)
        and isinstance(far, list)
        and 0 < len(names) == len(far)
        and all(isinstance(name, str) for name in names)
        and all(isinstance(d, int | float) and abs(d) < 1e9 for d in far)
    )


def figure_2(clusters: list[dict]) -> Figure | None:
    """The neurons of each concept, by cosine distance of their meaning from the first one's."""
    if not clusters:
        return None
    tallest = max(len(about["neurons"]) for about in clusters)
    figure, axes = axes_of(len(clusters), 4.2 * len(clusters), 1.6 + 0.24 * tallest)
    for one, about, colour in zip(axes, clusters, cycle(), strict=False):
        places = range(len(about["neurons"]))
        one.barh(places, about["distances"], color=colour, height=0.6)
        one.set_yticks(places, [f"neuron {name}" for name in about["neurons"]], fontsize=8)
        one.invert_yaxis()
        words = [str(word).strip() for word in about.get("hit_tokens") or ()]
        told = f"first neuron: {about.get('hits', '?')} words of {about['concept']}"
        told += f", {about.get('opposite_hits', '?')} of {about.get('opposite', 'its opposite')}"
        one.set_title(
            f"{about['concept']} (n {len(places)} neurons)\n{told}\n{_lines(words)}",
            fontsize=8,
            loc="left",
            color="black",
        )
        one.set(xlabel="cosine distance from the first neuron\n(layer:neuron)")
    return figure


def _lines(words: list[str], per_line: int = 5) -> str:
    groups = zip_longest(*[iter(words[:15])] * per_line, fillvalue="")
    return "\n".join(", ".join(filter(None, group)) for group in groups)


def figure_3(value: pl.DataFrame) -> Figure | None:
    """The cumulative value of training, and what each update's episodes returned, with interval."""
    if value.is_empty():
        return None
    figure, (left, right) = axes_of(2, width=9.5)
    runs = value.partition_by("run_id", as_dict=True, maintain_order=True)
    for colour, ((run,), own) in zip(cycle(), runs.items(), strict=False):
        label = f"{run} (n {own['n'].sum()} episodes)"
        left.plot(own["update"], own["value_cumulative"], "o-", color=colour, ms=3, label=label)
        right.plot(own["update"], own["value"], ".", color=colour, alpha=0.6)
        right.plot(own["update"], own["value_so_far"], color=colour)
        for update, mean, n in own.select("update", "value", "n").iter_rows():
            if 0 <= mean <= 1 and n:  # else returns are no successes
                right.plot([update] * 2, wilson(round(mean * n), n), color=colour, linewidth=0.7)
    left.set(xlabel="update", ylabel="cumulative value\n[sum of mean returns]")
    right.set(xlabel="update", ylabel="mean return of the update\n(95 %), of all so far (line)")
    left.legend(frameon=False, fontsize=8)
    return figure


def figure_4(report: Report) -> Figure | None:
    """MEED over alpha, a bar a cluster, success above it; the baseline is a band."""
    rows = [c for c in report.conditions if c.role == "steered" and c.alpha is not None]
    rows = [c for c in rows if c.meed_cm is not None]
    if not rows:
        return None
    settings = list(dict.fromkeys(_setting(c) for c in rows))
    figure, axes = axes_of(1, width=8, height=3.4 * len(settings), rows=len(settings))
    for one, setting in zip(axes, settings, strict=True):
        own = [c for c in rows if _setting(c) == setting]
        _bars(one, own)
        for base in report.conditions:
            if base.role == "baseline" and _setting(base) == setting and base.meed_ci:
                label = f"baseline (n {base.episodes})"
                one.axhline(base.meed_cm, color="black", linewidth=1, label=label)
                one.axhspan(*base.meed_ci, color=GREY, alpha=0.3, linewidth=0)
        others = [c for c in report.conditions if c.role == "random" and _setting(c) == setting]
        doses = sorted({c.alpha for c in own})
        dots = [(doses.index(c.alpha), c.meed_cm) for c in others if c.alpha in doses and c.meed_cm]
        if dots:
            label = f"random clusters ({len(dots)})"
            one.plot(*zip(*dots, strict=True), "k.", alpha=0.5, ms=4, label=label, zorder=3)
        one.set(xlabel="dose alpha", ylabel="MEED\n[cm per control step]")
        one.set_title(setting, fontsize=8, loc="left")
        one.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _setting(c: Condition) -> str:
    return f"{c.policy} on {c.suite} {c.task}, {c.sampler}, K {c.K}, replan {c.replan}"


def _bars(axes: object, rows: list[Condition]) -> None:
    """Groups of bars, one group a dose; success above each."""
    names = list(dict.fromkeys(c.intervention for c in rows))
    doses = sorted({c.alpha for c in rows})
    width = 0.8 / len(names)
    for colour, (place, name) in zip(cycle(), enumerate(names), strict=False):
        own = [c for c in rows if c.intervention == name]
        x = [doses.index(c.alpha) + (place - (len(names) - 1) / 2) * width for c in own]
        n = sorted({c.episodes for c in own})
        label = f"{name} (n {'-'.join(map(str, dict.fromkeys((n[0], n[-1]))))})"
        axes.bar(x, [c.meed_cm for c in own], width * 0.9, color=colour, alpha=0.8, label=label)
        for at, c in zip(x, own, strict=True):
            if c.meed_ci:
                axes.plot([at, at], c.meed_ci, color="black", linewidth=1)
            top = c.meed_ci[1] if c.meed_ci else c.meed_cm
            said = f"{c.successes}/{c.episodes}"
            axes.annotate(said, (at, top), (0, 2), textcoords="offset points", ha="center", size=7)
    axes.set_xticks(range(len(doses)), [f"{dose:g}" for dose in doses])
    axes.margins(y=0.12)


def table_1(tasks: pl.DataFrame) -> str:
    """Success of base and fine-tuned policy, task by task, as Markdown; "" without a row."""
    lines = []
    for (policy, base), own in tasks.partition_by("policy", "base", as_dict=True).items():
        lines += [f"Success of {base} (base) and {policy}", ""]
        lines += ["| task | base | fine-tuned | difference, points | pairs | p | |"]
        lines += ["|---|---|---|---|---|---|---|"]
        lines += [_task_line(row) for row in own.sort("task_id", "label").rows(named=True)]
        lines += [
            "",
            "95 % intervals: Wilson; of differences Newcombe. p: exact McNemar over pairs",
        ]
        lines += ["(Fisher where there are none), corrected by Holm over the tasks.", ""]
    return "\n".join(lines)


def _task_line(row: dict) -> str:
    def share(arm: str) -> str:
        k, n = row[f"{arm}successes"], row[f"{arm}n"]
        low, high = (100 * row[f"{arm}{end}"] for end in ("low", "high"))
        return f"{k}/{n} = {100 * k / n:.0f} % [{low:.0f}, {high:.0f}]"

    gap, low, high = (100 * row[f"difference{end}"] for end in ("", "_low", "_high"))
    p = row["p_holm"] if row["p_holm"] is not None else row["p_value"]
    verdict = NO_DIFFERENCE if p is None or p > 0.05 else "better" if gap > 0 else "worse"
    task = row["task"] if row["label"] == "baseline" else f"{row['task']}, {row['label']}"
    cells = (task, share("base_"), share(""), f"{gap:+.0f} [{low:+.0f}, {high:+.0f}]")
    more = (str(row["n_pairs"]), "-" if p is None else f"{p:.4f}", verdict)
    return f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in cells + more)} |"

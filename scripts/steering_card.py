"""Write docs/steering.md from the traces of `scripts/steering.sh`: `make steering`.

Every number comes from the traces, by way of `analysis`; nothing is measured here.
"""

import argparse
import re
from pathlib import Path

from analysis.figures import draw
from analysis.outcome import Condition, Family, Report, analyse
from analysis.stats import Interval

TEMPLATE = Path(__file__).with_suffix(".md")
DOCS = Path(__file__).parents[1] / "docs"
CONCEPTS = ("fast", "slow")


def table(conditions: list[Condition]) -> str:
    """One row a condition."""
    head = "| condition | n | success | MEED | change | common first steps | p | Holm |\n"
    return head + "|---|---|---|---|---|---|---|---|\n" + "\n".join(map(_row, conditions))


def _row(c: Condition) -> str:
    return (
        f"| {c.label} | {c.episodes} | {_success(c)} | {c.meed_cm:.3f} | "
        f"{_change(c.delta_meed_cm, c.delta_ci)} | "
        f"{_change(c.delta_meed_common_cm, c.delta_common_ci)} | {_p(c.p_value)} | {_p(c.p_holm)} |"
    )


def ranks(conditions: list[Condition]) -> str:
    """What the controls say, one line a steered condition that has random ones."""
    lines = []
    for c in conditions:
        if c.specificity and c.specificity.n_random:
            s = c.specificity
            lines.append(
                f"- **{c.label}**: beyond {s.beyond} of {s.n_random} random clusters "
                f"({s.random_cm[0]:+.3f} to {s.random_cm[-1]:+.3f}), rank p {_p(s.rank_p)}; "
                f"{_change(s.excess_cm, s.excess_ci)} more than their mean; null control bit-equal "
                f"in {s.null_equal} of {s.null_pairs} episodes."
            )
    return "\n".join(lines)


def trends(families: list[Family]) -> str:
    """The dose-response of each cluster in one sentence."""
    return "\n".join(
        f"- **{f.intervention}**: {_change(f.slope_cm_per_alpha, f.slope_ci)} cm per unit of alpha "
        f"over {', '.join(f'{a:g}' for a in f.alphas)}; Page p {_p(f.p_value)}, {f.n_pairs} pairs."
        for f in families
        if f.p_value is not None
    )


def randoms(report: Report) -> str:
    """Random clusters as one row: how many single intervals exclude zero, and their success."""
    rows = [c for c in report.conditions if c.role == "random" and c.delta_ci]
    beyond = sum(c.delta_ci[0] > 0 or c.delta_ci[1] < 0 for c in rows)
    share = sum(c.successes for c in rows) / sum(c.episodes for c in rows)
    return (
        f"Of the {len(rows)} random clusters, {beyond} have a single interval that excludes zero, "
        f"so a p against the baseline says nothing of meaning; their mean success is {share:.0%}."
    )


def section(folder: Path, name: str, kinds: tuple[str, ...]) -> dict[str, str]:
    """The texts of one sweep, and its pictures."""
    report = analyse([folder / name])
    task = report.conditions[0].task_id  # a donor of another task is no condition of this one
    shown = [c for c in report.conditions if c.role != "random" and c.task_id == task]
    steered = iter(sorted((c for c in shown if c.role == "steered"), key=_natural))
    shown = [next(steered) if c.role == "steered" else c for c in shown]
    texts = {
        name: table(shown),
        f"{name}_ranks": ranks(report.conditions),
        f"{name}_trends": trends(report.families),
        f"{name}_baseline": _success(report.conditions[0]),
        f"{name}_n": str(report.conditions[0].episodes),
        f"{name}_policy": report.conditions[0].policy,
        f"{name}_task": report.conditions[0].task,
    }
    if any(c.role == "random" for c in report.conditions):
        texts[f"{name}_randoms"] = randoms(report)
    for path in draw(report, folder / "figures" / name):
        if path.stem in kinds:
            path.replace(DOCS / "pictures" / f"steering-{name}.svg")
    return texts


def _natural(c: Condition) -> list[str]:
    """A key by which n5 comes before n10."""
    return [word.zfill(8) for word in re.split(r"(\d+)", c.label)]


def _success(c: Condition) -> str:
    low, high = c.success_ci
    return f"{c.success_rate:.0%} [{low:.0%}, {high:.0%}] ({c.successes}/{c.episodes})"


def _change(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return ""
    return f"{value:+.3f}" + (f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else "")


def _p(p: float | None) -> str:
    return "" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def main() -> None:
    """Read the traces and write the page."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--traces", type=Path, default=Path("build/steering"))
    args = parser.parse_args()
    texts = section(args.traces, "search", ())
    for concept in CONCEPTS:
        texts |= section(args.traces, concept, ("dose-response",))
    texts |= section(args.traces, "sizes", ("cluster-size",))
    texts |= section(args.traces, "ablation", ("conditions",))
    texts |= section(args.traces, "prompts", ())
    texts |= section(args.traces, "patch", ())
    (DOCS / "steering.md").write_text(TEMPLATE.read_text().format(**texts))


if __name__ == "__main__":
    main()

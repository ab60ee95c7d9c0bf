"""Say what training runs learned, from their events: `python -P scripts/training_card.py RUN ...`.

Prints Markdown tables and draws docs/pictures/training.svg; nothing is measured here. RUN is a
folder under runs/.
"""

import argparse
from pathlib import Path

from analysis.stats import SuccessDifference, paired_success, wilson
from traces.events import read_events

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "training.svg"
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#999999"  # Okabe and Ito: safe for colour-blind eyes
COLOURS = {"flow-sde": BLUE, "flow-noise": ORANGE, "gaussian": GREY}


def evaluations(run: Path, forgetting: bool = False) -> list[dict]:
    """The evaluations of a run, each with the episodes played until then."""
    played, found = 0, []
    for event in read_events(run / "events.jsonl"):
        if event["type"] == "step":
            played = event["metrics"]["rollout/episodes_total"]
        elif event["type"] == "eval" and bool(event.get("forgetting")) == forgetting:
            found.append(event | {"episodes": played})
    return found


def cpu_minutes(run: Path) -> float:
    """CPU time of the trainer, environment workers not included."""
    steps = [e for e in read_events(run / "events.jsonl") if e["type"] == "step"]
    return sum(step["metrics"]["time/cpu"] for step in steps) / 60


def config_of(run: Path) -> dict:
    """The settings a run began with."""
    return next(e for e in read_events(run / "events.jsonl") if e["type"] == "run_start")["config"]


def paired(event: dict) -> SuccessDifference:
    """The comparison with the base policy, from the pairs that an evaluation counted."""
    metrics, n = event["metrics"], event["n"]
    only_trained, only_base = metrics["eval/only_trained"], metrics["eval/only_base"]
    both = round(metrics["eval/success_once"] * n) - only_trained
    neither = n - both - only_trained - only_base
    trained = [True] * (both + only_trained) + [False] * (only_base + neither)
    base = [True] * both + [False] * only_trained + [True] * only_base + [False] * neither
    return paired_success(trained, base)


def row(run: Path, event: dict) -> str:
    """One evaluation as a row of a table."""
    share, n = event["metrics"]["eval/success_once"], event["n"]
    low, high = wilson(round(share * n), n)
    found = paired(event)
    d_low, d_high = found.ci
    return (
        f"| {run.name} | {event['task_name']} | {event['episodes']:,} | {cpu_minutes(run):.0f} | "
        f"{share:.0%} [{low:.0%}, {high:.0%}] | {event['metrics']['eval/base_success_once']:.0%} | "
        f"{100 * found.difference:+.0f} [{100 * d_low:+.0f}, {100 * d_high:+.0f}] | "
        f"{found.p_value:.1g} | {n} |"
    )


def draw(runs: list[Path]) -> None:
    """Held-out success over episodes, one line a run, with Wilson bands."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "vla-trace"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    named = set()
    for run in runs:
        kind = config_of(run)["likelihood"]
        events = evaluations(run)
        x = [event["episodes"] for event in events]
        share = [event["metrics"]["eval/success_once"] for event in events]
        bands = [wilson(round(s * e["n"]), e["n"]) for s, e in zip(share, events, strict=True)]
        axes.plot(
            x, share, "o-", ms=3, lw=1.4, c=COLOURS[kind], label=None if kind in named else kind
        )
        axes.fill_between(x, *zip(*bands, strict=True), color=COLOURS[kind], alpha=0.08, lw=0)
        named.add(kind)
    n = {event["n"] for run in runs for event in evaluations(run)}
    axes.set(
        xlabel="training episodes",
        ylabel="success on held-out scenes",
        ylim=(0, 1),
        title=f"{len(runs)} runs, n {', '.join(map(str, sorted(n)))} scenes each, 95 % bands",
    )
    axes.title.set_fontsize(9)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    """Tables on stdout, the picture in docs/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    runs = parser.parse_args().runs
    head = "| run | task | episodes | CPU min | success | base | points | McNemar p | n |"
    print(head + "\n|" + "---|" * 9)
    for run in runs:
        print(row(run, evaluations(run)[-1]))
        for event in evaluations(run, forgetting=True):
            print(row(run, event))
    print("\nEvery evaluation:\n")
    for run in runs:
        told = [
            f"{e['episodes']:,}: {e['metrics']['eval/success_once']:.0%}" for e in evaluations(run)
        ]
        print(f"- {run.name}: {', '.join(told)}")
    draw(runs)


if __name__ == "__main__":
    main()

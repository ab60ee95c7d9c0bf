"""The card of one feature: when it comes, what it follows, and where it peaks highest."""

from typing import TYPE_CHECKING

from tui.data.features import FOLLOWS
from tui.screens.feature_rows import LABEL_STYLE, corrected, correlation
from tui.terminal import one_line
from tui.widgets.lines import Span, fit, pad, wrap
from tui.widgets.table import Column, Row
from tui.wording import count, interval, number, outcome

if TYPE_CHECKING:
    from tui.data.features import FeatureCard
    from tui.data.model import Episode

NOT_HERE = "not here"
LEAST_TOP = 2
"""Episodes for which there is always room."""
EPISODES = (
    Column("", right=True),
    Column("peak", right=True),
    Column("step", right=True),
    Column("success"),
    Column("task", least=8, most=40),
    Column("episode", least=8, most=40),
)
"""Columns of the episodes to choose from."""

Lines = list[list[Span]]


def feature_card(
    card: "FeatureCard", here: "dict[str, Episode]", size: tuple[int, int], opens: str
) -> Lines:
    """Return the card for some columns and lines.

    Args:
        card: what was written of the feature.
        here: uid to episode, of those of its top episodes whose traces are in the folder.
        size: columns and lines.
        opens: the key that opens an episode.
    """
    (width, height), about = size, card.about
    label = one_line(about["label"])
    lines: Lines = [
        [(f"feature {about['feature']}", "bold"), (f"  {label}", LABEL_STYLE.get(label, "warn"))]
    ]
    for text in _facts(about):
        lines += [[(line, "")] for line in wrap(text, width, 2)]
    lines += [[], [(_signal_line("signal", "r", "95 %", "other", "p", "n"), "dim")]]
    lines += [_signal(row) for row in card.signals]
    said = f"it peaks highest in ({opens} opens one)" if card.top else "it peaks nowhere"
    lines += [[], [(fit(said, width), "dim")]]
    room = max(LEAST_TOP, height - len(lines))
    return lines + [_episode(row, here.get(row["uid"]), width) for row in card.top[:room]]


def _facts(about: dict) -> list[str]:
    active, episodes = about["active_episodes"], about["episodes"]
    found = [f"active in {active} of {episodes} episodes; tasks: {about['active_tasks']}"]
    if about["onset_count"] is not None:
        onsets, steps = number(about["onset_count"], 1), number(about["run_length"], 1)
        found.append(f"{onsets} onsets an episode, of {steps} steps")
    else:
        found.append("no onset: below a tenth of a row throughout")
    peak, length = number(about["mean_peak"], 3), number(about["peak_length"], 3)
    found.append(f"mean peak {peak} of a row, {length} in the activations")
    return found


def _signal(row: dict) -> list[Span]:
    """One signal: r with its interval, r with other episodes' signals, corrected p, n."""
    low, high, p = row["low"], row["high"], row["p_follows_bh"]
    sure = interval((low, high), correlation).replace(" ", "") if low is not None else ""
    cells = (
        one_line(row["signal"]),
        correlation(row["r"]),
        sure,
        correlation(row["r_other"]),
        corrected(p).replace(" ", ""),
        str(row["n"]),
    )
    return [(_signal_line(*cells), "" if p is not None and p < FOLLOWS else "dim")]


def _signal_line(name: str, r: str, sure: str, other: str, p: str, n: str) -> str:
    numbers = ((r, 4), (sure, 11), (other, 5), (p, 6), (n, 3))
    return pad(name, 15) + "".join(" " + pad(text, width, right=True) for text, width in numbers)


def _episode(row: dict, episode: "Episode | None", width: int) -> list[Span]:
    mark, style = outcome(row["success"], "")
    place = f"#{count(episode.number)}" if episode is not None else NOT_HERE
    rank, peak, step = row["rank"] + 1, number(row["peak"], 3), row["step"]
    text = f"{rank:2d} {peak} step {step:4d} "
    task = fit(f" {one_line(row['task'])} {place}", width - len(text) - 1)
    return [(text, ""), (mark[:1], style), (task, "" if episode is not None else "dim")]


def episode_rows(card: "FeatureCard", here: "dict[str, Episode]") -> list[Row]:
    """Return the episodes to choose from; the key of a row is its place in the card."""
    rows = []
    for place, row in enumerate(card.top):
        episode = here.get(row["uid"])
        name = f"{episode.condition} #{count(episode.number)}" if episode else NOT_HERE
        cells = (
            (str(row["rank"] + 1), "dim"),
            (number(row["peak"], 3), ""),
            (str(row["step"]), ""),
            outcome(row["success"], ""),
            (one_line(row["task"]), ""),
            (name, "" if episode else "dim"),
        )
        rows.append(Row(place, cells))
    return rows

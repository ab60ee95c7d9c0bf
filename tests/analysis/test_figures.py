"""Figures: what is drawn is what was measured, and the same report gives the same bytes."""

import pytest

from analysis.controls import family
from analysis.figures import by_condition, by_size, dose_response, draw, overview
from analysis.outcome import analyse

N = 6


@pytest.fixture
def swept(traces, tmp_path):
    """Two sizes at two doses, random clusters and a prompt."""
    base = [traces.episode(f"p{i}", [1.0 + 0.1 * i] * 3, success=True) for i in range(N)]
    files = [traces.write(tmp_path / "base.h5", base)]

    def arm(name, gain, **how):
        rows = [
            traces.episode(f"p{i}", [1.0 + 0.1 * i + gain + 0.01 * (i % 3)] * 3) for i in range(N)
        ]
        files.append(traces.write(tmp_path / f"{name}.h5", rows, **how))

    for size in (2, 3):
        for alpha in (4.0, 8.0):
            cluster = traces.steer(alpha, f"fast L1 n{size}", neurons=tuple(range(size)))
            arm(f"s{size}a{alpha:g}", 0.01 * size * alpha, intervention=cluster)
            if size == 2:
                random = traces.steer(
                    *(alpha, "random 0 for fast L1 n2"),
                    neurons=(40, 41),
                    control="random",
                    matched_to=family(cluster),
                )
                arm(f"r{alpha:g}", 0.02, intervention=random)
    arm("told", 0.3, prompt="{} quickly")
    arm("empty", -0.3, prompt="")
    return files


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_the_dose_response_holds_the_measured_points(swept):
    report = analyse(swept)
    left, right = dose_response(report).axes
    drawn = [container for container in left.containers]
    assert len(drawn) == 2
    doses, change = drawn[0].lines[0].get_data()
    steered = [c for c in report.conditions if c.intervention == "fast L1 n2"]
    assert list(doses) == [4, 8]
    assert list(change) == [c.delta_meed_cm for c in steered]
    assert "random clusters (2)" in lines(left)
    assert "n 6" in drawn[0].get_label()
    assert "cm" in left.get_ylabel()
    assert list(lines(right)["fast L1 n2"].get_ydata()) == [0.0, 0.0]


def test_cluster_sizes_and_conditions_without_dose(swept):
    report = analyse(swept)
    (axes,) = by_size(report).axes
    assert [c.get_label() for c in axes.containers] == [
        "fast L1 α=4 (n 6)",
        "fast L1 α=8 (n 6)",
    ]
    assert list(axes.containers[0].lines[0].get_xdata()) == [2, 3]
    left, _ = by_condition(report).axes
    labels = [text.get_text() for text in left.get_yticklabels()]
    assert labels == ['told "" (n 6)', 'told "... quickly" (n 6)']


def test_the_same_report_gives_the_same_bytes(swept, tmp_path):
    one = draw(analyse(swept), tmp_path / "one")
    other = draw(analyse(swept[::-1]), tmp_path / "other")
    assert [path.name for path in one] == [
        "overview.svg",
        "dose-response.svg",
        "cluster-size.svg",
        "conditions.svg",
    ]
    for a, b in zip(one, other, strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_nothing_to_draw_draws_nothing(traces, tmp_path):
    empty = traces.write(tmp_path / "empty.h5", [])
    assert draw(analyse([empty]), tmp_path / "none") == []


def test_the_overview_has_every_condition_but_random_clusters(swept):
    report = analyse(swept)
    success, meed, change = overview(report).axes
    shown = [c for c in report.conditions if c.role != "random"]
    labels = [text.get_text() for text in success.get_yticklabels()]
    assert labels == [f"{c.label} (n {c.episodes})" for c in shown]
    dots = [line.get_xdata()[0] for line in meed.lines if line.get_marker() == "o"]
    assert dots == [c.meed_cm for c in shown if c.meed_cm is not None]
    assert len(change.lines) == 1 + 2 * sum(c.delta_ci is not None for c in shown)  # and zero

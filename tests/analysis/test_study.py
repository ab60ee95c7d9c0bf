"""The study's figures and table, from traces that hold them and from traces that do not."""

import numpy as np
import pytest

from analysis.outcome import analyse
from analysis.report_tables import tables
from analysis.study import LACKING, figure_2, figure_3, figure_4, read_clusters, study, table_1

N = 8
TUNED = {"sha256": "cd" * 32, "policy_path": "runs/a/checkpoints/000010/pretrained_model"}


@pytest.fixture
def steered(traces, tmp_path):
    """Two concepts at two doses, and a random cluster, eight pairs each."""

    def arm(gain, success):
        return [
            traces.episode(f"p{i}", [1 + 0.1 * i + gain + 0.01 * (i % 3)] * 3, success=i < success)
            for i in range(N)
        ]

    traces.write(tmp_path / "base.h5", arm(0, 6))
    for concept, gain in (("fast", 0.1), ("slow", -0.1)):
        about = {"neurons": ["1:0", "1:2"], "distances": [0.0, 0.25], "hit_tokens": [" quick"]}
        about |= {"opposite": "none", "opposite_hits": 0}
        for alpha in (4.0, 8.0):
            steer = traces.steer(alpha, concept, neurons=(0, 2) if concept == "fast" else (1, 3))
            steer.provenance.update(about)
            traces.write(tmp_path / f"{concept}{alpha:g}.h5", arm(gain * alpha, 4), steer)
    return tmp_path


@pytest.fixture
def trained(traces, tmp_path):
    """Two updates of two groups of four, of which one has no variance."""
    drawn = [(0, 0, 4), (0, 1, 1), (1, 0, 4), (1, 1, 2)]
    update, group, won = (np.array(column) for column in zip(*drawn, strict=True))
    groups = {"update": update, "group": group, "n_success": won, "return_mean": won / 4}
    groups |= dict.fromkeys(("policy_version", "task_id", "init_state", "scene_seed"), 0 * group)
    groups |= {"n_members": 0 * group + 4, "return_std": (won < 4) * 0.5, "accepted": won < 4}
    groups["reason"] = ["" if n < 4 else "no variance" for n in won]
    return traces.write(
        tmp_path / "train.h5", [], kind="grpo", run_id="run", tables={"groups": groups}
    )


def test_figure_2_holds_the_distances_and_the_words(steered):
    figure = figure_2(read_clusters([steered]))
    fast, slow = figure.axes
    assert [bar.get_width() for bar in fast.patches] == [0, 0.25]
    assert [text.get_text() for text in slow.get_yticklabels()] == ["neuron 1:0", "neuron 1:2"]
    title = fast.get_title(loc="left")
    assert "fast (n 2 neurons)" in title and "5 words of fast, 0 of none" in title
    assert "quick" in title


def test_a_concept_counts_once_and_odd_provenance_not_at_all(traces, steered):
    assert [about["concept"] for about in read_clusters([steered])] == ["fast", "slow"]
    odd = traces.steer(2.0, "odd", distances="near")
    traces.write(steered / "odd.h5", [traces.episode("p0", [1.0])], odd)
    assert [about["concept"] for about in read_clusters([steered])] == ["fast", "slow"]


def test_figure_3_sums_the_mean_returns(trained):
    value = tables("advantages", [trained]).frames["value_curve"]
    left, right = figure_3(value).axes
    (curve,) = left.get_lines()
    assert list(curve.get_ydata()) == [pytest.approx(5 / 8), pytest.approx(5 / 8 + 6 / 8)]
    assert curve.get_label() == "run (n 16 episodes)"
    assert list(right.get_lines()[1].get_ydata()) == [pytest.approx(5 / 8), pytest.approx(11 / 16)]


def test_figure_4_has_a_bar_a_cluster_and_dose(steered):
    report = analyse([steered])
    (axes,) = figure_4(report).axes
    heights = [bar.get_height() for container in axes.containers for bar in container]
    expected = [
        c.meed_cm for name in ("fast", "slow") for c in report.conditions if c.intervention == name
    ]
    assert heights == expected and len(heights) == 4
    assert [text.get_text() for text in axes.texts] == ["4/8"] * 4
    labels = axes.get_legend_handles_labels()[1]
    assert {"baseline (n 8)", "fast (n 8)", "slow (n 8)"} == set(labels)


def test_table_1_has_counts_intervals_and_a_verdict(traces, tmp_path):
    for name, solved, how in (("base", 2, {}), ("tuned", 8, TUNED)):
        arm = [traces.episode(f"p{i}", [1.0] * 2, success=i < solved) for i in range(N)]
        traces.write(tmp_path / f"{name}.h5", arm, **how)
    text = table_1(tables("training", [tmp_path]).frames["training_tasks"])
    (line,) = [row for row in text.splitlines() if row.startswith("| lift")]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[1].startswith("2/8 = 25 % [") and cells[2].startswith("8/8 = 100 % [")
    assert cells[3].startswith("+75 [") and cells[4:] == ["8", "0.0312", "better"]


def test_a_difference_that_is_none_is_called_so(traces, tmp_path):
    for name, how in (("base", {}), ("tuned", TUNED)):
        arm = [traces.episode(f"p{i}", [1.0] * 2, success=i < 4) for i in range(N)]
        traces.write(tmp_path / f"{name}.h5", arm, **how)
    assert b"no detectable difference" in study([tmp_path]).files["table-1.md"]


def test_what_traces_do_not_hold_is_said(steered, traces, tmp_path_factory):
    found = study([steered])
    assert set(found.files) == {"figure-2.svg", "figure-4.svg"}
    assert found.notes == (LACKING["figure-3"], LACKING["table-1"])
    empty = traces.write(tmp_path_factory.mktemp("none") / "empty.h5", [])
    assert study([empty]).notes == tuple(LACKING.values())


def test_the_order_of_files_changes_no_byte(steered):
    files = sorted(steered.glob("*.h5"))
    assert study(files).files == study(files[::-1]).files

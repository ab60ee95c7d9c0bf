"""A training's log folded into plain data."""

import importlib.util
import json
import math
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.events import EVENT_TYPES
from tui.data.model import Run
from tui.data.run_log import RunLog
from tui.data.series import (
    axis_end,
    evaluation_points,
    metric_points,
    nice_range,
    success_points,
)
from tui.data.training import Group, Member, Phase, Training
from tui.data.training_log import TrainingLog
from tui.screens import live_panels as panels
from tui.status import status_json, status_lines

_path = Path(__file__).parent / "golden" / "scenes.py"
_spec = importlib.util.spec_from_file_location("tui_scenes", _path)
scenes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scenes)
NOW = scenes.NOW


def folded(run):
    log = RunLog(run.log.path)
    log.poll()
    return log.training.frozen()


def test_a_running_training(tmp_path):
    training = folded(scenes.training(tmp_path))
    assert (training.done, training.present, training.total) == (14, 15, 60)
    assert list(training.updates) == list(range(1, 15))
    assert training.at(14, "train/actor/grad_norm") == 12.5
    assert math.isnan(training.at(15, "train/actor/grad_norm"))
    assert math.isnan(training.at(14, "no/such"))
    assert [e.update for e in training.evaluations] == [0, 10]
    assert training.evaluation.success.rate == 0.56
    assert training.evaluation.base.rate == 0.46
    assert [update for update, _ in training.checkpoints] == [10]
    assert (training.phase.name, training.phase.done, training.phase.total) == ("rollout", 45, 64)


def test_groups_fill(tmp_path):
    training = folded(scenes.training(tmp_path))
    first, dead = training.groups[15][:2]
    assert [m.success for m in first.ended] == [True, False, False, True, False, False]
    assert first.members[6:] == (None, None)
    assert (first.full, first.mean, first.verdict) == (False, pytest.approx(1 / 3), "")
    assert first.advantages("group") == ()
    assert dead.verdict == ""
    assert [group.verdict for group in training.groups[14]][:3] == ["", "DEAD", "SAT"]
    assert len(training.groups[1]) == 8


def test_groups_of_the_latest_updates_alone_are_kept(tmp_path):
    log = RunLog(scenes.training(tmp_path).log.path, groups_kept=3)
    log.poll()
    training = log.training.frozen()
    assert list(training.groups) == [12, 13, 14, 15]
    assert training.done == 14
    said = "".join(text for text, _ in panels.groups_heading(training, 11, 90))
    assert "vla-trace snapshot RUN --around 11" in said
    assert "snapshot" not in "".join(text for text, _ in panels.groups_heading(training, 12, 90))


def test_groups_are_there_before_their_first_episode(tmp_path):
    training = folded(scenes.TrainingRun(tmp_path).rollout(1, episodes=0))
    assert [len(group.members) for group in training.groups[1]] == [8] * 8
    assert all(group.mean is None for group in training.groups[1])


def test_a_second_round_adds_groups(tmp_path):
    run = scenes.TrainingRun(tmp_path).rollout(1)
    run.emit("phase", name="rollout", update=0, attempt=1, total=16)
    training = folded(run)
    assert [group.attempt for group in training.groups[1]] == [0] * 8 + [1] * 2
    assert (training.phase.done, training.phase.total) == (64, 80)
    assert training.phase.began == NOW - 3600


MEMBERS = {won: Member(won, float(won), 50) for won in (False, True)}


def group(*won, **more):
    return Group(1, 0, members=tuple(MEMBERS[w] for w in won), **more)


def test_advantages_by_hand():
    """Returns 1, 0, 0, 0: mean 1/4, std (ddof 1) 1/2."""
    one = group(True, False, False, False)
    assert one.advantages("group") == pytest.approx((1.5, -0.5, -0.5, -0.5), rel=1e-5)
    assert one.advantages("rloo") == pytest.approx((1.0, -1 / 3, -1 / 3, -1 / 3))
    assert one.advantages("state") == ()  # needs what happened before
    assert group(True, False, values=(0.1, -0.2)).advantages("state") == (0.1, -0.2)


def test_verdicts():
    assert group(False, False).verdict == "DEAD"
    assert group(True, True).verdict == "SAT"
    assert group(True, False).verdict == ""
    same = Group(1, 0, members=(Member(True, 0.5, 9), Member(False, 0.5, 9)))
    assert same.verdict == "FLAT"


def test_episodes_that_share_scenes_say_less(tmp_path):
    training = folded(scenes.TrainingRun(tmp_path).update(1))
    success = training.success(1)
    assert (success.n, success.successes) == (64, 38)
    assert 8 <= success.effective < 64


def test_what_a_phase_usually_takes(tmp_path):
    run = scenes.training(tmp_path)
    training = folded(run)
    assert training.usual["rollout"] == pytest.approx(12.8)
    assert training.usual["update"] == pytest.approx(18.0)
    assert training.usual["eval"] == pytest.approx(20.0)
    began = training.phase.began
    assert training.phase_left(began + 2.8) == pytest.approx(10.0)
    assert training.update_left(began + 2.8) == pytest.approx(28.0)
    assert training.phase_left(began + 99) == 0
    # 45 more updates of 30.8 s after this one, evaluations after 20, 30, 40, 50 and 60
    assert training.run_left(began + 2.8) == pytest.approx(28.0 + 45 * 30.8 + 5 * 20.0)


def test_without_history_progress_gives_the_estimate():
    training = Training(phase=Phase("rollout", 1, 100.0, 16, 64))
    assert training.phase_left(110.0) == pytest.approx(30.0)
    assert training.update_left(110.0) is None
    assert training.run_left(110.0) is None


def test_a_resumed_run_goes_back(tmp_path):
    run = scenes.TrainingRun(tmp_path).trained(12)
    run.emit("run_start", run_id=run.run_id, kind="grpo", resumed=True, update=10)
    assert folded(run).done == 10
    training = folded(run.update(11))
    assert list(training.updates) == list(range(1, 12))
    assert len(training.history["time/step"]) == 11
    assert 12 not in training.groups


def test_an_alert_that_goes_on_is_one(tmp_path):
    run = scenes.TrainingRun(tmp_path).trained(3)
    for update in (4, 5, 6, 7):
        run.update(update, **{"rollout/frac_reward_zero_std": 0.9})
    (alert,) = folded(run).alerts
    assert (alert.rule, alert.update, alert.until) == ("zero_variance", 6, 7)
    training = folded(run.update(8))
    assert training.active(7)
    assert training.active(8) == []


def test_alerts_of_the_run_itself_are_kept(tmp_path):
    run = scenes.TrainingRun(tmp_path).rollout(1)
    run.emit("alert", level="warning", rule="out_of_memory", value=64, threshold=32, message="oom")
    (alert,) = folded(run).alerts
    assert (alert.level, alert.rule, alert.update, alert.logged) == (
        "warn",
        "out_of_memory",
        1,
        True,
    )


def test_what_is_frozen_stays(tmp_path):
    run = scenes.TrainingRun(tmp_path).update(1)
    log = RunLog(run.log.path)
    log.poll()
    before = log.training.frozen()
    run.update(2)
    log.poll()
    assert before.done == 1
    assert log.training.frozen().done == 2


def test_episodes_of_earlier_updates_are_not_kept(tmp_path):
    log = RunLog(scenes.TrainingRun(tmp_path).update(1).rollout(2, episodes=5).log.path)
    log.poll()
    assert len(log.episodes) == 5


def test_a_long_log_is_read_bit_by_bit(tmp_path, monkeypatch):
    monkeypatch.setattr("tui.data.run_log.AT_ONCE", 2000)
    path = scenes.TrainingRun(tmp_path).trained(3).log.path
    log = RunLog(path)
    log.poll(0.0)
    assert log.behind
    seen = 0
    while log.behind:
        before = log.version
        log.poll(0.0)
        seen += log.version > before
    assert seen > 5
    assert log.training.frozen().done == 3


def test_ten_thousand_updates(tmp_path):
    """Folded, frozen and drawn; the whole takes a second or two on a busy machine."""
    fold = TrainingLog()
    fold.add({"type": "run_start", "t": 0.0, "kind": "grpo", "config": {"updates": 10_000}})
    metrics = {f"train/actor/m{i}": 0.5 for i in range(20)}
    metrics |= {"env/success_once": 0.5, "rollout/episodes": 64.0}
    for update in range(1, 10_001):
        fold.add({"type": "step", "t": float(update), "update": update, "metrics": metrics})
    training = fold.frozen()
    assert training.done == 10_000
    began = time.process_time()
    assert len(success_points(training, 100, smooth=False)) == 100
    assert len(metric_points(training, "train/actor/m3", 100, "smoothed")) == 100
    assert time.process_time() - began < 5  # no more than linear


TEXT = st.text(alphabet="a\x1b\n/", max_size=3)
NUMBER = st.one_of(st.integers(-3, 9), st.floats(), st.sampled_from([2**63, -(2**70), 10**400]))
METRICS = ("env/success_once", "rollout/episodes", "eval/success_once", "updates", "group_size")
ODD = st.one_of(
    st.none(),
    st.booleans(),
    NUMBER,
    TEXT,
    st.sampled_from(["rollout", "update", "eval", "grpo", "error"]),
    st.lists(NUMBER, max_size=3),
    st.dictionaries(st.sampled_from([*METRICS, "groups", "\x1b"]), st.one_of(NUMBER, TEXT)),
)
FIELDS = """update name done total group member success return n_steps task_id metrics n config kind
resumed level rule message value attempt advantages accepted reason path task_name scene_seed
forgetting status""".split()
EVENTS = st.builds(
    lambda kind, t, fields: {"type": kind, "t": t} | fields,
    st.sampled_from([*EVENT_TYPES, "unheard of"]),
    st.one_of(st.integers(0, 9), st.floats()),
    st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=8),
)


@given(st.lists(EVENTS, max_size=12))
def test_whatever_stands_in_a_log_is_folded_and_told(events):
    log = RunLog(Path("runs/odd/events.jsonl"))
    log.add({"type": "run_start", "t": 0.0, "kind": "grpo", "config": {"group_size": 2}})
    for event in events:
        log.add(event)
    training = log.training.frozen()
    assert all(len(values) == len(training.updates) for values in training.history.values())
    assert list(training.updates) == sorted(set(training.updates))
    json.dumps(status_json(log, 20.0), allow_nan=False)
    assert all(line.isprintable() for line in status_lines(log, 20.0))
    run = Run("odd", "odd", "running", training=training, heard=10.0)
    for viewed in (None, 1, training.done):
        said = [
            panels.title(run, viewed, False, 20.0, "f", "!"),
            *panels.step_lines(run, viewed, 20.0, 40, 10),
            *panels.strip_lines(training, training.done, 40, 10),
            *panels.news_lines(training, 40, 10),
            panels.machine_line(training, training.done, None, 20.0, 80),
        ]
        assert all(text.isprintable() for line in said for text, _ in line)
    for groups in training.groups.values():
        for group in groups:
            panels.group_row(group, training.advantage)
    success_points(training, 20, smooth=True)
    for metric in training.history:
        nice_range(metric_points(training, metric, 20, "log"))


# What the charts draw


def training_of(values, metric="x", total=None):
    fold = TrainingLog()
    config = {"updates": total} if total else {}
    fold.add({"type": "run_start", "t": 0.0, "config": config})
    for update, value in enumerate(values, start=1):
        fold.add({"type": "step", "t": 1.0, "update": update, "metrics": {metric: value}})
    return fold.frozen()


def test_points_of_a_metric():
    training = training_of([1.0, 10.0, math.nan, -1.0], total=10)
    linear = metric_points(training, "x", 40, "linear")
    assert [(p.x, p.y) for p in linear] == [(1, 1), (2, 10), (4, -1)]
    assert [p.y for p in metric_points(training, "x", 40, "log")] == [0, 1]
    assert [p.y for p in metric_points(training, "x", 40, "smoothed")][1] == 5.5


def test_updates_of_one_column_are_averaged():
    training = training_of([1.0, 3.0, 5.0, 7.0], total=4)
    assert [p.y for p in metric_points(training, "x", 2, "linear")] == [2.0, 6.0]


def test_evaluations_of_one_update_are_pooled(tmp_path):
    run = scenes.TrainingRun(tmp_path)
    for task, won in ((1, 0.2), (2, 0.6)):
        run.emit("eval", update=0, task_id=task, n=50, metrics={"eval/success_once": won})
    run.emit("eval", update=0, task_id=3, n=50, forgetting=True, metrics={"eval/success_once": 1})
    run.update(1)
    (point,) = evaluation_points(folded(run))
    assert (point.x, point.y) == (0.0, pytest.approx(0.4))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0, 1.0], (0.0, 1.0)), ([1.2, 11.3], (1.0, 12.0)), ([0.004, 0.0071], (0.0035, 0.0075))],
)
def test_ranges_are_round(values, expected):
    points = metric_points(training_of(values), "x", 50, "linear")
    low, high = nice_range(points)
    assert low <= min(values)
    assert high >= max(values)
    assert high - low <= 1.5 * (max(values) - min(values))


def test_the_axis_ends_at_what_is_wanted():
    assert axis_end(training_of([1.0] * 3, total=60)) == 60
    assert axis_end(training_of([1.0] * 3)) == 5
    assert axis_end(training_of([1.0] * 21)) == 50
    assert axis_end(training_of([1.0] * 70, total=60)) == 70

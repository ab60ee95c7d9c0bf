"""Alert rules, on histories made by hand."""

import math

import pytest

from analysis import alerts
from analysis.alerts import Seen, evaluation_alerts, step_alerts
from analysis.proportions import Proportion

KL, GRAD, LOSS = alerts.KL, alerts.GRAD, alerts.LOSS


def seen(metric=None, values=(), **more):
    history = {metric: list(values)} if metric else {}
    for name, held in more.pop("history", {}).items():
        history[name] = list(held)
    step = {name: held[-1] for name, held in history.items()}
    return Seen(len(values), step, history, **more)


def rules(found):
    return [alert.rule for alert in step_alerts(found)]


def test_a_quiet_update_raises_nothing():
    quiet = {KL: [0.01] * 20, GRAD: [1.0] * 20, LOSS: [0.2, 0.3] * 10, alerts.ZERO_STD: [0.3] * 20}
    assert rules(seen(history=quiet, successes=[Proportion(32, 64)] * 10)) == []
    assert rules(seen()) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("metric", [LOSS, GRAD])
def test_what_is_not_finite(metric, value):
    (alert,) = step_alerts(seen(metric, [1.0, value]))
    assert (alert.level, alert.rule, alert.metric, alert.update) == (
        "error",
        "not_finite",
        metric,
        2,
    )


def test_kl_ten_times_its_median():
    past = [0.01, 0.02, 0.03] * 5  # median 0.02
    assert rules(seen(KL, [*past, 0.2])) == []
    (alert,) = step_alerts(seen(KL, [*past, 0.21]))
    assert (alert.rule, alert.value, alert.threshold) == ("kl_spike", 0.21, pytest.approx(0.2))
    assert alert.text == "approx_kl 0.21 > 10 x median 0.02"


def test_a_median_needs_ten_updates():
    assert rules(seen(KL, [0.01] * 9 + [1.0])) == []
    assert rules(seen(KL, [0.01] * 10 + [1.0])) == ["kl_spike"]
    assert rules(seen(KL, [math.nan] * 5 + [0.01] * 9 + [1.0])) == []


def test_the_gradient_names_the_last_checkpoint():
    (alert,) = step_alerts(seen(GRAD, [1.0] * 12 + [8.1], checkpoint=10))
    assert alert.text == "grad_norm 8.1 > 8 x median 1; last checkpoint: 10"
    assert rules(seen(GRAD, [1.0] * 12 + [8.0])) == []


def test_only_the_window_counts():
    long_ago = [100.0] * 40
    assert rules(seen(GRAD, [*long_ago, *[1.0] * alerts.WINDOW, 9.0])) == ["grad_spike"]


def test_a_loss_far_from_its_median():
    """median 0.25, median distance 0.05: the limits are -0.15 and 0.65."""
    past = [0.2, 0.3] * 6
    assert rules(seen(LOSS, [*past, 0.64])) == []
    assert rules(seen(LOSS, [*past, 0.66])) == ["loss_spike"]
    assert rules(seen(LOSS, [*past, -0.16])) == ["loss_spike"]
    assert rules(seen(LOSS, [0.2] * 12 + [9.0])) == []  # never moved: no scale to judge by


def test_three_updates_without_variance():
    metric = alerts.ZERO_STD
    assert rules(seen(metric, [0.9, 0.9])) == []
    assert rules(seen(metric, [0.9, 0.8, 0.9])) == []  # 0.8 is not above 0.8
    assert rules(seen(metric, [0.9, math.nan, 0.9])) == []
    assert rules(seen(metric, [0.1, 0.9, 0.85, 1.0])) == ["zero_variance"]


def test_a_ratio_that_is_not_one_before_the_first_step():
    assert rules(seen(alerts.RATIO_DEV, [1e-3])) == []
    assert rules(seen(alerts.RATIO_DEV, [1.1e-3])) == ["ratio_mismatch"]
    assert rules(seen(alerts.RATIO_DEV, [math.nan])) == []


def test_episodes_that_only_run_out():
    history = {alerts.SUCCESS: [0.0] * 3, alerts.LENGTH: [100.0] * 3}
    assert rules(seen(history=history)) == ["no_episode_ends"]
    assert rules(seen(history=history | {alerts.LENGTH: [100.0, 99.9, 100.0]})) == []
    assert rules(seen(history=history | {alerts.SUCCESS: [0.0, 0.0, 0.1]})) == []


def test_success_that_falls_to_half_of_its_best():
    """Three updates together: 96 of 192 was the best; 40 of 192 is below half of it."""
    best = Proportion(96, 192)
    low, half = [Proportion(13, 64)] * 3, [Proportion(17, 64)] * 3
    assert rules(seen(successes=low, best=best)) == ["training_collapse"]
    assert rules(seen(successes=half, best=best)) == []
    assert rules(seen(successes=low)) == []


def test_intervals_that_touch_are_no_collapse():
    best = Proportion(6, 12, 4.0)
    assert rules(seen(successes=[Proportion(1, 8, 2.0)] * 3, best=best)) == []


def test_entropy_up_while_success_falls():
    metric = alerts.ENTROPY
    falls = [Proportion(50, 64)] * 5 + [Proportion(20, 64)] * 5
    assert rules(seen(metric, [1.0] * 5 + [1.2] * 5, successes=falls)) == ["entropy"]
    assert rules(seen(metric, [1.0] * 5 + [1.05] * 5, successes=falls)) == []
    assert rules(seen(metric, [1.0] * 5 + [1.2] * 5, successes=falls[:5] * 2)) == []
    assert rules(seen(metric, [1.2] * 9, successes=falls)) == []


def test_a_gpu_that_waits():
    assert rules(seen(alerts.GPU, [30.0] * 10)) == ["gpu_idle"]
    assert rules(seen(alerts.GPU, [30.0] * 9 + [50.0])) == []


def test_an_evaluation_far_below_training():
    """RLinf 539: 1.2 % held out while training looked healthy."""
    (alert,) = evaluation_alerts(40, Proportion(1, 80), None, Proportion(160, 320))
    assert (alert.rule, alert.level, alert.update) == ("eval_below_train", "warn", 40)
    assert evaluation_alerts(40, Proportion(40, 100), None, Proportion(160, 320)) == []
    assert evaluation_alerts(40, Proportion(1, 80), None, None) == []


def test_an_evaluation_that_collapsed():
    (alert,) = evaluation_alerts(20, Proportion(30, 100), Proportion(80, 100), None)
    assert (alert.rule, alert.level) == ("eval_collapse", "error")
    assert alert.text == "eval success fell to 30% [22%, 40%]/100 from 80% [71%, 87%]/100"
    assert evaluation_alerts(20, Proportion(60, 100), Proportion(80, 100), None) == []

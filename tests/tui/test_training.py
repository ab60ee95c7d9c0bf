"""A training run on stderr."""

from tui.training import TrainingLines

STEP = {
    "env/success_once": 0.5,
    "rollout/episodes": 64,
    "rollout/groups_accepted": 8,
    "time/step": 12.34,
}
LEARNED = {
    "train/actor/approx_kl": 0.0021,
    "train/actor/clip_fraction": 0.031,
    "train/actor/first_ratio_max_abs_dev": 3e-14,
}


def said(capsys, kind, **fields):
    TrainingLines()(kind, fields)
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_an_update_is_one_line(capsys):
    line = said(capsys, "step", update=3, metrics=STEP | LEARNED)
    assert line == (
        "update 3: success 50% of 64 episodes, 8 groups, kl 0.0021, clipped 3%, "
        "first ratio off by 3e-14, 12.3 s\n"
    )


def test_an_update_without_a_step_says_nothing_about_it(capsys):
    line = said(capsys, "step", update=3, metrics=STEP)
    assert line == "update 3: success 50% of 64 episodes, 8 groups, 12.3 s\n"


def test_an_evaluation_has_its_interval_and_its_base(capsys):
    metrics = {"eval/success_once": 0.71, "eval/base_success_once": 0.46}
    line = said(capsys, "eval", update=40, metrics=metrics, n=100)
    assert line == "eval: success 71% [61%, 79%] on 100 held-out scenes, base 46%\n"


def test_an_alert_is_one_line_whatever_it_holds(capsys):
    assert said(capsys, "alert", level="error", message="a\nb\x1b") == "error: a b\\x1b\n"

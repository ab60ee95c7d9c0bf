"""When somebody should look at a training run: one pure function for each rule.

The metrics have the names of events.jsonl. A rule sees one update and those before it and returns
an alert or None; `step_alerts` and `evaluation_alerts` ask them all. Who was hit by what:

- not_finite: a loss or a gradient that is no number; nothing after it can be trusted.
- training_collapse, eval_collapse: RLinf issue 133, success from 0.5 to 0.
- zero_variance: groups of one outcome teach nothing and "training will look like it is running"
  (post-training-experiments 21; TRL logs the share for the same reason).
- kl_spike: open-r1 issue 257.  grad_spike, loss_spike: what precedes a collapse; go back to the
  checkpoint before.
- ratio_mismatch: the likelihoods of the rollout and of the update disagree before the first step.
- no_episode_ends: nothing succeeds and every episode has the same, the longest, length.
- entropy: it rises while success falls (DeepThinkVLA issue 1).
- gpu_idle: the device waits for the environments.
- eval_below_train: RLinf issue 539, 1.2 % where training looked healthy.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from analysis.proportions import Proportion

WINDOW = 50
"""Updates that rules look back over."""
LEAST = 10
"""Updates before a median means anything."""
IN_A_ROW = 3
ZERO_VARIANCE = 0.8
KL_FACTOR = 10.0
GRAD_FACTOR = 8.0
LOSS_FACTOR = 8.0
RATIO = 1e-3
IDLE = 50.0
"""Per cent of the GPU."""
RECENT = 5
"""Updates that are pooled where one is too noisy."""

SUCCESS, EPISODES, LENGTH = "env/success_once", "rollout/episodes", "env/episode_len"
EFFECTIVE = "rollout/episodes_effective"
ZERO_STD = "rollout/frac_reward_zero_std"
KL, RATIO_DEV = "train/actor/approx_kl", "train/actor/first_ratio_max_abs_dev"
GRAD, LOSS = "train/actor/grad_norm", "train/actor/policy_loss"
ENTROPY, GPU = "train/actor/entropy_loss", "sys/gpu0/util"


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that needs a look."""

    level: str
    """warn or error; a log may have others"""
    rule: str
    update: int
    """1 for the first; 0 before it"""
    text: str
    value: float | None = None
    threshold: float | None = None
    metric: str = ""
    t: float = math.nan
    """seconds since 1970, when it was first so"""
    logged: bool = False
    """the run said so itself"""
    until: int = 0
    """the last update at which it was still so"""


@dataclass(frozen=True, slots=True)
class Seen:
    """One update and what led to it."""

    update: int
    step: Mapping[str, float]
    """its metrics"""
    history: Mapping[str, Sequence[float]]
    """metric to its values, oldest first, this update's last; NaN where one is missing"""
    successes: Sequence[Proportion] = ()
    """training success of the latest updates, this one's last"""
    best: Proportion | None = None
    """the best training success of `IN_A_ROW` earlier updates together"""
    checkpoint: int | None = None
    """the update of the last checkpoint"""

    def value(self, metric: str) -> float:
        """Return the present value of a metric; NaN where there is none."""
        return self.step.get(metric, math.nan)

    def before(self, metric: str) -> list[float]:
        """Return the finite values of the `WINDOW` updates before this one."""
        past = self.history.get(metric, ())[-WINDOW - 1 : -1]
        if math.isfinite(sum(past)):  # all are, which is quick to know
            return list(past)
        return [value for value in past if math.isfinite(value)]

    def latest(self, metric: str, n: int = IN_A_ROW) -> list[float]:
        """Return the last n values, this one included; empty where one of them is missing."""
        values = list(self.history.get(metric, ())[-n:])
        return values if len(values) == n and all(map(math.isfinite, values)) else []


def step_alerts(seen: Seen) -> list[Alert]:
    """Return what the rules say about an update."""
    return [alert for rule in STEP_RULES if (alert := rule(seen)) is not None]


def evaluation_alerts(
    update: int, success: Proportion, best: Proportion | None, training: Proportion | None
) -> list[Alert]:
    """Return what the rules say about an evaluation.

    Args:
        update: updates done.
        success: of the evaluation.
        best: the best earlier evaluation of the same task.
        training: success of the latest training episodes, pooled.
    """
    alerts = []
    if collapsed(success, best):
        alerts.append(_collapse("eval", update, success, best))
    if training is not None and success.interval[1] < training.interval[0]:
        what = f"eval success {_said(success)} below training's {_said(training)}"
        alerts.append(
            Alert("warn", "eval_below_train", update, what, success.rate, training.rate, SUCCESS)
        )
    return alerts


def pooled(shares: Sequence[Proportion]) -> Proportion | None:
    """Return several proportions together; None if there are none."""
    return sum(shares[1:], shares[0]) if shares else None


def collapsed(success: Proportion, best: Proportion | None) -> bool:
    """Whether success is at most half of the best, and the intervals do not touch."""
    if best is None or success.rate > best.rate / 2:
        return False
    return success.interval[1] < best.interval[0]


def not_finite(seen: Seen) -> Alert | None:
    """A loss or a gradient norm that is NaN or infinite."""
    for metric in (LOSS, GRAD):
        value = seen.step.get(metric, 0.0)
        if not math.isfinite(value):
            what = f"{metric.rpartition('/')[2]} is {value}"
            return Alert("error", "not_finite", seen.update, what, metric=metric)
    return None


def success_collapse(seen: Seen) -> Alert | None:
    """Training success at most half of its best, three updates each, intervals apart."""
    success = pooled(seen.successes[-IN_A_ROW:])
    if success is None or not collapsed(success, seen.best):
        return None
    return _collapse("training", seen.update, success, seen.best)


def zero_variance(seen: Seen) -> Alert | None:
    """More than 80 % of the groups without variance, three updates in a row."""
    values = seen.latest(ZERO_STD)
    if not values or min(values) <= ZERO_VARIANCE:
        return None
    what = f"{values[-1]:.0%} of the groups have no variance, {IN_A_ROW} updates in a row"
    return Alert("warn", "zero_variance", seen.update, what, values[-1], ZERO_VARIANCE, ZERO_STD)


def kl_spike(seen: Seen) -> Alert | None:
    """approx_kl above ten times its median."""
    return _above_median(seen, "kl_spike", KL, KL_FACTOR)


def grad_spike(seen: Seen) -> Alert | None:
    """Gradient norm above eight times its median."""
    return _above_median(seen, "grad_spike", GRAD, GRAD_FACTOR)


def loss_spike(seen: Seen) -> Alert | None:
    """A loss further from its median than eight times the median distance from it."""
    value, past = seen.value(LOSS), seen.before(LOSS)
    if len(past) < LEAST or not math.isfinite(value):
        return None
    middle = median(past)
    limit = LOSS_FACTOR * median(abs(v - middle) for v in past)
    if not 0 < limit < abs(value - middle):
        return None
    what = f"policy_loss {value:.3g}, usually {middle:.3g}{_last_checkpoint(seen)}"
    return Alert("warn", "loss_spike", seen.update, what, value, middle + limit, LOSS)


def ratio_mismatch(seen: Seen) -> Alert | None:
    """|ratio - 1| above 1e-3 before the first optimizer step."""
    value = seen.value(RATIO_DEV)
    if not value > RATIO:
        return None
    what = f"ratio off by {value:.1e} before the first step: rollout and update disagree"
    return Alert("error", "ratio_mismatch", seen.update, what, value, RATIO, RATIO_DEV)


def no_episode_ends(seen: Seen) -> Alert | None:
    """No success and one and the same episode length, three updates in a row."""
    success, lengths = seen.latest(SUCCESS), seen.latest(LENGTH)
    if not success or not lengths or any(success) or any(a != b for a, b in pairwise(lengths)):
        return None
    what = f"every episode runs to its limit of {lengths[-1]:g} steps and none succeeds"
    return Alert("warn", "no_episode_ends", seen.update, what, lengths[-1], None, LENGTH)


def entropy(seen: Seen) -> Alert | None:
    """Entropy up by a tenth while success falls, five updates against the five before."""
    values = seen.latest(ENTROPY, 2 * RECENT)
    if not values:
        return None
    then, now = sum(values[:RECENT]) / RECENT, sum(values[RECENT:]) / RECENT
    shares = seen.successes[-2 * RECENT :]
    was, is_now = pooled(shares[:-RECENT]), pooled(shares[-RECENT:])
    if was is None or is_now is None or now - then <= 0.1 * abs(then):
        return None
    if is_now.interval[1] >= was.interval[0]:
        return None
    what = f"entropy {then:.3g} to {now:.3g} while success fell to {_said(is_now)}"
    return Alert("warn", "entropy", seen.update, what, now, then, ENTROPY)


def gpu_idle(seen: Seen) -> Alert | None:
    """The GPU less than half used, ten updates in a row."""
    values = seen.latest(GPU, LEAST)
    if not values or max(values) >= IDLE:
        return None
    what = f"GPU {values[-1]:.0f} % used, below {IDLE:.0f} % for {LEAST} updates"
    return Alert("warn", "gpu_idle", seen.update, what, values[-1], IDLE, GPU)


STEP_RULES = (
    not_finite,
    success_collapse,
    ratio_mismatch,
    kl_spike,
    grad_spike,
    loss_spike,
    zero_variance,
    no_episode_ends,
    entropy,
    gpu_idle,
)


def _above_median(seen: Seen, rule: str, metric: str, factor: float) -> Alert | None:
    value, past = seen.value(metric), seen.before(metric)
    if len(past) < LEAST or not math.isfinite(value) or value <= factor * min(past):
        return None
    limit = factor * median(past)
    if not 0 < limit < value:
        return None
    name = metric.rpartition("/")[2]
    what = f"{name} {value:.3g} > {factor:g} x median {median(past):.3g}{_last_checkpoint(seen)}"
    return Alert("warn", rule, seen.update, what, value, limit, metric)


def _collapse(which: str, update: int, now: Proportion, best: Proportion | None) -> Alert:
    what = f"{which} success fell to {_said(now)} from {_said(best)}"
    limit = best.rate / 2 if best else None
    return Alert("error", f"{which}_collapse", update, what, now.rate, limit, SUCCESS)


def _last_checkpoint(seen: Seen) -> str:
    return "" if seen.checkpoint is None else f"; last checkpoint: {seen.checkpoint}"


def _said(success: Proportion | None) -> str:
    if success is None:
        return "?"
    low, high = success.interval
    return f"{success.rate:.0%} [{low:.0%}, {high:.0%}]/{success.n}"

"""The lists that the Live screen offers: alerts and metrics."""

from collections.abc import Sequence

from analysis.alerts import Alert
from tui.data.training import Training
from tui.screens.live_panels import LEVELS
from tui.terminal import one_line
from tui.widgets.chart import sparkline
from tui.widgets.table import Row
from tui.wording import compact

ALIASES = {
    "env/success_once": "TRL reward, verl train_verify_score",
    "env/episode_len": "TRL completions/mean_length",
    "eval/success_once": "lerobot pc_success, verl val",
    "rollout/frac_reward_zero_std": "TRL frac_reward_zero_std",
    "train/actor/approx_kl": "TRL kl, verl actor/ppo_kl",
    "train/actor/clip_fraction": "TRL clip_ratio, verl actor/pg_clipfrac",
    "train/actor/entropy_loss": "TRL entropy",
    "train/actor/grad_norm": "lerobot grdn, verl actor/grad_norm",
    "train/actor/policy_loss": "lerobot loss, verl actor/pg_loss",
    "train/actor/lr": "verl actor/lr(1e-4)",
    "time/step": "TRL step_time, lerobot updt_s",
    "time/rollout": "verl timing/gen",
    "time/actor": "verl timing/update_actor",
}
"""What others call the same thing."""


def alert_rows(alerts: Sequence[Alert]) -> list[Row]:
    """Return one row an alert, the newest first; its key begins with the update."""
    rows = []
    for place, alert in reversed(list(enumerate(alerts))):
        last = f"–{alert.until}" if alert.until > alert.update else ""
        rows.append(
            Row(
                (alert.update, place),
                (
                    (alert.level.upper(), LEVELS.get(alert.level, "")),
                    (f"{alert.update}{last}", ""),
                    (alert.text, ""),
                ),
            )
        )
    return rows


def metric_rows(training: Training, update: int) -> list[Row]:
    """Return success first, then every metric of the log by name."""
    rows = [Row("", (("success, train and eval", ""), ("", ""), ("", ""), ("", "")))]
    for name in sorted(training.history):
        values = training.history[name]
        rows.append(
            Row(
                name,
                (
                    (one_line(name), ""),
                    (compact(training.at(update, name)), "bold"),
                    (sparkline(values, 20), "accent"),
                    (ALIASES.get(name, ""), "dim"),
                ),
            )
        )
    return rows

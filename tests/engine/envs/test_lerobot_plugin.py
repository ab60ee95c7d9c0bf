"""`lerobot-eval` runs a checkpoint on `tabletop`."""

import json
import os
import subprocess
import sys
from pathlib import Path

from engine.checkpoint import save_policy
from engine.policies.smolvla import EMBEDDED, load_policy


def test_lerobot_eval_runs_a_checkpoint_on_tabletop(tmp_path):
    loaded = load_policy(EMBEDDED)
    save_policy(loaded, loaded.policy, tmp_path / "policy")
    command = [
        Path(sys.executable).with_name("lerobot-eval"),
        "--policy.path=.",
        "--env.type=tabletop",
        "--env.task=lift_cube",
        "--env.discover_packages_path=engine.envs",
        "--eval.n_episodes=1",
        "--eval.batch_size=1",
        "--seed=0",
        f"--output_dir={tmp_path / 'out'}",
    ]
    here = tmp_path / "policy"
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "out" / "eval_info.json").read_text())
    (task,) = report["per_task"]
    assert (task["task_group"], task["task_id"]) == ("lift_cube", 0)
    assert len(task["metrics"]["successes"]) == 1

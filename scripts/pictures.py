"""Redraw the pictures of README and docs from runs that this checkout records: `make pictures`.

Records the README's commands into a scratch folder, opens `vla-tui` on it, and saves what a person
would see: docs/pictures/runs.svg, rollouts.svg, episode.svg, and tasks.png. With the folder of a
training as its argument it draws live.svg alone, from its log.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import imageio.v3 as iio
import numpy as np

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
BIN = Path(sys.executable).parent
SIZE = (110, 32)


def task_frames() -> np.ndarray:
    """One moment of each task: agentview at video size above the policy's own two cameras."""
    from engine.envs.expert import expert_action
    from engine.envs.tabletop import TASKS, TabletopEnv

    columns = []
    for task_id in range(len(TASKS)):
        env = TabletopEnv(task_id)
        observation, _ = env.reset(seed=task_id, options={"init_state": task_id})
        for _ in range(16):
            observation, *_ = env.step(expert_action(env))
        cameras = np.hstack(
            [np.kron(v, np.ones((2, 2, 1), np.uint8)) for v in observation["pixels"].values()]
        )
        columns.append(np.vstack([env.render(), cameras]))
        env.close()
    return np.hstack(columns)


async def screens(folder: Path) -> dict[str, str]:
    """SVG of each screen, driven by keys as a person would."""
    from tui.app import make_app

    app, shots = make_app(folder), {}
    async with app.run_test(size=SIZE) as pilot:
        for name, keys in (
            ("runs", ()),
            ("rollouts", ("enter",)),
            ("episode", ("enter", *"llllllll")),
        ):
            await pilot.press(*keys)
            await pilot.pause(1.5)
            shots[name] = app.export_screenshot(title="vla-tui")
    return shots


async def live(folder: Path) -> str:
    """SVG of the Live screen of a training, in the middle of its log."""
    from tui.app import make_app

    app = make_app(folder)
    async with app.run_test(size=(130, 36)) as pilot:
        await pilot.pause(3)
        await pilot.press("2", *["left_square_bracket"] * 3)
        await pilot.pause(1)
        return app.export_screenshot(title="vla-tui")


def without_web_fonts(svg: str) -> str:
    """Drop the font downloads, so that the picture needs no network."""
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def main() -> None:
    """Record, open, save."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 1:
        svg = asyncio.run(live(Path(sys.argv[1])))
        (PICTURES / "live.svg").write_text(without_web_fonts(svg))
        return
    iio.imwrite(PICTURES / "tasks.png", task_frames())
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        for arguments in (["--steer", "fast", "--alpha", "8"], ["--steer", "slow", "--alpha", "4"]):
            subprocess.run([BIN / "vla-trace", "record", *arguments], check=True)
        for name, svg in asyncio.run(screens(Path())).items():
            (PICTURES / f"{name}.svg").write_text(without_web_fonts(svg))


if __name__ == "__main__":
    main()

"""Does `vla-tui` stay as small as it began? 10,000 steps of a training and 1,000 changes of focus.

Asked: at most 150 MB, flat, and a constant number of widgets. A training's log grows in front of
the Live screen; then the terminal loses and gains focus, and screens change, again and again. What
was thrown away and not collected counts too.

    python -P tests/benchmarks/tui_flat.py [STEPS] [CHANGES]
"""

import asyncio
import gc
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from textual import events
from textual.widget import Widget

from traces.events import EventWriter
from tui.app import make_app

STEPS, CHANGES, EVERY = 10_000, 1_000, 100
GROUPS, MEMBERS = 8, 8


def widgets() -> int:
    """Widgets that are in memory, shown or not."""
    gc.collect()
    return sum(isinstance(one, Widget) for one in gc.get_objects())


def resident_mb() -> float:
    """Memory of this process [MB]."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def write_step(log: EventWriter, step: int) -> None:
    """One update as a training logs it: phases, episodes, groups, metrics."""
    log.emit("phase", name="rollout", update=step, total=GROUPS * MEMBERS)
    for group in range(GROUPS):
        for member in range(MEMBERS):
            uid = f"flat/u{step:05d}/g{group:04d}/a00/m{member:03d}"
            won = (step + group + member) % 3 > 0
            numbers = {"update": step, "group": group, "member": member, "attempt": 0}
            numbers |= {"task_id": 1, "init_state": step, "scene_seed": step, "n_steps": 50}
            log.emit("episode", uid=uid, success=won, **{"return": float(won)}, **numbers)
        told = {"n_members": MEMBERS, "n_success": 5, "accepted": True, "reason": ""}
        log.emit("group", update=step, group=group, attempt=0, **told)
    metrics = {f"train/actor/{name}": 0.01 + step % 7 / 1000 for name in ("approx_kl", "grad_norm")}
    metrics |= {"env/success_once": 0.6, "rollout/episodes": GROUPS * MEMBERS, "time/step": 20.0}
    log.emit("step", update=step + 1, metrics=metrics)


async def main(steps: int, changes: int) -> None:
    """Drive the application without a terminal, print one table."""
    print(f"tui_flat: {steps} steps of {GROUPS * MEMBERS} episodes, {changes} changes of focus")
    print(f"{'after':32}{'widgets':>10}{'MB':>8}{'s':>8}")
    began = time.perf_counter()

    def say(what: str) -> None:
        took = time.perf_counter() - began
        print(f"{what:32}{widgets():10}{resident_mb():8.0f}{took:8.0f}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs" / "flat" / "events.jsonl"
        with EventWriter(path) as log:
            config = {"updates": steps, "groups": GROUPS, "group_size": MEMBERS}
            about = {"kind": "grpo", "pid": os.getpid(), "host": os.uname().nodename}
            log.emit("run_start", run_id="flat", config=config, suite="tabletop", **about)
            write_step(log, 0)
            app = make_app(folder)
            async with app.run_test(size=(140, 40)) as pilot:
                await pilot.pause(1.5)
                await pilot.press("2")
                await pilot.pause(1.5)
                say("the start")
                for step in range(1, steps):
                    write_step(log, step)
                    if step % EVERY == 0:
                        app.poll()
                        await pilot.pause(0.05)
                    if step * 10 % steps == 0 and step * 10 // steps in (1, 5):
                        say(f"{step} steps")
                await pilot.pause(3)
                say(f"{steps} steps")
                for change in range(changes):
                    app.post_message(events.AppBlur() if change % 2 else events.AppFocus())
                    await pilot.press("tab" if change % 10 else "12345"[change // 10 % 5])
                    if change + 1 in (changes // 10, changes):
                        await pilot.press("2")
                        await pilot.pause(0.5)
                        say(f"{change + 1} changes of focus")


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:3]]
    asyncio.run(main(*(given + [STEPS, CHANGES][len(given) :])))

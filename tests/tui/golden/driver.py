"""Drive the application without a terminal; compare what it draws with the dumps beside this."""

import asyncio
import os
import re
from pathlib import Path

GOLDEN = Path(__file__).parent
SMALL, LARGE = (80, 24), (140, 40)


async def settle(pilot):
    """Wait until everything asked for was read and drawn."""
    for _ in range(200):
        await pilot.pause()
        app = pilot.app
        busy = app._reading or app.pending or not app.loaded
        if not busy and not any(not worker.is_finished for worker in app.workers):
            break
        await asyncio.sleep(0.01)
    await pilot.pause()


async def read_again(pilot):
    """Read the folder now rather than within a second."""
    pilot.app.poll()
    await settle(pilot)


async def press(pilot, *keys):
    for key in keys:
        await pilot.press(key)
        await settle(pilot)


def drive(app, steps, size=SMALL):
    """Run `steps(pilot)` in the application."""

    async def go():
        async with app.run_test(size=size) as pilot:
            await settle(pilot)
            await steps(pilot)

    asyncio.run(go())


def screen_text(app):
    """What is on the screen, as text."""
    strips = app.screen._compositor.render_strips(app.size)
    return "\n".join(strip.text.rstrip() for strip in strips) + "\n"


def check(app, name):
    """Compare the screen with a dump; VLA_TUI_GOLDEN=write makes new ones."""
    found = re.sub(r"\d+\.\d kB", lambda m: "#" * len(m[0]), screen_text(app))
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("VLA_TUI_GOLDEN") == "write":
        path.write_text(found, encoding="utf-8")
    assert path.exists(), f"no {path}; write it with VLA_TUI_GOLDEN=write"
    expected = path.read_text(encoding="utf-8")
    assert found == expected, f"{path} differs; if it should, run with VLA_TUI_GOLDEN=write"

"""The Neurons screen over 100,000 neurons: milliseconds to open, sort and filter, and memory.

A table of 32 layers of 3,125 neurons with 30 top tokens each out of 49,280, as `vla-trace neurons`
keeps it. Times are medians, from what a key does to the lines of the frame after it, in an
application without a terminal, 140 x 40; opening ends when the rows are drawn, and the words that
follow are timed apart, as is the first opening, which starts the process that reads tables. Beside
each time, the processor time of the viewer: on a busy machine the two differ.
"""

import asyncio
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tui.app import VlaApp, make_app
from tui.data import apart
from tui.screens.neurons import NeuronsScreen

SHA = "ab" * 32
LAYERS, NEURONS, TOKENS, TOP = 32, 3125, 49_280, 30
ROWS = LAYERS * NEURONS
REPEATS = 7
ASKED = {"open": 300, "sort": 200, "filter": 200, "move": 50, "page": 50}
SCENES = Path(__file__).parents[1] / "tui" / "golden" / "neuron_scenes.py"


def write_table() -> Path:
    spec = importlib.util.spec_from_file_location("neuron_scenes", SCENES)
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    ids = np.random.default_rng(0).integers(0, TOKENS, (ROWS, TOP)).astype(np.int32)
    words = [*tables.VOCABULARY, *(f"word{i}" for i in range(TOKENS - len(tables.VOCABULARY)))]
    return tables.write_table(SHA, LAYERS, NEURONS, words, ids)


def resident_mb(process: int | str = "self") -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def until(ready: Callable[[], bool]) -> None:
    """Let the application work until something holds."""
    while not ready():
        await asyncio.sleep(0.001)


class Watch:
    """Collects wall and processor times under names."""

    def __init__(self) -> None:
        self.times: dict[str, list[tuple[float, float]]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter(), time.process_time()
        yield
        spent = time.perf_counter() - began[0], time.process_time() - began[1]
        self.times.setdefault(name, []).append(spent)


async def opened(app: VlaApp, watch: Watch, name: str = "open") -> NeuronsScreen:
    """Open the screen, and wait until all of it was read."""
    screen = NeuronsScreen()
    with watch("words after it"):
        with watch(name):
            app.push_screen(screen)
            await until(lambda: screen.drawable and screen.table.place[1] == ROWS)
            screen._compositor.render_strips(app.size)
        await until(lambda: screen._neurons.words is not None)
    await until(lambda: "fired" in screen._taken)
    return screen


async def measured(app: VlaApp, watch: Watch) -> tuple[float, float]:
    """Open, sort, filter and move, several times.

    Returns the memory after opening once, of the viewer alone and with the process that read.
    """
    screen = await opened(app, watch, "first open")
    memory = resident_mb(), resident_mb() + resident_mb(apart._process.pid)
    for _ in range(REPEATS - 1):
        app.pop_screen()
        await asyncio.sleep(0.1)
        screen = await opened(app, watch)

    def drawn() -> None:
        screen._compositor.render_strips(app.size)

    for _ in range(REPEATS):
        for name, act in (
            ("sort", lambda: screen.action_sort(1)),
            ("sort", screen.action_reverse),
            ("page", lambda: screen.action_page(1)),
            ("move", lambda: screen.action_move(1)),
        ):
            with watch(name):
                act()
                drawn()
            await asyncio.sleep(0.05)
        for text in ("token~rise norm>0.5", ""):
            with watch("filter"):
                screen.query_one("#filter").value = text
                screen.paint()
                drawn()
            await asyncio.sleep(0.05)
    return memory


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        size = write_table_apart()
        app = make_app(folder)
        watch = Watch()

        async def run() -> tuple[float, float]:
            async with app.run_test(size=(140, 40)):
                await until(lambda: app.loaded)
                return await measured(app, watch)

        alone, together = asyncio.run(run())
    print(f"neuron_screen: {ROWS:,} neurons, file of {size / 1e6:.0f} MB")
    print(f"{'':20}{'asked':>8}{'got':>9}{'processor':>11}")
    for name, times in watch.times.items():
        wall, spent = (1000 * statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name + ', ms':20}{ASKED.get(name, ''):>8}{wall:9.1f}{spent:11.1f}")
    print(f"{'resident, MB':20}{150:>8}{alone:9.1f}")
    print(f"{'while it reads, MB':20}{'':>8}{together:9.1f}")


def write_table_apart() -> int:
    """Write the table in another process, so that its memory is not counted; return its bytes."""
    child = os.fork()
    if not child:
        write_table()
        os._exit(0)
    os.waitpid(child, 0)
    from traces.neuron_file import neuron_file

    return neuron_file(SHA).stat().st_size


if __name__ == "__main__":
    main()

"""Thousands of damaged traces through everything that reads traces.

Asked: no traceback, no crash, no hang over 5 s of CPU time, no memory over 1 GB, no file outside
opened, and the damaged file never changed.

    python tests/fuzz [CASES] [FIRST]     cases FIRST, FIRST + 1, ...; one prints all about itself
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

from damage import damaged, make_bases
from guard import Fault, guarded

from traces.errors import UserError
from tui.cli import run
from tui.data import summary
from tui.data.library import Library
from tui.data.summary import summarise_run
from tui.data.tracks import read_tracks

CASES = 5000
LATER = (
    *("analysis.report_tables", "analysis.meaning", "analysis.study", "analysis.survival"),
    *("tui.commands.analyze_tables", "matplotlib.pyplot"),  # the latter's fonts lie outside
)
TOLD = 400
"""Characters of a fault that are printed, unless it is the only one."""


def command(*words: object) -> None:
    """Run one of our commands; raises what the command line does not turn into a sentence."""
    code = run([str(word) for word in words])
    if code not in (0, 1, 2):
        raise AssertionError(f"{words[0]} ended with {code}")


def here(name: str, *args: object) -> object:
    """Call what the viewer calls in a process of its own: in this one, which is watched."""
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)(*args)


def screens(folder: Path) -> None:
    """Load what the screens show of a folder."""
    summary.apart = here
    for shown in Library(folder).poll(time.time(), budget_s=60):
        summarise_run(shown)
        for episode in shown.episodes[:2]:
            try:
                read_tracks(episode.path, episode.row)
            except UserError:
                continue


def things(path: Path, partner: Path, seed: int) -> dict[str, Callable[[], None]]:
    """Return everything that reads a trace; every other seed asks for JSON."""
    show = ("show", "show --json")[seed % 2]
    table = ("motion", "safety", "training", "advantages")[seed % 4]
    inside = (
        ("diff", path, partner),
        ("meaning", path),
        ("atlas", path, "--against", partner),
        ("survive", path, partner),
        ("figures", path, partner, "--study", "-o", path.with_name("figures")),
    )[seed % 5]
    return {
        "ls": partial(command, "ls", path),
        show: partial(command, *show.split(), path),
        "check": partial(command, "check", path),
        "analyze": partial(command, "analyze", path, partner),
        f"analyze --table {table}": partial(command, "analyze", path, partner, "--table", table),
        inside[0]: partial(command, *inside),
        "screens": partial(screens, path.parent),
        "repair": partial(command, "repair", path, "--out", path.with_name("new.h5")),
    }


def warm_up(bases: Path) -> None:
    """Import what the commands import, once for all children; polars must not start here."""
    for name in LATER:
        import_module(name)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        for words in (["ls"], ["show"], ["check"], ["repair"], ["analyze", "--help"]):
            run([*words, str(bases / "closed.h5")])
    (bases / "closed-2.h5").unlink()


def case(root: Path, seed: int) -> tuple[int, list[str], list[Fault]]:
    """Return the seed, what was damaged, and what went wrong; leaves its files below `root`."""
    folder = root / str(seed) / "case"
    folder.mkdir(parents=True)
    outside, recipe = root / str(seed) / "outside.h5", root / str(seed) / "recipe"
    os.mkfifo(outside)

    def make() -> None:
        _, done = damaged(root / "bases", folder, outside, seed)
        recipe.write_text("\0".join(done))

    faults = guarded({"damage": make}, root, outside, limit_s=60)
    faults = [fault for fault in faults if fault.what != "memory"]
    if faults or not recipe.exists():
        return seed, ["not made"], faults or [Fault("damage", "crash", "")]
    done = recipe.read_text().split("\0")
    path = folder / done[1]
    before = _digest(path)
    faults = guarded(things(path, root / "bases" / "partner.h5", seed), root, outside)
    if _digest(path) != before:
        faults.append(Fault("all", "changed", "the damaged file was written to"))
    return seed, done, faults


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(cases: int, first: int) -> int:
    """Run cases, print what failed and one table; exit code 1 when something did."""
    began, found = time.monotonic(), Counter()
    with tempfile.TemporaryDirectory(prefix="fuzz-", delete=cases > 1) as name:
        root = Path(name)
        (root / "bases").mkdir()
        make_bases(root / "bases")
        warm_up(root / "bases")
        with ProcessPoolExecutor(min(cases, os.cpu_count() or 1), get_context("fork")) as pool:
            seeds = range(first, first + cases)
            for seed, done, faults in pool.map(partial(case, root), seeds, chunksize=4):
                for fault in faults:
                    found[f"{fault.name}: {fault.what}"] += 1
                    told = fault.detail if cases == 1 else fault.detail.strip()[-TOLD:]
                    print(f"seed {seed} {done} {fault.name}: {fault.what}\n{told}", flush=True)
                if cases > 1:
                    shutil.rmtree(root / str(seed))
                else:
                    print(f"{done} kept in {root / str(seed)}")
    took = time.monotonic() - began
    print(f"fuzz: {cases} damaged traces, seeds {first} to {first + cases - 1}, {took:.0f} s")
    for name, count in sorted(found.items()):
        print(f"{name:32}{count:6}")
    print(f"{'faults':32}{found.total():6}")
    return 1 if found else 0


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*given, *(CASES, 0)[len(given) :]))

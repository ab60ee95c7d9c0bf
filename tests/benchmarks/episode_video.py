"""Bytes a second that an episode sends while it plays, on a pseudo-terminal.

Asked: at most 60 KiB/s with pictures, 0 B when nothing plays. FOLDER holds a camera recording, of
which the episode of the first row is played from its start for at most ten seconds:

    vla-trace record --task 3 --episodes 2 --keep frames
    python -P tests/benchmarks/episode_video.py FOLDER
"""

import os
import runpy
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PtyTerminal = runpy.run_path(str(ROOT / "tests/tui/pty_terminal.py"))["PtyTerminal"]
TUI = str(Path(sys.executable).parent / "vla-tui")
SIZES = {"80x24": (80, 24), "140x40": (140, 40)}
PLAYED_S, REST_S = 10.0, 3.0
QUIET_S = 1.5
"""After the last picture."""
WAYS = {
    "half blocks": (),
    "--low-bandwidth": ("--low-bandwidth",),
    "--pictures kitty": ("--pictures", "kitty"),
}
VIEWS = {"whole screen": "", "picture alone": "+", "tracks alone": "+\t\t"}
"""Name of a view to the keys that lead there."""


def rates(folder: str, options: tuple[str, ...], size: tuple[int, int], keys: str) -> list[float]:
    """KiB/s while the episode plays, and after that."""
    with PtyTerminal([TUI, "--theme", "dark", *options, folder], *size) as terminal:
        terminal.wait_for("1/1")
        for key in "\r\r":
            terminal.press(key)
        terminal.wait_for(", step 0")
        terminal.settle()
        for key in keys:
            terminal.press(key)
        found = []
        for key, at_most in ((" ", PLAYED_S), ("", REST_S)):
            before, began = terminal.n_bytes, time.monotonic()
            last = began
            terminal.send(key)
            while (now := time.monotonic()) - began < at_most and now - last < QUIET_S:
                last = time.monotonic() if terminal.read(0.05) else last
            took = (last if now - last >= QUIET_S else now) - began
            found.append((terminal.n_bytes - before) / 1024 / max(took, 1.0))
            if key and now - last < QUIET_S:
                terminal.press(key)
        return found


def main(folder: str, ways: str = "") -> None:
    """Print one table."""
    print(f"episode_video: {folder}, load {os.getloadavg()[0]:.1f}")
    print(f"{'':18}{'size':8}{'view':14}{'plays':>14}{'rests':>14}")
    for way, options in WAYS.items():
        if ways not in way:
            continue
        for name, size in SIZES.items():
            for view, keys in VIEWS.items():
                plays, rests = rates(folder, options, size, keys)
                print(f"{way:18}{name:8}{view:14}{plays:8.1f} KiB/s{rests:8.1f} KiB/s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

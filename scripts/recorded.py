"""Record the small run that the golden screens are drawn from: `make recorded`.

Four pairs of `lift_cube` by the shipped policy, into tests/tui/recorded. The traces are compressed
and the host is renamed; nothing else is touched. Rewrite the dumps afterwards (CONTRIBUTING.md).
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py

FOLDER = Path(__file__).parents[1] / "tests" / "tui" / "recorded"
COMMAND = "record --steer fast --controls none --episodes 4 --replan 5 --name demo-run".split()


def compress(path: Path) -> None:
    """Rewrite a trace with gzip, dataset by dataset, and the host left out of its header."""
    small = path.with_suffix(".small")
    with h5py.File(path, "r", locking=False) as old, h5py.File(small, "w") as new:
        new.attrs.update(old.attrs)
        new.attrs["host"] = json.dumps({"node": "lab", "machine": "x86_64", "gl": "osmesa"})

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset):
                packed = {"compression": "gzip"} if item.chunks else {}
                options = {"chunks": item.chunks, "maxshape": item.maxshape}
                options["fletcher32"] = item.fletcher32
                made = new.create_dataset(
                    name, data=item[()], dtype=item.dtype, **options, **packed
                )
            else:
                made = new.require_group(name)
            made.attrs.update(item.attrs)

        old.visititems(copy)
    small.replace(path)


def main() -> None:
    """Record, compress, rename the host."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    os.chdir(FOLDER)
    subprocess.run([Path(sys.executable).with_name("vla-trace"), *COMMAND], check=True)
    for path in Path("traces").glob("*.h5"):
        compress(path)
    log = Path("runs/demo-run/events.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    for event in events:
        event.update({"host": "lab", "pid": 1} if event["type"] == "run_start" else {})
    log.write_text("".join(json.dumps(event) + "\n" for event in events))


if __name__ == "__main__":
    main()

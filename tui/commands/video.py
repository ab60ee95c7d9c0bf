"""`vla-trace video FILE --episode N`: a recorded episode as a film."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from traces.errors import UserError
from tui.terminal import Exit, one_line, to_json

if TYPE_CHECKING:
    import numpy as np

    from traces.reader import TraceReader

FORMATS = (".mp4", ".gif")


@click.command(name="video")
@click.argument("file")
@click.option("--episode", type=int, required=True, help="Row of the episode, from 0.")
@click.option("--camera", help="A stored camera, or one of the scene: agentview, wrist.")
@click.option("--out", metavar="X.mp4|X.gif", help="Name of the video; default: beside FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(file: str, episode: int, camera: str | None, out: str | None, as_json: bool) -> Exit:
    """Write a video of one episode of the trace FILE.

    From the pictures that FILE stores, where there are some, else from its simulator states;
    otherwise the recorded actions are played again in the scene, and refused if the hand does not
    go where it went.
    """
    from analysis.opening import opened
    from engine.film import write_video

    path = Path(file).expanduser()
    with opened(path) as trace:
        if not 0 <= episode < trace.n_episodes:
            raise UserError(f"--episode {episode}: {path} has {_rows(trace.n_episodes)}")
        target = _target(path, episode, out)
        frames, hz, source = _frames(trace, episode, camera)
    write_video(target, frames, hz)
    if as_json:
        found = {"schema": 1, "file": file, "episode": episode, "video": str(target)}
        click.echo(to_json(found | {"frames": len(frames), "hz": hz, "source": source}))
    else:
        click.echo(str(target))
        click.echo(f"{len(frames)} pictures at {hz:g} Hz, {one_line(source)}", err=True)
    return Exit.OK


def _target(path: Path, episode: int, out: str | None) -> Path:
    from traces.catalog import unused_path

    if out is None:
        return unused_path(path.parent, f"{path.name.partition('.h5')[0]}-e{episode:03d}", ".mp4")
    target = Path(out).expanduser()
    if target.suffix not in FORMATS:
        raise UserError(f"--out {one_line(out)!r}: the name must end in .mp4 or .gif")
    return target


def _frames(
    trace: "TraceReader", episode: int, camera: str | None
) -> "tuple[list[np.ndarray], float, str]":
    """Return the pictures, how many go into a second, and where they come from."""
    from engine.film import film

    hz = float(trace.header.suite.get("control_hz", 20))
    stored = trace.cameras()
    chosen = camera or next((c for c in stored if len(trace.frames(c, episode=episode)[0])), None)
    if chosen in stored:
        import imageio.v3 as iio

        _, pictures = trace.frames(chosen, episode=episode)
        start, stop = trace.step_span(episode)
        if not pictures:
            raise UserError(f"episode {episode} of {trace.path} has no pictures of {chosen}")
        frames = [iio.imread(io.BytesIO(png), extension=".png") for png in pictures]
        return frames, hz * len(frames) / (stop - start), f"stored pictures of {chosen}"
    camera = chosen or "agentview"
    how = "recorded states" if trace.has_sim_states else "played again"
    return film(trace, episode, camera), hz, f"{how}, seen by {camera}"


def _rows(count: int) -> str:
    return f"episodes 0 to {count - 1}" if count else "no episodes"

"""`vla-trace replay FILE`: whether a recording comes out the same again."""

import click

from tui.terminal import Exit, one_line, to_json


@click.command(name="replay")
@click.argument("file")
@click.option("--policy", default="", help="Where the weights are now; default: as recorded.")
@click.option("--workers", type=int, default=2, show_default=True, help="Environment processes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(file: str, policy: str, workers: int, as_json: bool) -> Exit:
    """Run the episodes of FILE again and compare every action, bit for bit.

    Same scenes, noise, intervention and weights. Exit code 1 when something differs.
    """
    from engine.replay import replay

    def progress(done: int, total: int) -> None:
        click.echo(f"{done}/{total} episodes", err=True)

    result = replay(file, policy, workers, progress)
    if as_json:
        click.echo(
            to_json(
                {
                    "schema": 1,
                    "file": file,
                    "episodes": result.episodes,
                    "equal": result.equal,
                    "differences": [vars(d) for d in result.differences],
                    "notes": result.notes,
                }
            )
        )
    else:
        for d in result.differences:
            click.echo(
                f"{one_line(d.uid)}: {d.column} from step {d.step}, by up to {d.largest:.3g}"
            )
        click.echo(f"{result.equal} of {result.episodes} episodes are equal, bit for bit")
    for note in result.notes:
        click.echo(f"note: {one_line(note)}", err=True)
    return Exit.FAILURE if result.differences else Exit.OK

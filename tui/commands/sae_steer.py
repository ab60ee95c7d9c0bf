"""`vla-trace sae steer FOLDER --feature F`: an intervention on a feature, as a file."""

import click

from traces.errors import UserError
from tui.terminal import Exit, free_path, one_line, write_text


@click.command(
    name="steer",
    help="""Write an intervention that steers a feature of the autoencoder in FOLDER.

    --way add adds the feature's direction, as long as its mean peak; set sets the feature to its
    mean peak and scale multiplies it, both leaving the rest of the activations alone; project_out
    removes its direction. The coefficient of 1 is multiplied by `record --alpha`. --signal writes
    the rival instead: the difference between the means of rows where a signal is high and low, of
    the same length.

    \b
      vla-trace sae steer FOLDER --feature 12 -o feature12.json
      vla-trace sae steer FOLDER --feature 12 --signal speed --traces "traces/*.h5" -o rival.json
      vla-trace record --intervention feature12.json --alpha 1 2 4 --controls full
      vla-trace analyze traces/*.h5
    """,
)
@click.argument("folder")
@click.option("--feature", type=int, required=True)
@click.option("--way", default="add", show_default=True, metavar="add|project_out|set|scale")
@click.option("--concept", default="", metavar="fast|slow|...", help="Adds the prompt control.")
@click.option("--signal", metavar="NAME", help="Difference in means of this, as long as --feature.")
@click.option("--traces", "files", multiple=True, metavar="FILES", help="For --signal.")
@click.option("-o", "--out", metavar="FILE", help="Default: printed.")
@click.option("--force", is_flag=True, help="Replace FILE.")
def command(
    folder: str,
    feature: int,
    way: str,
    concept: str,
    signal: str | None,
    files: tuple[str, ...],
    out: str | None,
    force: bool,
) -> Exit:
    """Compose it, say how large it is, write it."""
    from analysis.sae.steering import described, difference_in_means, steered_feature

    if signal and not files:
        raise UserError('--signal compares recorded rows; add --traces "traces/*.h5"')
    target = free_path(out, force) if out else None
    found = described(folder)
    chosen = steered_feature(found, feature, way, concept)
    about = chosen.provenance
    often = f"active in {about['coverage']:.0%} of the episodes"
    text = f"feature {feature} ({about['label']}, {often})"
    length = about["peak_length"]
    if length:
        text += f": mean peak {about['mean_peak']:.3g}, {length:.3g} in the activations"
    click.echo(text, err=True)
    if signal and not length:
        raise UserError(f"feature {feature} is active in no recorded episode, so it has no size")
    if signal:
        chosen = difference_in_means(files, found.sae.site, signal, length, concept)
    if target:
        write_text(target, chosen.to_json() + "\n")
        click.echo(out)
        click.echo(f"next: vla-trace record --intervention {one_line(out)} --alpha 1 2 4", err=True)
    else:
        click.echo(chosen.to_json())
    return Exit.OK

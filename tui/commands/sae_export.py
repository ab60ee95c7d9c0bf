"""`vla-trace sae export FOLDER OUT`: an autoencoder for dictionary_learning."""

from pathlib import Path

import click

from traces.errors import UserError
from tui.terminal import Exit, one_line


@click.command(
    name="export",
    help="""Write the autoencoder in FOLDER to OUT as dictionary_learning saves one.

    SAELens needs no export: sae_lens.SAE.load_from_disk(FOLDER) reads it as it is. OUT gets ae.pt
    and config.json; the latter says how rows are normalised, which dictionary_learning leaves to
    you.
    """,
)
@click.argument("folder")
@click.argument("out")
@click.option("--force", is_flag=True, help="Replace an earlier OUT.")
def command(folder: str, out: str, force: bool) -> Exit:
    """Load, write, say where."""
    from traces.autoencoder import load_autoencoder

    sae = load_autoencoder(folder)
    if (Path(out) / "ae.pt").exists() and not force:
        raise UserError(f"{one_line(out)} holds an autoencoder; --force replaces it")
    from analysis.sae.export import write_dictionary

    write_dictionary(Path(out), sae)
    click.echo(out)
    if sae.normalisation != "none":
        click.echo(f"note: give it rows after {sae.normalisation}, see config.json", err=True)
    return Exit.OK

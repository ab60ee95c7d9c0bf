"""`vla-trace sae`: sparse autoencoders over traces; each sub-command has a file of its own."""

import click

from tui.lazy_group import LazyGroup
from tui.terminal import Exit

COMMANDS = {
    "train": ("tui.commands.sae_train:command", "Train one on a recorded site."),
    "eval": ("tui.commands.sae_eval:command", "How good it is, on rows and in the policy."),
    "features": ("tui.commands.sae_features:command", "What its features do; general or not."),
    "steer": ("tui.commands.sae_steer:command", "Steer a feature, with controls."),
    "export": ("tui.commands.sae_export:command", "Write it for dictionary_learning."),
}


@click.group(
    cls=LazyGroup, table=COMMANDS, noun="sae command", name="sae", invoke_without_command=True
)
@click.pass_context
def command(ctx: click.Context) -> Exit:
    """Sparse autoencoders over recorded activations: train, judge, steer."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        return Exit.USAGE
    return Exit.OK

"""`vla-trace sae`: sparse autoencoders over traces; each sub-command has a file of its own."""

import importlib

import click

from traces.errors import UnknownName
from tui.terminal import Exit

COMMANDS = {
    "train": ("tui.commands.sae_train:command", "Train one on a recorded site."),
    "eval": ("tui.commands.sae_eval:command", "How good it is, on rows and in the policy."),
    "features": ("tui.commands.sae_features:command", "What its features do; general or not."),
    "steer": ("tui.commands.sae_steer:command", "Steer a feature, with controls."),
    "export": ("tui.commands.sae_export:command", "Write it for dictionary_learning."),
}


class SaeGroup(click.Group):
    """A group that imports a sub-command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one sub-command; None when the table has no such name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As Click does, with our own one-line error."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UnknownName("sae command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table's help lines."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=SaeGroup, name="sae", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> Exit:
    """Sparse autoencoders over recorded activations: train, judge, steer."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        return Exit.USAGE
    return Exit.OK

"""Command groups that import a sub-command only when it is called."""

import importlib
from collections.abc import Mapping

import click

from traces.errors import UnknownName


class LazyGroup(click.Group):
    """A Click group over a table.

    Args:
        table: name to (module:function, help line). The line is there so that --help imports
            nothing.
        noun: what an unknown name is not.
    """

    def __init__(
        self, *args, table: Mapping[str, tuple[str, str]], noun: str = "command", **options
    ) -> None:
        super().__init__(*args, **options)
        self.table, self.noun = table, noun

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one sub-command; None when the table has no such name."""
        if cmd_name not in self.table:
            return None
        module, _, attribute = self.table[cmd_name][0].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As Click does, with our own one-line error."""
        if args[0] not in self.table and not ctx.resilient_parsing:
            if args[0].startswith("-"):
                raise click.NoSuchOption(args[0], ctx=ctx)
            raise UnknownName(self.noun, args[0], self.table)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table's help lines; importing nothing is the point."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.table.items()])

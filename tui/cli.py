"""The `vla-trace` command: a group that imports a sub-command only when it is called.

stdout is data, stderr is talk. An error that its user can mend is one line on stderr and an exit
code of `tui.terminal.Exit`; a traceback means a bug.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence

import click

from traces.errors import MissingExtra, UserError
from tui.lazy_group import LazyGroup
from tui.terminal import Exit, one_line

COMMANDS = {
    "record": ("tui.commands.record:command", "Record rollouts, steered and paired baseline."),
    "sweep": ("tui.commands.sweep:command", "Record a grid of conditions, resumable."),
    "reach": ("tui.commands.reach:command", "Which layers can change the action, and how much."),
    "train": ("tui.commands.train:command", "Fine-tune a policy by reinforcement (GRPO)."),
    "status": ("tui.commands.status:command", "How a run is; --watch, --json."),
    "tail": ("tui.commands.tail:command", "What a run logs, line by line."),
    "alerts": ("tui.commands.alerts:command", "What needs a look in a training run."),
    "snapshot": ("tui.commands.snapshot:command", "Everything about some updates of a training."),
    "eval": ("tui.commands.eval:command", "Success of a policy, paired with its base."),
    "analyze": ("tui.commands.analyze:command", "Compare conditions, with honest statistics."),
    "diff": ("tui.commands.diff:command", "What fine-tuning changed inside a policy."),
    "survive": ("tui.commands.survive:command", "Does steering survive fine-tuning?"),
    "atlas": ("tui.commands.atlas:command", "Where in denoising the expert acts."),
    "figures": ("tui.commands.figures:command", "Draw what analyze reports."),
    "report": ("tui.commands.report:command", "Everything about some traces on one page."),
    "neurons": ("tui.commands.neurons:command", "Read a policy's neurons in words."),
    "meaning": ("tui.commands.meaning:command", "What recorded neurons follow over time."),
    "cluster": ("tui.commands.cluster:command", "Choose the neurons of a concept to steer."),
    "sae": ("tui.commands.sae:command", "Sparse autoencoders: train, judge, steer."),
    "ls": ("tui.commands.ls:command", "List recordings, one line each."),
    "show": ("tui.commands.show:command", "Summarise one trace file."),
    "check": ("tui.commands.check:command", "Check traces from end to end."),
    "repair": ("tui.commands.repair:command", "Save what is whole of a damaged trace."),
    "merge": ("tui.commands.merge:command", "Put traces of one condition into one file."),
    "prune": ("tui.commands.prune:command", "Copy a trace without some of it."),
    "export": ("tui.commands.export:command", "Write traces for another tool."),
    "video": ("tui.commands.video:command", "Film a recorded episode."),
    "replay": ("tui.commands.replay:command", "Run a recording again; is it the same?"),
    "doctor": ("tui.commands.doctor:command", "Check this machine; say how to mend it."),
}
"""Name -> (module:function, help line). The line is here so that --help imports no sub-command."""

ENGINE_EXTRA = frozenset(
    {"gymnasium", "imageio", "lerobot", "mujoco", "safetensors", "torch", "transformers"}
)
"""Modules of the `engine` extra; a command that lacks one gets the install line as its error."""


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    name="vla-trace",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="vla-trace", prog_name="vla-trace")
@click.pass_context
def group(ctx: click.Context) -> Exit:
    """Watch, steer and dissect robot vision-language-action policies."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        return Exit.USAGE
    return Exit.OK


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; `args` defaults to this process's."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a letter gets its escape
            stream.reconfigure(errors="backslashreplace")
    try:
        # A command returns an Exit or None; --help and --version return 0.
        code = group.main(args, prog_name="vla-trace", standalone_mode=False)
        sys.stdout.flush()
        return int(code or Exit.OK)
    except UserError as error:
        return _fail(error, Exit.USAGE)
    except click.ClickException as error:
        return _fail(error.format_message(), Exit.USAGE)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", Exit.INTERRUPTED)
    except BrokenPipeError:
        # The last flush found the reader gone (Click treats earlier writes the same way). Python
        # flushes stdout once more on exit; give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILURE
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ENGINE_EXTRA or importlib.util.find_spec(missing) is not None:
            raise
        return _fail(MissingExtra(missing, "engine"), Exit.USAGE)
    except OSError as error:
        return _fail(error, Exit.FAILURE)


def _fail(message: object, code: Exit) -> int:
    click.echo(f"error: {one_line(message)}", err=True)
    return code


def main() -> None:
    """Entry point of the `vla-trace` script."""
    sys.exit(run())

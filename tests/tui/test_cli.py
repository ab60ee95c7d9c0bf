"""The command group: start-up cost, errors on one line, exit codes."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from traces.errors import UserError
from tui import cli
from tui.terminal import Exit, one_line, to_json

HEAVY = ("torch", "numpy", "h5py", "textual", "polars", "rich", "sklearn", "mujoco", "lerobot")
VLA_TRACE = [sys.executable, "-P", "-c", "from tui.cli import main; main()"]


@pytest.mark.parametrize("args", [["--help"], ["--version"], [], ["nothing"]])
def test_the_group_itself_imports_nothing_heavy(args):
    code = (
        "import sys, tui.cli\n"
        f"tui.cli.run({args!r})\n"
        f"sys.exit(' '.join(m for m in {HEAVY!r} if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, f"imported: {done.stderr}"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_of_the_table_loads_and_has_help(name, capsys):
    assert cli.run([name, "--help"]) == Exit.OK
    assert f"Usage: vla-trace {name}" in capsys.readouterr().out


def test_help_lists_every_command_with_its_line(capsys):
    assert cli.run(["--help"]) == Exit.OK
    out, err = capsys.readouterr()
    for name, (_, line) in cli.COMMANDS.items():
        assert f"  {name}" in out
        assert line in out
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80


def test_no_command_shows_help_as_talk(capsys):
    assert cli.run([]) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: vla-trace")


def test_version(capsys):
    assert cli.run(["--version"]) == Exit.OK
    version = importlib.metadata.version("vla-trace")
    assert capsys.readouterr().out == f"vla-trace, version {version}\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["recrod"], "unknown command 'recrod'; did you mean record?"),
        (["--nonsense"], "No such option"),
        (["doctor", "--jsn"], "No such option"),
        (["doctor", "extra"], "unexpected extra argument"),
        (["show"], "Missing argument"),
        (["bad\x1b[2J\nname"], r"unknown command 'bad\x1b[2J"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(args, said, capsys):
    assert cli.run(args) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "\x1b" not in err
    assert said in err


@pytest.fixture
def failing(monkeypatch):
    """A `doctor` that raises what it is told to."""

    def install(error):
        def fail():
            raise error

        monkeypatch.setattr("tui.commands.doctor.command", click.Command("doctor", callback=fail))

    return install


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("no such thing"), 2, "error: no such thing\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device\n"),
        (click.ClickException("two\nlines"), 2, "error: two lines\n"),
    ],
)
def test_errors_become_one_line_and_a_code(error, code, line, failing, capsys):
    failing(error)
    assert cli.run(["doctor"]) == code
    # Click ends a terminal's ^C line before it reports the interruption.
    assert capsys.readouterr().err.lstrip("\n") == line


def test_a_missing_extra_names_the_install_command(failing, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    failing(ModuleNotFoundError("No module named 'torch.cuda'", name="torch.cuda"))
    assert cli.run(["doctor"]) == Exit.USAGE
    err = capsys.readouterr().err
    assert "'torch' is not installed" in err
    assert err.endswith("pip install 'vla-trace[engine]'\n")


def test_a_broken_install_is_not_mistaken_for_a_missing_extra(failing):
    failing(ModuleNotFoundError("No module named 'click.gone'", name="click.gone"))
    with pytest.raises(ModuleNotFoundError):
        cli.run(["doctor"])


def test_a_bug_keeps_its_traceback(failing):
    failing(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.run(["doctor"])


@pytest.mark.parametrize("args", [["--help"], ["doctor"]])
def test_a_closed_pipe_is_silent(args):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*VLA_TRACE, *args], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writer)
    assert done.returncode == Exit.FAILURE
    assert done.stderr == ""


def test_the_installed_script_is_this_group():
    script = Path(sys.executable).with_name("vla-trace")
    done = subprocess.run([script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, "is the project installed? run: make setup"
    assert "doctor" in done.stdout


def test_one_line_escapes_what_a_terminal_would_obey():
    assert one_line("a\n  b\tc") == "a b c"
    assert one_line("\x1b]0;x\x07\u202e\udc80é") == r"\x1b]0;x\x07\u202e\udc80é"


def test_json_is_strict_and_ascii():
    assert json.loads(to_json({"a": "é\x1b"})) == {"a": "é\x1b"}
    assert to_json({"a": "é\x1b"}).isascii()
    with pytest.raises(ValueError, match="Out of range float"):
        to_json({"a": float("nan")})

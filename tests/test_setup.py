"""scripts/setup.sh on machines that lack something: the tools it calls are replaced by scripts."""

import os
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[1] / "scripts" / "setup.sh"


@pytest.fixture
def machine(tmp_path):
    """A PATH on which chosen commands log their arguments and answer as told."""
    tools = tmp_path / "bin"
    tools.mkdir()

    def command(name, body):
        path = tools / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/log"\n{body}\n')
        path.chmod(0o755)

    def run():
        environment = os.environ | {"PATH": f"{tools}:/usr/bin:/bin:/usr/sbin:/sbin"}
        done = subprocess.run(["sh", SETUP], env=environment, capture_output=True, text=True)
        log = tmp_path / "log"
        return done, log.read_text().splitlines() if log.exists() else []

    command("uv", "exit 0")
    return command, run


def test_nothing_is_installed_twice(machine):
    command, run = machine
    command("ldconfig", "echo libOSMesa.so.8")
    command("apt-get", "exit 1")
    done, log = run()
    assert done.returncode == 0
    assert done.stdout == done.stderr == ""
    assert log == ["ldconfig -p", "uv sync --quiet --frozen --extra engine"]


def test_root_installs_the_gl_library(machine):
    command, run = machine
    command("ldconfig", "exit 0")
    command("id", "echo 0")
    command("apt-get", "exit 0")
    done, log = run()
    assert done.returncode == 0
    assert "libosmesa6" in done.stdout
    assert "apt-get install -y libosmesa6 -qq" in log


def test_without_rights_it_names_the_command_and_stops(machine):
    command, run = machine
    command("ldconfig", "exit 0")
    command("id", "echo 1000")
    command("sudo", "exit 1")
    done, log = run()
    assert done.returncode == 1
    assert "sudo apt-get update && sudo apt-get install -y libosmesa6" in done.stderr
    assert not [line for line in log if line.startswith("uv")]

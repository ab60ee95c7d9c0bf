"""`ssh -t` through a real sshd into `vla-tui`, over a training that is really running."""

import os
import runpy
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from traces.events import read_events

PtyTerminal = runpy.run_path(str(Path(__file__).parent / "pty_terminal.py"))["PtyTerminal"]
SSHD = "/usr/sbin/sshd"
BIN = Path(sys.executable).parent
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile {folder}/pid
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
"""

pytestmark = pytest.mark.skipif(
    not (Path(SSHD).exists() and shutil.which("ssh")),
    reason="no ssh server here: sudo apt-get install openssh-server",
)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def ssh(tmp_path_factory):
    """A server of our own on the loopback address; returns the command that enters it."""
    folder, port = tmp_path_factory.mktemp("ssh"), free_port()
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    (folder / "config").write_text(CONFIG.format(port=port, folder=folder))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "config")], stderr=log)
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
    command = ["ssh", "-tt", "-p", str(port), "-i", str(folder / "user")]
    command += [word for option in options for word in ("-o", option)]
    for _ in range(100):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert server.poll() is None, (folder / "log").read_text()
        time.sleep(0.1)
    yield [*command, "127.0.0.1"]
    server.terminate()
    server.wait(10)


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A folder in which a training runs until the tests are over."""
    folder = tmp_path_factory.mktemp("training")
    small = "--updates 500 --groups 2 --group-size 2 --attempts 1 --slots 4 --workers 1"
    small += " --eval-episodes 2 --eval-every 0 --micro-batch 8 --train expert --name live"
    with (folder / "out").open("w") as out:
        process = subprocess.Popen(
            [BIN / "vla-trace", "train", *small.split()], cwd=folder, stdout=out, stderr=out
        )
    log = folder / "runs" / "live" / "events.jsonl"
    for _ in range(600):
        if any(event["type"] == "step" for event in read_events(log)):
            break
        assert process.poll() is None, (folder / "out").read_text()
        time.sleep(0.2)
    yield folder
    process.kill()
    process.wait(10)


def updates(folder):
    return sum(e["type"] == "step" for e in read_events(folder / "runs/live/events.jsonl"))


@pytest.mark.parametrize("size", [(80, 24), (140, 40)], ids=["80x24", "140x40"])
def test_a_running_training_is_watched_over_ssh(ssh, training, size):
    with PtyTerminal([*ssh, f"cd {training} && {BIN}/vla-tui"], *size) as terminal:
        terminal.wait_for("running", 60)
        terminal.press("2")
        terminal.wait_for("push_cube", 20)
        before = updates(training)
        while updates(training) < before + 2:
            terminal.read(0.2)
        terminal.wait_for(lambda text: any(f"{n}/500" in text for n in range(before + 1, 500)), 30)
        terminal.press("1")
        terminal.wait_for("live", 20)
        terminal.press("?")
        terminal.wait_for("leave; runs go on", 20)
        terminal.press("\x1b")
        terminal.press("q")
        terminal.read(3)
    assert updates(training) > before, "the training goes on when its viewer is closed"

"""Work in another process: answers, refusals, faults, and the process that comes and goes."""

import os
import subprocess
import sys
import threading
import time

import pytest

from traces.errors import UserError
from tui.data import apart as other
from tui.data.apart import apart


@pytest.fixture
def brief(monkeypatch):
    """A process that goes at once when nothing is asked."""
    monkeypatch.setattr(other, "SERVE", f"import tui.data.apart as a; a.IDLE_S = 0.05; {SERVE}")
    monkeypatch.setattr(other, "_process", None)
    yield
    if other._process is not None:
        with other._process:
            pass


SERVE = "a.serve()"


def test_it_is_another_process_in_the_same_folder(tmp_path, monkeypatch):
    assert apart("os:getpid") not in (os.getpid(), None)
    monkeypatch.chdir(tmp_path)
    assert apart("os:getcwd") == str(tmp_path)
    assert apart("math:hypot", 3, 4) == 5.0


def test_what_it_refuses_and_what_fails_comes_back_as_a_sentence(tmp_path):
    with pytest.raises(UserError, match="no such file: no/where"):
        apart("tui.data.library:checked_folder", "no/where")
    with pytest.raises(RuntimeError, match="math domain error"):
        apart("math:sqrt", -1)


def test_what_libraries_print_is_no_answer():
    assert apart("builtins:print", "hello") is None
    assert apart("math:sqrt", 4) == 2.0


def test_it_tells_how_far_it_is():
    told = []
    assert apart("builtins:max", 1, 2) == 2
    apart("operator:call", told=lambda *what: told.append(what))
    assert told == [()]


def test_it_goes_when_nothing_is_asked_and_comes_back(brief):
    first = apart("os:getpid")
    assert other._process.wait(10) == 0
    assert apart("os:getpid") != first


def test_one_that_is_killed_is_said_and_the_next_question_starts_another(brief):
    with pytest.raises(UserError, match="was ended"):
        apart("os:abort")
    assert apart("math:sqrt", 4) == 2.0


def test_leaving_does_not_wait_for_an_answer(brief):
    refused = []

    def ask():
        try:
            apart("time:sleep", 60)
        except UserError as error:
            refused.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while other._process is None:
        time.sleep(0.01)
    other.close()
    thread.join(10)
    assert refused


def test_it_ends_with_the_viewer():
    code = "import os; from tui.data.apart import apart; print(apart('os:getpid'))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{done.stdout.strip()}") and time.monotonic() < deadline:  # noqa: PTH110
        time.sleep(0.05)
    assert time.monotonic() < deadline

"""The commit of the code that ran, from real git repositories."""

import shutil
import subprocess

import pytest

from engine import provenance
from engine.provenance import checkout, versions
from engine.replay import _notes
from traces.header import TraceHeader

GIT = shutil.which("git")
pytestmark = pytest.mark.skipif(GIT is None, reason="needs git")


@pytest.fixture
def file(tmp_path):
    """A committed file."""
    path = tmp_path / "engine" / "code.py"
    path.parent.mkdir()
    path.write_text("x = 1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    return path


def git(folder, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run([GIT, *who, *words], cwd=folder, check=True, capture_output=True)
    return done.stdout.decode().strip()


def test_the_commit_and_whether_files_were_changed_since(file):
    commit = git(file.parent, "rev-parse", "HEAD")
    assert checkout(file) == {"commit": commit, "dirty": False}
    file.with_name("recording.h5").write_text("new files are no change of the code")
    assert checkout(file) == {"commit": commit, "dirty": False}
    file.write_text("x = 2\n")
    assert checkout(file) == {"commit": commit, "dirty": True}


def test_a_package_installed_inside_another_checkout_has_no_commit(file):
    installed = file.parent / ".venv" / "code.py"
    installed.parent.mkdir()
    shutil.copy(file, installed)
    assert checkout(installed) is None


def test_outside_of_a_checkout_and_without_git_there_is_none(file, tmp_path, monkeypatch):
    shutil.rmtree(tmp_path / ".git")
    assert checkout(file) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checkout(file) is None


def test_a_replay_says_that_the_code_was_another():
    was = {"commit": "0123456789" * 4, "dirty": True}
    (note,) = _notes(TraceHeader("run", "record", "", versions={"git": was}))
    assert note.startswith("the code was commit 01234567, changed, is ")
    for same in ({}, {"git": None}, {"git": checkout()}):  # unknown before, or the same
        assert _notes(TraceHeader("run", "record", "", versions=same)) == []


def test_versions_name_the_packages_and_the_commit():
    found = versions()
    assert set(found) == {*provenance.PACKAGES, "git"}
    assert found["git"] is None or len(found["git"]["commit"]) == 40

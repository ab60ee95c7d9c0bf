"""An export gets its name when it is whole; nothing else is ever replaced."""

import pytest

from traces.errors import UnwritableFolder, UserError
from traces.export.target import MARK, fresh


def folder(path, text):
    path.mkdir()
    (path / MARK).write_text(text)


def test_files_and_folders_appear_when_they_are_whole(tmp_path):
    with fresh(tmp_path / "new" / "a.hdf5") as path:
        path.write_text("whole")
        assert not (tmp_path / "new" / "a.hdf5").exists()
    with fresh(tmp_path / "b") as path:
        folder(path, "whole")
    assert (tmp_path / "new" / "a.hdf5").read_text() == "whole"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.hdf5", "b", "new", MARK]


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_everything_as_it_was(tmp_path, problem):
    folder(tmp_path / "a", "earlier")
    for name, force in (("a", True), ("b", False)):
        with pytest.raises(problem), fresh(tmp_path / name, force=force) as path:
            folder(path, "half")
            raise problem
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / MARK).read_text() == "earlier"


def test_an_earlier_export_is_replaced_when_asked(tmp_path):
    folder(tmp_path / "a", "earlier")
    with pytest.raises(UserError, match=r"already exists; .* --force"), fresh(tmp_path / "a"):
        raise AssertionError
    with fresh(tmp_path / "a", force=True) as path:
        folder(path, "later")
    assert (tmp_path / "a" / MARK).read_text() == "later"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_what_comes_up_meanwhile_stays(tmp_path):
    with pytest.raises(UserError, match="already exists"), fresh(tmp_path / "a.rrd") as path:
        path.write_text("ours")
        (tmp_path / "a.rrd").write_text("theirs")
    assert (tmp_path / "a.rrd").read_text() == "theirs"


def test_recordings_and_other_folders_are_never_replaced(tmp_path):
    source = tmp_path / "traces" / "a.h5"
    source.parent.mkdir()
    source.write_text("a recording")
    (source.parent / MARK).write_text("even so")
    (tmp_path / "home").mkdir()
    for name, said in (
        ("traces/a.h5", "holds what is to be exported"),
        ("traces", "holds what is to be exported"),
        ("home", "a folder that no export made"),
    ):
        with pytest.raises(UserError, match=said), fresh(tmp_path / name, [source], force=True):
            raise AssertionError
    assert source.read_text() == "a recording"


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableFolder), fresh(tmp_path / "file" / "a.rrd"):
        raise AssertionError

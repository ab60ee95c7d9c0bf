import math

import pytest

from traces.catalog import find_runs, find_traces, new_run_id, summarise, unused_path
from traces.errors import NoFilesMatch
from traces.events import EventWriter


@pytest.fixture
def folder(tmp_path):
    for name in ("b.h5", "a.h5", "sub/c.h5", "sub/d.h5.partial", "notes.txt", "e[1].h5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(paths, folder):
    return [str(path.relative_to(folder)) for path in paths]


def test_folders_files_and_patterns(folder):
    everything = ["a.h5", "b.h5", "e[1].h5", "sub/c.h5"]
    assert names(find_traces([folder]), folder) == everything
    assert names(find_traces([f"{folder}/**/*.h5"]), folder) == everything
    assert names(find_traces([f"{folder}/s*"]), folder) == ["sub/c.h5"]
    assert names(find_traces([folder / "b.h5", f"{folder}/[ab].h5"]), folder) == ["a.h5", "b.h5"]
    assert names(find_traces([folder / "e[1].h5"]), folder) == ["e[1].h5"]


def test_relative_patterns(folder, monkeypatch):
    monkeypatch.chdir(folder / "sub")
    assert [str(p) for p in find_traces(["*.h5"])] == ["c.h5"]
    assert len(find_traces(["../*.h5", ".", str(folder / "sub" / "c.h5")])) == 4


def test_a_link_is_the_same_file(folder):
    (folder / "z.h5").symlink_to(folder / "a.h5")
    assert len(find_traces([folder / "a.h5", folder / "z.h5"])) == 1


def test_partial_files_are_found_when_asked_for_or_named(folder):
    assert names(find_traces([folder / "sub"], partial=True), folder) == [
        "sub/c.h5",
        "sub/d.h5.partial",
    ]
    assert names(find_traces([folder / "sub/d.h5.partial"]), folder) == ["sub/d.h5.partial"]


def test_every_pattern_must_match(folder):
    (folder / "empty").mkdir()
    for pattern in (folder / "empty", folder / "none*.h5", folder / "none.h5", folder / "*.txt"):
        with pytest.raises(NoFilesMatch, match="made by: vla-trace record"):
            find_traces([folder / "a.h5", pattern])
    with pytest.raises(NoFilesMatch):
        find_traces([])


def test_summary(build, tmp_path):
    path = build.trace(tmp_path / "a.h5")
    summary = summarise(path)
    assert summary.path == path
    assert (summary.episodes, summary.successes, summary.task_ids) == (3, 1, (0, 1))
    assert (summary.suite, summary.kind, summary.partial) == ("tabletop", "record", False)
    assert (summary.intervention, summary.coefficient) == ("fast", 8.0)
    assert summary.bytes == path.stat().st_size
    baseline = summarise(build.trace(tmp_path / "b.h5", numbers=(), intervention=None))
    assert (baseline.intervention, baseline.episodes, baseline.task_ids) == ("", 0, ())
    assert math.isnan(baseline.coefficient)


def test_runs(tmp_path):
    assert find_runs(tmp_path / "nowhere") == []
    for run_id in ("20260102-b", "20260101-a"):
        EventWriter(tmp_path / run_id / "events.jsonl").close()
    (tmp_path / "not-a-run").mkdir()
    runs = find_runs(tmp_path)
    assert [run.run_id for run in runs] == ["20260101-a", "20260102-b"]
    assert find_runs(runs[0].path) == [runs[0]]
    assert runs[0].events == tmp_path / "20260101-a" / "events.jsonl"


def test_run_ids_differ_and_sort_by_time():
    ids = [new_run_id("record") for _ in range(20)]
    assert len(set(ids)) == 20
    assert all(run_id.split("-")[2] == "record" for run_id in ids)
    assert [run_id[:15] for run_id in ids] == sorted(run_id[:15] for run_id in ids)


def test_unused_path_never_collides(tmp_path):
    taken = []
    for _ in range(3):
        path = unused_path(tmp_path, "fast", ".h5")
        path.touch()
        taken.append(path.name)
    assert taken == ["fast.h5", "fast-2.h5", "fast-3.h5"]
    for left, free in (("slow.h5.partial", "slow-2.h5"), ("slow-2.h5.new", "slow-3.h5")):
        (tmp_path / left).touch()
        assert unused_path(tmp_path, "slow", ".h5").name == free

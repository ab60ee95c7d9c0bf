import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.errors import UnwritableFolder
from traces.events import EVENT_TYPES, EventTail, EventWriter, parse_lines, read_events, run_state

ROOT = Path(__file__).parents[2]


@pytest.fixture
def log(tmp_path):
    return tmp_path / "runs" / "r1" / "events.jsonl"


def test_what_is_emitted_is_polled_once(log):
    tail = EventTail(log)
    assert tail.poll() == []
    with EventWriter(log, clock=lambda: 12.5) as writer:
        writer.emit("run_start", run_id="r1")
        assert tail.poll() == [{"v": 1, "seq": 0, "t": 12.5, "type": "run_start", "run_id": "r1"}]
        writer.emit("heartbeat")
        writer.emit("step", metrics={"loss": np.float32(0.5), "x": np.arange(2)}, path=log)
        heartbeat, step = tail.poll()
        assert heartbeat["seq"] == 1
        assert step["metrics"] == {"loss": 0.5, "x": [0, 1]}
        assert step["path"] == str(log)
    assert tail.poll() == []


def test_one_event_is_one_write(log, monkeypatch):
    writes = []
    write = os.write
    with EventWriter(log) as writer:
        monkeypatch.setattr(os, "write", lambda fd, line: writes.append(line) or write(fd, line))
        writer.emit("alert", message="two\nlines")
        monkeypatch.undo()
    assert len(writes) == 1
    assert writes[0].count(b"\n") == 1


def test_a_nan_loss_survives(log):
    with EventWriter(log) as writer:
        writer.emit("step", metrics={"loss": float("nan"), "worst": float("inf")})
    (step,) = read_events(log)
    assert np.isnan(step["metrics"]["loss"])
    assert step["metrics"]["worst"] == float("inf")


def test_unknown_types_are_refused_when_written_and_kept_when_read(log):
    with EventWriter(log) as writer:
        with pytest.raises(ValueError, match="unknown event type 'heratbeat'"):
            writer.emit("heratbeat")
        with pytest.raises(ValueError, match="are set by the writer"):
            writer.emit("heartbeat", seq=4)
        with pytest.raises(TypeError, match="cannot hold object"):
            writer.emit("alert", value=object())
    with log.open("a") as file:
        file.write('{"v": 2, "seq": 0, "t": 1, "type": "dream", "colour": "red"}\n')
    assert [event["type"] for event in read_events(log)] == ["dream"]


def test_seq_goes_on_after_a_restart_and_a_torn_line_is_closed(log):
    with EventWriter(log) as writer:
        writer.emit("run_start")
        writer.emit("heartbeat")
    with log.open("ab") as file:
        file.write(b'{"v": 1, "seq": 2, "t"')
    tail = EventTail(log)
    assert [event["seq"] for event in tail.poll()] == [0, 1]
    with EventWriter(log) as writer:
        writer.emit("run_start")
        assert [event["seq"] for event in tail.poll()] == [2]
        assert tail.skipped == 1
        assert not tail.restarted


def test_a_write_cut_short_is_told_and_does_not_spoil_the_next(log, monkeypatch):
    write = os.write
    with EventWriter(log) as writer:
        monkeypatch.setattr(os, "write", lambda fd, line: write(fd, line[:7]))
        with pytest.raises(OSError, match="in part only"):
            writer.emit("heartbeat")
        monkeypatch.undo()
        writer.emit("heartbeat")
    assert [event["seq"] for event in read_events(log)] == [0]


GOOD = b'{"v": 1, "seq": 0, "t": 1.0, "type": "heartbeat"}\n'


@pytest.mark.parametrize(
    "tail_bytes",
    [b'{"v": 1, "se', b"\0\0\0\0", b"\0\0\0\n", b'{"v": 1,, "t": 2}\n', b"3\n", b'{"t": 1}\n'],
)
def test_an_unfinished_end_is_waited_for_and_a_spoiled_middle_is_counted(log, tail_bytes):
    log.parent.mkdir(parents=True)
    log.write_bytes(GOOD + tail_bytes)
    tail = EventTail(log)
    assert len(tail.poll()) == 1
    assert tail.poll() == []
    assert tail.skipped == 0
    closing = b"" if tail_bytes.endswith(b"\n") else b"\n"
    log.write_bytes(GOOD + tail_bytes + closing + GOOD)
    assert len(tail.poll()) == 1
    assert tail.skipped == 1


def test_an_end_that_becomes_whole_is_read(log):
    log.parent.mkdir(parents=True)
    log.write_bytes(GOOD + b"\0" * len(GOOD))
    tail = EventTail(log)
    assert len(tail.poll()) == 1
    log.write_bytes(GOOD + GOOD)
    assert len(tail.poll()) == 1


@pytest.mark.parametrize("most", [1, 50, 120, 10_000])
def test_a_long_log_is_read_in_parts(log, most):
    """However little is read at once, no event is lost, and `behind` says when to go on."""
    with EventWriter(log) as events:
        for update in range(20):
            events.emit("step", update=update, metrics={"a": "x" * 7 * update})
    with log.open("ab") as file:
        file.write(b"no json\n" * 30 + b'{"t": 1, "type": "heartbeat"}\n{"torn')
    tail, found, polls = EventTail(log), [], 0
    while not polls or tail.behind:
        found += tail.poll(most)
        polls += 1
    assert [e.get("update") for e in found] == [*range(20), None]
    assert (polls > 1) == (most < 10_000)
    assert tail.poll(most) == []
    assert tail.skipped == 30


def test_a_replaced_or_shrunk_log_is_read_from_its_start(log):
    log.parent.mkdir(parents=True)
    log.write_bytes(GOOD * 3)
    tail = EventTail(log)
    assert len(tail.poll()) == 3
    assert not tail.restarted
    log.write_bytes(GOOD)
    assert len(tail.poll()) == 1
    assert tail.restarted
    other = log.with_suffix(".new")
    other.write_bytes(GOOD * 5)
    other.rename(log)
    assert len(tail.poll()) == 5
    assert tail.restarted
    assert tail.poll() == []
    assert not tail.restarted


@given(st.lists(st.integers(0, 10), max_size=6), st.data())
def test_however_the_bytes_arrive_the_events_are_the_same(lengths, data):
    lines = [
        json.dumps({"v": 1, "seq": i, "t": 1.0, "type": "alert", "x": "é" * n}).encode() + b"\n"
        for i, n in enumerate(lengths)
    ]
    content = b"".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=4)))
    seen, offset = [], 0
    for cut in [*cuts, len(content)]:
        events, consumed, skipped = parse_lines(content[offset:cut])
        assert skipped == 0
        seen += [event["seq"] for event in events]
        offset += consumed
    assert seen == list(range(len(lengths)))
    assert offset == len(content)


def test_killed_writer_leaves_every_finished_line(log):
    script = (
        "import os, signal, sys; from traces.events import EventWriter\n"
        "writer = EventWriter(sys.argv[1])\n"
        "for i in range(50): writer.emit('episode', uid=str(i))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(log)], cwd=ROOT)
    assert done.returncode < 0
    assert [event["uid"] for event in read_events(log)] == [str(i) for i in range(50)]


def start(**fields):
    return {"type": "run_start", "t": 0.0, **fields}


@pytest.mark.parametrize(
    ("events", "now", "state"),
    [
        ([], 0.0, "silent"),
        ([start()], 59.0, "running"),
        ([start()], 61.0, "silent"),
        ([start(), {"type": "heartbeat", "t": 500.0}], 559.0, "running"),
        ([start()], 601.0, "crashed?"),
        ([start(), {"type": "run_end", "t": 1.0, "status": "finished"}], 1e9, "finished"),
        ([start(), {"type": "run_end", "t": 1.0, "status": "failed"}], 1e9, "failed"),
        ([start(), {"type": "run_end", "t": 1.0, "status": "failed"}, start()], 1.0, "running"),
        ([start(host="elsewhere", pid=2**22 + 1)], 1.0, "running"),
        ([start(host=socket.gethostname(), pid=os.getpid())], 1.0, "running"),
    ],
)
def test_run_state(events, now, state):
    assert run_state(events, now) == state


def test_a_process_that_is_gone_has_crashed_however_fresh_its_heartbeat():
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert run_state([start(host=socket.gethostname(), pid=child.pid)], 1.0) == "crashed?"


def test_a_log_in_a_forbidden_place(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableFolder, match="cannot write in"):
        EventWriter(tmp_path / "file" / "events.jsonl")


def test_every_type_is_documented():
    assert len(EVENT_TYPES) == 12
    assert all(EVENT_TYPES.values())

import tracemalloc
from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces import rules, scan
from traces.check import check
from traces.errors import MissingFile
from traces.structure import Finding


@pytest.fixture
def path(build, tmp_path):
    return build.trace(tmp_path / "a.h5")


def change(path, act):
    with h5py.File(path, "r+", locking=False) as file:
        act(file)
    return path


def put(place, row, value):
    """Set one row of a column."""
    return lambda file: file[place].__setitem__(row, value)


def tell(place, name, value):
    """Set one attribute."""
    return lambda file: file[place].attrs.__setitem__(name, value)


def restore(place, dtype=None, rows=None):
    """Store a column anew, as another type or with other rows."""

    def act(file):
        old = file[place]
        values, attrs = old[:] if rows is None else rows(old[:]), dict(old.attrs)
        del file[place]
        file.create_dataset(place, data=values.astype(dtype or values.dtype), maxshape=None)
        file[place].attrs.update(attrs)

    return act


def test_a_sound_trace_gives_no_reason_to_speak(build, path, tmp_path):
    assert check(path) == []
    assert check(build.trace(tmp_path / "none.h5", numbers=())) == []


SPOILED = [
    (tell("steps/ee_pos", "unit", "cm"), "error", "steps/ee_pos", "unit is 'cm', the format says"),
    (tell("steps/ee_pos", "dims", "T,2"), "error", "steps/ee_pos", "dims is 'T,2'"),
    (lambda f: f["steps/t"].attrs.pop("unit"), "warning", "steps/t", "has no attribute unit"),
    (lambda f: f.pop("steps/action"), "error", "steps/action", "the column is missing"),
    (lambda f: f.pop("groups"), "error", "groups", "the table is missing"),
    (restore("steps/reward", "f4"), "error", "steps/reward", "is stored as float32, the format"),
    (restore("steps/reward", "i4"), "error", "steps/reward", "holds int32, not float64"),
    (tell("/", "K", 5), "error", "decisions/noise_std", "shape (4,), the header says (5,)"),
    (lambda f: f["steps/t"].resize(16, axis=0), "error", "steps", "and t has 16 rows"),
    (lambda f: f["groups/group"].resize(1, axis=0), "error", "groups", "differ in length"),
    (put("steps/ee_pos", 3, np.nan), "error", "steps/ee_pos", "are not finite numbers (row 3)"),
    (put("steps/state", slice(2, 5), np.inf), "error", "steps/state", "(3 rows, 2 to 4)"),
    (put("steps/log_prob", 3, np.inf), "error", "steps/log_prob", "are infinite (row 3)"),
    (put("episodes/instruction", 1, b"\xff"), "error", "episodes/instruction", "not UTF-8"),
    (put("decisions/noise_std", 1, -1), "error", "decisions/noise_std", "are negative (row 1)"),
    (put("steps/ee_pos", 3, 50), "warning", "steps/ee_pos", "further than 5 m"),
    (put("steps/gripper", 3, 4), "warning", "steps/gripper", "further than 0.5 m"),
    (put("steps/ee_quat", 3, 0), "warning", "steps/ee_quat", "another length than 1"),
    (put("episodes/n_steps", 1, 7), "error", "episodes/first_step", "give spans which"),
    (put("episodes/first_step", 0, -1), "error", "episodes/first_step", "give spans which"),
    (put("steps/episode", 5, 0), "error", "steps/episode", "name another episode"),
    (put("decisions/episode", 3, 0), "error", "decisions/episode", "name another episode"),
    (put("steps/t", 5, 9), "error", "steps/t", "do not count 0, 1, 2"),
    (put("steps/decision", 5, 0), "error", "steps/decision", "a decision of another episode"),
    (put("steps/decision", 8, 2), "error", "steps/decision", "to an earlier decision"),
    (put("steps/chunk_offset", 5, 5), "error", "steps/chunk_offset", "outside the chunk of 5"),
    (put("steps/chunk_offset", 5, 3), "error", "steps/chunk_offset", "do not follow the row"),
    (put("decisions/n_executed", 2, 1), "error", "decisions/n_executed", "differ from the number"),
    (put("decisions/t", 2, 1), "error", "decisions/t", "differ from the first step"),
    (put("episodes/return", 1, 5), "warning", "episodes/return", "the sum of the rewards (row 1)"),
    (tell("/", "intervention", "null"), "error", "steps/intervened", "the header has none"),
    (put("episodes/uid", 1, b""), "error", "episodes/uid", "are empty (row 1)"),
    (put("episodes/uid", 1, b"run/u00000/g0000/a00/m000"), "error", "episodes/uid", "repeat"),
    (put("episodes/policy_version", 1, 9), "error", "episodes/policy_version", "policies/ lacks"),
    (tell("/", "kind", "dream"), "warning", "attribute kind", "is 'dream', expected one of"),
    (tell("/", "created_utc", "noon"), "warning", "attribute created_utc", "is not a time"),
    (tell("/", "n_action_steps", 6), "warning", "attribute n_action_steps", "expected 1 to H (5)"),
    (put("objects/object", 4, 3), "error", "objects/object", "name none of the 3 objects (row 4)"),
    (put("objects/step", 4, 99), "error", "objects/step", "point to no step"),
    (put("objects/step", 4, 0), "error", "objects/step", "before that of the row above"),
    (put("sim_state/step", 2, 0), "error", "sim_state/step", "before that of the row above"),
    (put("sim_state/length", 2, 1), "error", "sim_state/offset", "point to no item"),
    (put("frames/agentview/offset", 0, 1), "error", "frames/agentview/offset", "to no item"),
    (put("frames/agentview/data", 1, 0), "error", "frames/agentview/offset", "is no PNG picture"),
    (tell("activations/vlm.1.ffn_act", "name", "x"), "error", "activations/vlm.1.ffn_act", "x"),
    (lambda f: f.pop("activations/vlm.1.ffn_act/n"), "error", "activations/vlm.1.ffn_act/n", ""),
    (lambda f: f.create_dataset("mine", data=[1]), "note", "mine", "is not part of the format"),
    (lambda f: f.__setitem__("l", h5py.SoftLink("/steps")), "warning", "l", "is a link"),
]


@pytest.mark.parametrize(("act", "level", "place", "said"), SPOILED)
def test_what_is_spoiled_is_found(path, act, level, place, said):
    found = check(change(path, act))
    assert (level, place) in [(finding.level, finding.place) for finding in found]
    assert any(said in finding.what for finding in found if finding.place == place)
    if level != "error":
        assert [finding.place for finding in found] == [place]


def test_errors_come_first(path):
    change(path, put("steps/gripper", 3, 4))
    change(path, put("steps/t", 5, 9))
    change(path, lambda file: file.create_dataset("mine", data=[1]))
    assert [finding.level for finding in check(path)] == ["error", "warning", "note"]


def test_a_sampler_with_log_probs_must_have_them(build, tmp_path):
    known = {"name": "flow-sde", "stochastic_steps": [0, 1]}
    path = build.trace(tmp_path / "sde.h5", likelihood=known)
    assert check(path) == []
    (found,) = check(change(path, put("steps/log_prob", 3, np.nan)))
    assert (found.place, found.level) == ("steps/log_prob", "error")
    assert check(change(build.trace(tmp_path / "ode.h5"), put("steps/log_prob", 3, np.nan))) == []


def test_a_resumed_episode_is_no_repetition(path):
    change(path, put("episodes/uid", 1, b"run/u00000/g0000/a00/m000"))
    assert check(change(path, put("episodes/session", 1, 1))) == []


@pytest.mark.parametrize("name", ["n", "mean", "m2"])
def test_statistics_are_those_of_the_values(path, name):
    place = f"activations/expert.0.ffn_act/{name}"
    (found,) = check(change(path, lambda f: f[place].__setitem__(7, 1.01 * f[place][7] + 1)))
    assert (found.level, found.place) == ("error", place)
    assert "differs from the values in 1 of 12 units; unit 7 has" in found.what


def test_overflow_is_a_warning_and_other_infinities_are_errors(path):
    place = "activations/vlm.1.ffn_act"
    change(path, put(f"{place}/values", 2, np.inf))
    assert ("error", f"{place}/values") in [(f.level, f.place) for f in check(path)]
    change(path, put(f"{place}/overflow", 0, 16))
    found = {(f.level, f.place) for f in check(path)}
    assert ("warning", f"{place}/overflow") in found
    assert ("error", f"{place}/values") not in found


def test_a_token_that_is_padding_has_no_values(build, tmp_path):
    record = build.record(0)
    record.activations["expert.0.ffn_act"][:, 2] = np.nan
    with build.writer(tmp_path / "a.h5") as writer:
        writer.write_policy(0, 0)
        writer.write_episode(record)
    assert check(tmp_path / "a.h5") == []
    change(tmp_path / "a.h5", put("activations/expert.0.ffn_act/values", (1, 0, 3), np.nan))
    assert (
        "are NaN" in check(tmp_path / "a.h5")[0].what
        or "not finite" in check(tmp_path / "a.h5")[0].what
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (lambda rows: 0 * rows, "every unit is always 0"),
        (lambda rows: 0 * rows + 3, "no unit ever changes"),
        (lambda rows: rows * (np.arange(16) > 1), "2 of 16 units never change, 2 of them are 0"),
    ],
)
def test_dead_units_are_a_warning(build, tmp_path, values, said):
    with build.writer(tmp_path / "a.h5") as writer:
        writer.write_policy(0, 0)
        record = build.record(0)
        site = "vlm.1.ffn_act"
        record.activations[site] = values(record.activations[site])
        writer.write_episode(record)
    assert check(tmp_path / "a.h5") == [Finding("warning", f"activations/{site}", said)]


def flip(path, place, row):
    """Flip one bit where the file keeps a row."""
    with h5py.File(path, locking=False) as file:
        column = file[place]
        first = (row // column.chunks[0] * column.chunks[0], *(0,) * (column.ndim - 1))
        start = column.id.get_chunk_info_by_coord(first).byte_offset
        row_bytes = column.dtype.itemsize * int(np.prod(column.shape[1:]))
    raw = bytearray(path.read_bytes())
    raw[start + (row - first[0]) * row_bytes] ^= 4
    path.write_bytes(raw)
    return path


def test_a_flipped_bit_is_found_and_placed(build, tmp_path):
    path = build.trace(tmp_path / "long.h5", numbers=range(150))
    with h5py.File(path, locking=False) as file:
        rows, chunk = len(file["episodes/success"]), file["episodes/success"].chunks[0]
    assert chunk < 70 < 2 * chunk < rows
    (found,) = check(flip(path, "episodes/success", 70))
    assert (found.level, found.place) == ("error", "episodes/success")
    assert (
        f"cannot be read: their bytes are damaged (64 rows, {chunk} to {2 * chunk - 1})"
        in found.what
    )


@pytest.mark.parametrize(
    "place",
    [
        "steps/action",
        "decisions/chain",
        "activations/vlm.1.ffn_act/values",
        "frames/agentview/data",
    ],
)
def test_every_byte_is_read(path, place):
    found = [f for f in check(flip(path, place, 3)) if f.level == "error"]
    assert [f.place for f in found] == [place]
    assert "cannot be read" in found[0].what


def test_a_file_without_checksums_says_so(path):
    change(path, restore("steps/reward"))
    (found,) = check(path)
    assert found.level == "note"
    assert "1 of " in found.what
    assert "have no checksums" in found.what


def test_an_unfinished_trace_counts_its_complete_episodes(build, tmp_path):
    writer = build.writer(tmp_path / "a.h5")
    writer.write_policy(0, 0)
    for number in range(2):
        writer.write_episode(build.record(number))
    copy = tmp_path / "copy.h5.partial"
    copy.write_bytes(writer.partial.read_bytes())
    writer.close()
    assert check(copy) == []
    copy.unlink()
    path = build.trace(tmp_path / "b.h5")
    path = path.rename(path.with_name("b.h5.partial"))
    change(path, put("episodes/uid", 2, b""))
    found = check(path)
    assert {f.level for f in found} == {"note"}
    assert Finding("note", "steps", "its last 6 rows belong to no complete episode") in found


def test_what_cannot_be_opened_is_one_error(path, tmp_path):
    raw = path.read_bytes()
    for content, said in (
        (b"hello", "not an HDF5 file"),
        (raw[: len(raw) // 2], "vla-trace repair"),
    ):
        path.write_bytes(content)
        (found,) = check(path)
        assert (found.level, found.place) == ("error", "file")
        assert said in found.what
    with pytest.raises(MissingFile):
        check(tmp_path / "none.h5")


def test_small_blocks_find_the_same(build, path, monkeypatch):
    for act, *_ in SPOILED[::3]:
        if "pop" not in getattr(act, "__code__", act).co_names:
            try:
                change(path, act)
            except (ValueError, KeyError):
                continue
    at_once = check(path)
    monkeypatch.setattr(scan, "BLOCK_BYTES", 64)
    monkeypatch.setattr(rules, "BLOCK_ROWS", 1)
    assert check(path) == at_once
    assert len(at_once) >= 9


INDICES = [
    *("episodes/first_step", "episodes/n_steps", "episodes/first_decision", "episodes/n_decisions"),
    *("steps/episode", "steps/t", "steps/decision"),
    *("decisions/episode", "decisions/t", "decisions/n_executed"),
    *("activations/vlm.1.ffn_act/decision", "objects/step", "frames/agentview/offset"),
    *("frames/agentview/length", "sim_state/offset", "sim_state/length"),
]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(INDICES), st.integers(0, 10**6), st.integers(-(2**31), 2**31 - 1))
def test_any_other_index_is_found(shared, place, row, value):
    path, raw = shared
    path.write_bytes(raw)
    with h5py.File(path, "r+", locking=False) as file:
        column = file[place]
        row %= len(column)
        ordered = place in ("activations/vlm.1.ffn_act/decision", "objects/step")
        if value == column[row] or (ordered and 0 <= value <= int(column[-1])):
            return  # the same, or another of which nothing else tells
        column[row] = value
    assert any(finding.level == "error" for finding in check(path))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A trace to spoil again and again, and its bytes."""
    import runpy
    from pathlib import Path

    build = runpy.run_path(str(Path(__file__).parent / "conftest.py"))
    path = build["write_trace"](tmp_path_factory.mktemp("check") / "a.h5")
    return path, path.read_bytes()


def test_memory_is_bounded(build, tmp_path):
    sites = [replace(build.sites[0], shape=(4096,))]
    from traces.writer import TraceWriter

    with TraceWriter(tmp_path / "a.h5", build.header(), sites, keep_chain=False) as writer:
        writer.write_policy(0, 0)
        for number in range(8):
            record = build.record(number, n_steps=1000)
            record.objects = record.frames = record.sim_state = None
            values = np.random.default_rng(number).normal(size=(500, 4096)).astype(np.float32)
            record.activations = {sites[0].name: values}
            writer.write_episode(record)
    assert (tmp_path / "a.h5").stat().st_size > 32e6
    check(tmp_path / "a.h5")  # what is imported and cached on the way
    tracemalloc.start()
    try:
        assert check(tmp_path / "a.h5") == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100e6


@pytest.mark.parametrize("name", ["n", "mean", "m2"])
def test_statistics_of_other_units_are_said(path, name):
    place = f"activations/vlm.1.ffn_act/{name}"

    def act(file):
        del file[place]
        file[place] = np.zeros(3, "i8" if name == "n" else "f8")

    (said,) = (f for f in check(change(path, act)) if f.place == place and f.level == "error")
    assert said.what == "has 3 values, the site has 16 units"


def test_numbers_beyond_all_others_are_said_without_a_warning(path):
    found = check(change(path, put("steps/ee_quat", 3, 1e308)))
    assert "values have another length than 1 (row 3)" in [f.what for f in found]

"""Traces to rows: every column from a known trace, and what is counted once."""

import itertools
import math

import numpy as np
import pytest

from analysis.tables import SCHEMA, episode_table
from traces.errors import NotATrace


def test_one_row_per_episode_with_every_column(traces, tmp_path):
    intervention = traces.steer(alpha=4.0)
    path = traces.write(
        tmp_path / "a.h5",
        [
            traces.episode("p1", [3.0, 1.0], success=True, log_prob=-2.0),
            traces.episode("p0", [2.0]),
        ],
        intervention,
        replan=5,
    )
    found = episode_table([path])
    assert found.frame.schema == SCHEMA
    assert (found.repeated, found.notes) == (0, ())
    second, first = found.frame.rows(named=True)  # p0 sorts before p1
    assert second["pair_key"] == "p0"
    steps = first.pop("step_cm")
    assert steps == pytest.approx([3, 1])
    assert first.pop("meed_cm") == pytest.approx(2)
    assert len(first.pop("sampler_id")) == 64
    assert first == {
        "file": str(path),
        "run_id": "a",
        "kind": "record",
        "created_utc": "2026-01-01T00:00:00Z",
        "policy": "smolvla-tabletop@abababab",
        "policy_id": "ab" * 32,
        "policy_path": "models/smolvla-tabletop",
        "suite": "tabletop",
        "task_id": 0,
        "task": "lift",
        "instruction": "pick up the red cube",
        "sampler": "flow_sde",
        "K": 2,
        "replan": 5,
        "role": "steered",
        "label": "fast α=4",
        "prompt": "{}",
        "intervention": "fast",
        "alpha": 4.0,
        "sites": "vlm.1 x2",
        "fingerprint": intervention.fingerprint(),
        "family": traces.steer(alpha=0.0).fingerprint(),
        "matched_to": "",
        "actions_sha256": "",
        "pair_key": "p1",
        "uid": "a/u00000/g0000/a00/m000",
        "session": 0,
        "success": True,
        "n_steps": 2,
        "return": 1.0,
        "intervened": 1.0,
        "log_prob": -2.0,
        "error": "",
    }


def test_what_is_not_known_is_null(traces, tmp_path):
    path = traces.write(
        tmp_path / "a.h5",
        [
            traces.episode("", [1.0], log_prob=math.nan),
            traces.episode("p0", []),
            traces.episode("p1", [1.0, 1.0], final_ee_pos=np.full(3, math.nan)),
        ],
        policy_path="",
        sha256="",
    )
    frame = episode_table([path]).frame
    unpaired, empty, broken = frame.sort("uid").rows(named=True)
    assert (unpaired["pair_key"], unpaired["log_prob"]) == (None, None)
    assert (unpaired["intervention"], unpaired["alpha"], unpaired["fingerprint"]) == (
        None,
        None,
        "",
    )
    assert unpaired["policy"] == "policy"
    assert (empty["meed_cm"], empty["intervened"], empty["n_steps"]) == (None, None, 0)
    assert broken["meed_cm"] is None
    for column in ("meed_cm", "return", "intervened", "log_prob", "alpha"):
        assert not frame[column].drop_nulls().is_nan().any()


def test_same_files_in_any_order_give_the_same_table(traces, tmp_path):
    both = [traces.episode("p0", [1.0]), traces.episode("p1", [2.0])]
    files = [
        traces.write(tmp_path / "c.h5", both),
        traces.write(tmp_path / "a.h5", both, traces.steer()),
        traces.write(tmp_path / "b.h5", both, traces.steer(), run_id="b"),
    ]
    tables = [episode_table(order) for order in itertools.permutations(files)]
    assert all(table.frame.equals(tables[0].frame) for table in tables)
    assert {table.notes for table in tables} == {tables[0].notes}
    assert len(tables[0].frame) == 4


def test_the_newest_recording_of_a_pair_counts(traces, tmp_path):
    old = traces.write(
        tmp_path / "z.h5",
        [traces.episode("p0", [1.0]), traces.episode("p1", [1.0])],
        created_utc="2026-01-01T00:00:00Z",
    )
    new = traces.write(
        tmp_path / "a.h5", [traces.episode("p0", [3.0])], created_utc="2026-01-02T00:00:00Z"
    )
    found = episode_table([old, new])
    assert found.frame["meed_cm"].to_list() == pytest.approx([3.0, 1.0])
    assert found.repeated == 1
    assert found.notes == (
        "1 repeated recording of the same condition and pair left out: the newest counts",
    )


def test_other_conditions_and_unpaired_episodes_are_not_repetitions(traces, tmp_path):
    one = [traces.episode("p0", [1.0])]
    files = [
        traces.write(tmp_path / "base.h5", one),
        traces.write(tmp_path / "a4.h5", one, traces.steer(4)),
        traces.write(tmp_path / "a8.h5", one, traces.steer(8)),
        traces.write(tmp_path / "layer.h5", one, traces.steer(8, layer=0)),
        traces.write(tmp_path / "ode.h5", one, sampler="ode"),
        traces.write(tmp_path / "replan.h5", one, replan=5),
        traces.write(tmp_path / "weights.h5", one, sha256="cd" * 32),
        traces.write(tmp_path / "free.h5", [traces.episode("", [1.0])] * 2),
    ]
    found = episode_table(files)
    assert (len(found.frame), found.repeated) == (9, 0)


def test_of_a_resumed_episode_the_last_session_counts(traces, tmp_path):
    first = traces.write(
        tmp_path / "b.h5",
        [traces.episode("p0", [1.0], session=0)],
        run_id="run",
        created_utc="2026-01-05T00:00:00Z",
    )
    second = traces.write(tmp_path / "a.h5", [traces.episode("p0", [2.0], session=1)], run_id="run")
    found = episode_table([first, second])
    assert found.frame["meed_cm"].to_list() == pytest.approx([2.0])
    assert found.repeated == 1


def test_one_set_of_weights_has_one_name(traces, tmp_path):
    one, two = [traces.episode("p0", [1.0])], [traces.episode("p1", [1.0])]
    files = [
        traces.write(tmp_path / "a.h5", one, policy_path="somewhere/moved"),
        traces.write(tmp_path / "b.h5", two, policy_path="hub/first"),
    ]
    assert set(episode_table(files).frame["policy"]) == {"first@abababab"}


def test_an_unfinished_file_counts_and_is_said(traces, tmp_path):
    path = traces.write(
        tmp_path / "a.h5",
        [traces.episode("p0", [1.0]), traces.episode("p1", [2.0])],
        finish=False,
    )
    found = episode_table([path])
    assert path.name == "a.h5.partial"
    assert len(found.frame) == 2
    assert found.notes == (f"{path} is unfinished: 2 complete episodes in it",)


def test_no_files_make_an_empty_table():
    found = episode_table([])
    assert found.frame.schema == SCHEMA
    assert len(found.frame) == 0


@pytest.mark.parametrize(
    "name", ["steps/ee_pos", "episodes/uid", "episodes/first_step", "policies"]
)
def test_a_damaged_file_is_named(name, traces, tmp_path):
    import h5py

    path = traces.write(tmp_path / "a.h5", [traces.episode("p0", [1.0])])
    with h5py.File(path, "r+", locking=False) as file:
        del file[name]
    with pytest.raises(NotATrace, match=r"a\.h5 is not a readable trace: it "):
        episode_table([path])

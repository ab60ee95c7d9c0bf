"""The exported .rrd, read by rerun-sdk's own reader."""

import numpy as np
import pytest

from traces import open_traces
from traces.export import rerun


@pytest.fixture(scope="module")
def columns(both, tmp_path_factory):
    """Entity and component to the values of its rows, and entity to its steps and times."""
    from rerun.chunk import RrdReader

    out = tmp_path_factory.mktemp("rerun") / "a.rrd"
    with open_traces(both.folder) as traces:
        assert rerun.export(traces, out) == []
    found = {}
    for chunk in RrdReader(out).stream():
        batch = chunk.to_record_batch()
        for name in batch.schema.names:
            found.setdefault((chunk.entity_path, name), []).extend(batch.column(name).to_pylist())
    return found


def test_numbers_of_every_step_are_equal(columns, both):
    for number, record in enumerate(both.records):
        place = f"/episode_{number:04d}/steps"
        n_steps = len(record.steps["t"])
        for name in ("action", "action_policy", "state", "reward", "log_prob", "contact"):
            values = np.array(columns[f"{place}/{name}", "Scalars:scalars"])
            expected = record.steps[name].reshape(n_steps, -1).astype(float)
            np.testing.assert_array_equal(values, expected)
        assert columns[f"{place}/action", "step"] == list(range(n_steps))
        seconds = [time.total_seconds() for time in columns[f"{place}/action", "time"]]
        assert seconds == pytest.approx(np.arange(n_steps) / 20)


def test_pictures_are_equal(columns, both, decode):
    for number, record in enumerate(both.records):
        for camera, pixels in record.pixels.items():
            blobs = columns[f"/episode_{number:04d}/camera/{camera}", "EncodedImage:blob"]
            seen = np.stack([decode(bytes(blob[0])) for blob in blobs])
            np.testing.assert_array_equal(seen, pixels)


def test_activations_are_equal(columns, both, build):
    for number, record in enumerate(both.records):
        for site in build.sites:
            place = f"/episode_{number:04d}/activations/{site.name}"
            ((tensor,),) = columns[place, "Tensor:data"]
            values = record.activations[site.name].astype(site.dtype)
            assert tensor["shape"] == list(values.shape)
            assert tensor["names"] == list(site.dims)
            np.testing.assert_array_equal(np.array(tensor["buffer"], site.dtype), values.ravel())


def test_hand_and_objects_are_where_they_were(columns, both):
    record = both.records[3]
    hand = columns["/episode_0003/scene/hand", "Points3D:positions"]
    np.testing.assert_array_equal(np.array(hand)[:, 0], np.float32(record.steps["ee_pos"]))
    cube = columns["/episode_0003/scene/objects/red_cube", "Points3D:positions"]
    expected = np.float32(record.objects["pos"][record.objects["object"] == 0])
    np.testing.assert_array_equal(np.array(cube)[:, 0], expected)


def test_each_episode_says_what_it_is(columns, both):
    ((text,),) = columns["/episode_0002", "TextDocument:text"]
    assert "- condition: fast" in text and "- dose: 8.0" in text
    assert f"- uid: {both.records[2].episode['uid']}" in text
    ((baseline,),) = columns["/episode_0000", "TextDocument:text"]
    assert "- condition: baseline" in baseline and "dose" not in baseline

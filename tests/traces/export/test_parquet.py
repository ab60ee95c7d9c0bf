"""The exported tables, scanned by polars."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from traces import open_traces
from traces.export import parquet
from traces.export.episodes import episodes
from traces.export.parquet import _spans
from traces.writer import TraceWriter


@pytest.fixture(scope="module")
def out(both, tmp_path_factory):
    out = tmp_path_factory.mktemp("parquet") / "tables"
    with open_traces(both.folder) as traces:
        assert parquet.export(traces, out) == []
    return out


def scan(out, table):
    return pl.scan_parquet(out / table / "*.parquet")


def joined(both, name, table="steps"):
    return np.concatenate([getattr(record, table)[name] for record in both.records])


def test_tables_are_equal(out, both):
    episodes = scan(out, "episodes").collect()
    assert episodes["uid"].to_list() == [record.episode["uid"] for record in both.records]
    assert episodes["success"].to_list() == [r.episode["success"] for r in both.records]
    assert episodes["intervention"].to_list() == ["", "", "fast", "fast", "fast"]
    np.testing.assert_array_equal(episodes["coefficient"], [np.nan, np.nan, 8.0, 8.0, 8.0])
    assert not episodes["superseded"].any()
    steps = scan(out, "steps").collect()
    for name in ("action", "action_policy", "state", "reward", "log_prob", "contact_force", "t"):
        np.testing.assert_array_equal(steps[name].to_numpy(), joined(both, name))
    chain = scan(out, "decisions").select("chain").collect()["chain"].to_numpy()
    np.testing.assert_array_equal(chain, joined(both, "chain", "decisions"))
    assert len(scan(out, "objects").collect()) == 3 * both.n_steps


def test_a_lazy_query_goes_through_all_tables(out, both):
    """Mean activation of one unit over the steps in contact, per success: as by hand."""
    query = (
        scan(out, "steps")
        .join(scan(out, "activations/vlm.1.ffn_act"), on="decision")
        .join(scan(out, "episodes").with_row_index("episode"), on="episode")
        .filter("contact")
        .group_by("success")
        .agg(pl.col("values").arr.get(3).mean())
    )
    found = dict(query.collect().iter_rows())
    for success in (False, True):
        records = [r for r in both.records if r.episode["success"] == success]
        rows = [r.activations["vlm.1.ffn_act"][r.steps["contact"], 3] for r in records]
        by_hand = np.concatenate(rows).astype(np.float16).astype(np.float32).mean()
        assert found[success] == pytest.approx(by_hand, rel=1e-5)


def test_activations_pictures_and_states_are_equal(out, both, build, decode):
    for site in build.sites:
        table = scan(out, f"activations/{site.name}").collect()
        values = joined(both, site.name, "activations").astype(site.dtype)
        np.testing.assert_array_equal(table["values"].to_numpy(), values)
        assert table["decision"].to_list() == list(range(both.n_steps))
    for camera in ("image", "image2"):
        table = scan(out, f"frames/{camera}").collect()
        assert table["step"].to_list() == list(range(both.n_steps))
        seen = np.stack([decode(png) for png in table["png"]])
        pixels = np.concatenate([record.pixels[camera] for record in both.records])
        np.testing.assert_array_equal(seen, pixels)
    states = scan(out, "sim_state").collect()["state"]
    flat = np.concatenate([record.states.ravel() for record in both.records])
    np.testing.assert_array_equal(states.explode(), flat)


def test_large_tables_come_in_parts_whose_rows_count_through(make, tmp_path, monkeypatch):
    made = make(tmp_path / "a.h5", range(6), per_shard=2)
    monkeypatch.setattr(parquet, "ROWS", 10)
    monkeypatch.setattr(parquet, "PART_BYTES", 600)
    with open_traces(tmp_path) as traces:
        parquet.export(traces, tmp_path / "out")
    for table in ("steps", "activations/vlm.1.ffn_act", "frames/image", "sim_state"):
        assert len(list((tmp_path / "out" / table).glob("*"))) > 2, table
    n_steps = [len(record.steps["t"]) for record in made.records]
    steps = scan(tmp_path / "out", "steps").collect()
    assert steps["episode"].to_list() == np.repeat(range(6), n_steps).tolist()
    states = scan(tmp_path / "out", "sim_state").collect()
    assert states["step"].to_list() == list(range(len(steps)))


def test_parts_are_whole_episodes():
    n_steps = np.array([40_000, 20_000, 10_000, 200_000, 1])
    spans = list(_spans(n_steps))
    assert [row for span in spans for row in range(span.start, span.stop)] == list(range(5))


def test_units_and_headers_are_beside_the_tables(out):
    found = json.loads((out / "vla-trace.json").read_text())
    assert found["columns"]["steps"]["contact_force"]["unit"] == "N"
    assert len(found["recordings"]) == 2


def test_parts_can_be_left_out(both, tmp_path):
    with open_traces(both.folder) as traces:
        parquet.export(traces, tmp_path / "out", frames=False, activations=False)
    assert not {"frames", "activations"} & {path.name for path in (tmp_path / "out").iterdir()}


def test_episodes_recorded_again_are_marked(make, build, tmp_path):
    first = make(tmp_path / "a.h5", (0, 1), intervention=None)
    record = replace(first.records[0], objects=None, frames=None, sim_state=None)
    record.episode["session"] = 1
    with TraceWriter(tmp_path / "b.h5", first.header, build.sites) as writer:
        writer.write_policy(0, 0)
        writer.write_episode(record)
    with open_traces(tmp_path) as traces:
        parquet.export(traces, tmp_path / "out")
        assert [episode.about["session"] for episode in episodes(traces)] == [0, 1]
    marks = scan(tmp_path / "out", "episodes").collect()["superseded"]
    assert marks.to_list() == [True, False, False]

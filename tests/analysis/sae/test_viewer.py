"""What DrVLA's viewer reads."""

import io
import json

import imageio.v3 as iio
import numpy as np
import polars as pl
import pytest

from analysis.sae.features import features
from analysis.sae.viewer import PUBLISHED, SAMPLED, write_viewer
from traces.autoencoder import save_autoencoder

SITE = "vlm.1.resid_post"


def png(shade):
    buffer = io.BytesIO()
    iio.imwrite(buffer, np.full((8, 8, 3), shade, np.uint8), extension=".png")
    return buffer.getvalue()


def described(folder, path, sae):
    save_autoencoder(folder, sae)
    return features(folder, [path])


def test_every_file(tmp_path, planted, identity_sae):
    found = described(tmp_path / "sae", planted, identity_sae())
    out = tmp_path / "viewer"
    count = write_viewer(out, found, [planted], top=2)
    files = [path for path in out.rglob("*") if path.is_file()]
    assert count == len(files) == 1 + 3 * 2 + 1
    table = json.loads((out / "features.json").read_text())
    assert [row["id"] for row in table] == list(range(5))
    assert set(table[0]) == set(PUBLISHED.values())
    assert {row["classification"] for row in table} <= {"general", "memorized"}
    once = found.top.filter(pl.col("feature") == 1).row(0, named=True)
    (path,) = (out / "traces").glob("1_*.json")
    trace = json.loads(path.read_text())
    assert trace["episode_id"] == once["uid"] and trace["feature_id"] == 1
    assert trace["length"] == len(trace["values"]) == 10
    assert int(np.argmax(trace["values"])) == once["step"] == 4
    assert trace["values"][4] == pytest.approx(once["peak"], abs=1e-4)
    assert trace["sampled_frames"] == []
    assert trace["sampled_steps"] == list(range(SAMPLED))


def test_frames_are_those_of_the_steps(tmp_path, traces, identity_sae):
    """Two files of two episodes each, so that numbers in a file and in the collection differ."""
    paths = []
    for name in ("a", "b"):
        made = []
        for i in range(2):
            x = np.ones((4, 5), np.float32)
            x[:, 0] = 9 if (name, i) == ("b", 1) else 1
            shades = [png(40 * step + i + (2 if name == "b" else 0)) for step in range(4)]
            frames = {"agentview": (np.arange(4), shades)}
            more = {"ffn_act": None, "activations": {SITE: x}, "frames": frames}
            made.append(traces.episode(f"{name}{i}", [1.0] * 4, **more))
        paths.append(str(traces.write(tmp_path / f"{name}.h5", made)))
    save_autoencoder(tmp_path / "sae", identity_sae())
    found = features(tmp_path / "sae", paths)
    write_viewer(tmp_path / "v", found, paths, top=1)
    best = found.top.filter((pl.col("feature") == 0) & (pl.col("rank") == 0))["uid"][0]
    assert best.startswith("b/") and best.endswith("m001")
    (path,) = (tmp_path / "v" / "traces").glob("0_*.json")
    sampled = json.loads(path.read_text())["sampled_frames"]
    assert len(sampled) == 4
    shades = [int(iio.imread(tmp_path / "v" / name)[0, 0, 0]) for name in sampled]
    assert shades == [40 * step + 3 for step in range(4)]

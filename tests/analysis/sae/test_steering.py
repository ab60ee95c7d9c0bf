"""Interventions on features, and the difference between two means."""

import json
from dataclasses import replace

import numpy as np
import pytest

from analysis.sae.features import features
from analysis.sae.steering import DESCRIBED, FACTS, described, difference_in_means, steered_feature
from traces.autoencoder import save_autoencoder
from traces.collection import open_traces
from traces.errors import UnknownName, UserError
from traces.intervention import Site

SITE = "vlm.1.resid_post"


def written(folder, path, sae):
    """As `sae features` leaves a folder."""
    save_autoencoder(folder, sae)
    found = features(folder, [path])
    found.coverage.write_parquet(folder / DESCRIBED)
    (folder / FACTS).write_text(json.dumps({"sae_sha256": sae.sha256}))
    return found


@pytest.fixture
def folder(tmp_path, planted, identity_sae):
    written(tmp_path / "sae", planted, identity_sae())
    return tmp_path / "sae"


def test_add_is_the_direction_as_long_as_the_mean_peak(folder):
    found = described(folder)
    length = found.table["peak_length"][1]
    steer = steered_feature(found, 1, "add", "fast")
    assert (steer.operator, steer.coefficient) == ("add_direction", 1.0)
    (site,) = steer.sites
    assert (site.tower, site.layer, site.neurons) == ("vlm", 1, ())
    np.testing.assert_allclose(site.vector, [0, length, 0, 0, 0])
    assert steer.provenance["concept"] == "fast" and steer.provenance["label"] == "memorised"
    assert steer.sae == ""


def test_the_other_ways(folder):
    found = described(folder)
    removed = steered_feature(found, 4, "project_out")  # though it is never active
    assert removed.operator == "project_out"
    np.testing.assert_array_equal(removed.sites[0].vector, [0, 0, 0, 0, 1])
    put = steered_feature(found, 1, "set")
    assert put.operator == "sae_set" and put.sae_sha256 == found.sae.sha256
    (site,) = put.sites
    assert (site.neurons, site.kind) == ((1,), "resid_post")
    assert site.vector[0] == pytest.approx(found.table["peak_length"][1])
    scaled = steered_feature(found, 1, "scale")
    assert scaled.operator == "sae_scale"
    assert scaled.sites == (Site("vlm", 1, (1,), kind="resid_post"),)


def test_layer_norm_counts_in_root_of_the_width(tmp_path, planted, identity_sae):
    """There |y| is sqrt(d - 1) for every row, so that z = sqrt(d - 1) mean_peak."""
    written(tmp_path / "n", planted, replace(identity_sae(), normalisation="layer_norm"))
    table = described(tmp_path / "n").table.drop_nulls("mean_peak")
    np.testing.assert_allclose(table["strength"], 2 * table["mean_peak"])


def test_tokens_of_the_site_are_those_acted_on(tmp_path, traces, identity_sae):
    site = "vlm.1.resid_post.language"
    x = {site: np.ones((4, 5), np.float32)}
    made = [traces.episode(f"p{i}", [1.0] * 4, ffn_act=None, activations=x) for i in range(3)]
    path = traces.write(tmp_path / "t.h5", made)
    written(tmp_path / "s", path, identity_sae(site=site, tokens="language"))
    for way in ("add", "set"):
        steer = steered_feature(described(tmp_path / "s"), 0, way)
        assert steer.token_groups == ("language",)


def test_what_is_refused(tmp_path, folder, planted, identity_sae):
    found = described(folder)
    with pytest.raises(UserError, match="feature 5 does not exist; 0 to 4"):
        steered_feature(found, 5, "add")
    with pytest.raises(UserError, match="feature -1 does not exist"):
        steered_feature(found, -1, "add")
    with pytest.raises(UnknownName, match="way to steer 'push'"):
        steered_feature(found, 0, "push")
    with pytest.raises(UserError, match="feature 4 is active in no recorded episode"):
        steered_feature(found, 4, "add")
    ffn = replace(found, sae=replace(found.sae, metadata=found.sae.metadata | {"kind": "ffn_act"}))
    with pytest.raises(UserError, match=r"not the residual stream.*--way set or scale"):
        steered_feature(ffn, 0, "add")
    foreign = replace(found, sae=replace(found.sae, metadata={"site": SITE}))
    with pytest.raises(UserError, match=r"does not say where it belongs .no tower, layer, kind"):
        steered_feature(foreign, 0, "set")
    save_autoencoder(tmp_path / "new", identity_sae())
    with pytest.raises(UserError, match="not described yet; do it with: vla-trace sae features"):
        described(tmp_path / "new")
    (folder / FACTS).write_text(json.dumps({"sae_sha256": "old"}))
    with pytest.raises(UserError, match="describes another autoencoder"):
        described(folder)


def test_difference_in_means_by_hand(planted):
    """Rows in the quarters of lowest and highest speed."""
    steer = difference_in_means([planted], SITE, "speed", 3.0, "fast")
    with open_traces(planted) as traces:
        x = np.asarray(traces.activation(SITE)).astype(float)
        hand = traces.steps("ee_pos")["ee_pos"].reshape(12, 10, 3)
        last = traces.episodes("final_ee_pos")["final_ee_pos"][:, None]
    speed = np.linalg.norm(np.diff(np.concatenate([hand, last], axis=1), axis=1), axis=-1).ravel()
    low, high = np.quantile(speed, [0.25, 0.75])
    wanted = x[speed >= high].mean(axis=0) - x[speed <= low].mean(axis=0)
    (site,) = steer.sites
    np.testing.assert_allclose(site.vector, 3 * wanted / np.linalg.norm(wanted), atol=1e-5)
    assert abs(site.vector[0]) > 2.9
    assert steer.operator == "add_direction"
    assert steer.provenance["signal"] == "speed" and steer.provenance["concept"] == "fast"


def test_difference_in_means_refuses(planted, traces, tmp_path):
    with pytest.raises(UnknownName, match="signal 'mood'"):
        difference_in_means([planted], SITE, "mood", 1.0)
    with pytest.raises(UserError, match="contact hardly changes"):
        difference_in_means([planted], SITE, "contact", 1.0)
    x = {SITE: np.ones((8, 5), np.float32)}
    made = [
        traces.episode(f"p{i}", list(range(1, 9)), ffn_act=np.ones((8, 4)), activations=x)
        for i in range(3)
    ]
    flat = traces.write(tmp_path / "f.h5", made)
    with pytest.raises(UserError, match="same mean whether speed is high or low"):
        difference_in_means([flat], SITE, "speed", 1.0)
    with pytest.raises(UserError, match="expected a residual stream"):
        difference_in_means([flat], "vlm.1.ffn_act", "speed", 1.0)

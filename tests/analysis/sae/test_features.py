"""What features do: a planted one follows the speed, one comes once, one never."""

import numpy as np
import polars as pl
import pytest

from analysis.sae.feature_rows import FeatureRows
from analysis.sae.features import OF_FEATURES, OF_TOP, TOP, features
from traces.autoencoder import save_autoencoder
from traces.collection import open_traces
from traces.errors import UnknownName, UserError

SITE = "vlm.1.resid_post"


@pytest.fixture
def folder(tmp_path, identity_sae):
    save_autoencoder(tmp_path / "sae", identity_sae())
    return tmp_path / "sae"


@pytest.fixture
def found(folder, planted):
    return features(folder, [planted])


def test_the_planted_feature_follows_the_speed(found):
    rows = found.signals.filter(pl.col("signal") == "speed").sort("feature")
    assert rows["r"][0] > 0.98  # of a row's length, which the speed changes a little
    assert rows["p_follows_bh"][0] < 0.001
    assert abs(rows["r"][2]) < 0.4
    assert rows["r"][4] is None


def test_how_often_they_come(found):
    table = found.coverage.sort("feature")
    assert table.schema == pl.Schema(OF_FEATURES)
    assert table["coverage"].to_list() == pytest.approx([1, 1 / 12, 1, 1, 0])
    assert table["onset_count"][1] == 1 and table["run_length"][1] == 1
    assert table["active_episodes"].to_list() == [12, 1, 12, 12, 0]
    assert table["label"].to_list()[1:] == ["memorised", "memorised", "memorised", "silent"]
    assert table["mean_active_fraction"][3] == 1.0 and table["mean_active_fraction"][4] == 0.0
    # 5 in a row that is about 11.2 long, back in units of the activations
    assert table["mean_peak"][1] == pytest.approx(5 / np.sqrt(5**2 + 10**2 + 1 + 4), rel=0.1)
    assert table["peak_length"][1] == pytest.approx(table["mean_peak"][1] * found.row_length)
    assert found.row_length == pytest.approx(10.3, abs=0.3)
    assert table["mean_peak"][4] is None


def test_where_they_peak(found, planted):
    assert found.top.schema == pl.Schema(OF_TOP)
    counts = dict(found.top.group_by("feature").len().iter_rows())
    assert counts == {0: TOP, 1: 1, 2: TOP, 3: TOP}
    once = found.top.filter(pl.col("feature") == 1).row(0, named=True)
    assert once["uid"].endswith("m003") and once["step"] == 4 and once["rank"] == 0
    first = found.top.filter(pl.col("feature") == 0)
    assert first["peak"].to_list() == sorted(first["peak"], reverse=True)
    with open_traces(planted) as traces:
        x = np.asarray(traces.activation(SITE)).reshape(12, 10, 5)
    share = x[..., 0] / np.linalg.norm(x, axis=-1)
    best = int(share.max(axis=1).argmax())
    assert first["uid"][0].endswith(f"m{best:03d}")
    assert first["step"][0] == share[best].argmax()
    assert first["peak"][0] == pytest.approx(share.max(), rel=1e-3)


def test_tokens_are_averaged_and_padding_is_not(activations, tmp_path, identity_sae):
    x = np.zeros((3, 2, 2), np.float32)
    x[0] = [[3, 4], [0, 2]]  # features (.6, .8) and (0, 1)
    x[1] = [[3, 4], [np.nan, np.nan]]
    x[2] = np.nan
    path = activations(tmp_path / "t.h5", [{f"{SITE}.each": x}], dtype="float32")
    with open_traces(path) as traces:
        z = FeatureRows(traces.activation(f"{SITE}.each"), identity_sae(2, rows="token"))[:]
    np.testing.assert_allclose(z, [[0.3, 0.9], [0.6, 0.8], [np.nan, np.nan]], rtol=1e-6)


def test_per_token_sites_can_be_described(traces, tmp_path, identity_sae):
    rng, site = np.random.default_rng(0), f"{SITE}.each"
    made = []
    for i in range(4):
        x = rng.uniform(0, 1, (6, 3, 2)).astype(np.float32)
        made.append(traces.episode(f"p{i}", [1.0] * 6, ffn_act=None, activations={site: x}))
    path = traces.write(tmp_path / "t.h5", made)
    save_autoencoder(tmp_path / "s", identity_sae(2, site=site, rows="token"))
    found = features(tmp_path / "s", [path])
    assert (found.episodes, found.decisions) == (4, 24)
    assert found.coverage["coverage"].to_list() == [1, 1]


def test_calls_every_few_steps_are_said(traces, tmp_path, identity_sae):
    x = {SITE: np.ones((2, 5), np.float32)}
    made = [
        traces.episode(f"p{i}", [1.0] * 6, executed=[3, 3], ffn_act=None, activations=x)
        for i in range(3)
    ]
    path = traces.write(tmp_path / "t.h5", made, replan=3)
    save_autoencoder(tmp_path / "s", identity_sae())
    notes = features(tmp_path / "s", [path]).notes
    assert any("asked every 3 control steps" in note and "--replan 1" in note for note in notes)


def test_what_does_not_fit_is_refused(tmp_path, planted, identity_sae, traces):
    def saved(name, **metadata):
        width = metadata.pop("width", 5)
        save_autoencoder(tmp_path / name, identity_sae(width, **metadata))
        return tmp_path / name

    with pytest.raises(UserError, match=r"reads rows of 4, vlm\.1\.resid_post .* has 5"):
        features(saved("a", width=4), [planted])
    with pytest.raises(UnknownName, match=r"recorded site 'vlm.7.resid_post'"):
        features(saved("b", site="vlm.7.resid_post"), [planted])
    other = saved("c", policy_sha256="cd" * 32)
    with pytest.raises(UserError, match=r"was trained on p, this is .*--other-policy"):
        features(other, [planted])
    assert features(other, [planted], other_policy=True).episodes == 12
    steered = traces.write(tmp_path / "st.h5", [traces.episode("p", [1.0])], traces.steer())
    with pytest.raises(UserError, match="all of these traces are steered"):
        features(saved("d"), [steered])

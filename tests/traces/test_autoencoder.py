"""The autoencoder's folder and its arithmetic, by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from traces.autoencoder import (
    CONFIG,
    NORMALISATIONS,
    WEIGHTS,
    Autoencoder,
    constant,
    load_autoencoder,
    save_autoencoder,
)
from traces.errors import UserError


def made(d=6, m=9, k=3, seed=0, **options):
    rng = np.random.default_rng(seed)
    shapes = {"W_enc": (d, m), "b_enc": (m,), "W_dec": (m, d), "b_dec": (d,)}
    weights = {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    return Autoencoder(**weights, k=k, **options)


def rows(n=20, d=6, seed=1):
    return np.random.default_rng(seed).normal(2, 3, size=(n, d)).astype(np.float32)


def test_by_hand():
    sae = Autoencoder(
        W_enc=np.array([[1, 0, -1], [0, 1, 0]], np.float32),
        b_enc=np.array([0, 0.5, 0], np.float32),
        W_dec=np.array([[2, 0], [0, 1], [1, 1]], np.float32),
        b_dec=np.array([1, 0], np.float32),
        k=1,
        normalisation="none",
    )
    x = np.array([[4, 1], [-2, 1]], np.float32)
    # row 0: (3, 1) -> 3, 1.5, -3: the first stays; row 1: (-3, 1) -> -3, 1.5, 3: the last
    np.testing.assert_array_equal(sae.encode(x), [[3, 0, 0], [0, 0, 3]])
    np.testing.assert_array_equal(sae.reconstructed(x), [[7, 0], [4, 3]])
    np.testing.assert_array_equal(
        sae.moved(x, sae.encode(x), np.array([[1, 0, 0], [0, 2, 3]], np.float32)), [[-4, 0], [0, 2]]
    )


@given(st.integers(1, 9), st.sampled_from(NORMALISATIONS), st.integers(0, 5))
def test_at_most_k_features_fire_and_none_is_negative(k, normalisation, seed):
    z = made(k=k, normalisation=normalisation).encode(rows(seed=seed))
    assert (z >= 0).all()
    assert ((z > 0).sum(axis=1) <= k).all()


def test_layer_norm_knows_neither_mean_nor_scale():
    sae, x = made(), rows()
    np.testing.assert_allclose(sae.encode(x), sae.encode(5 * x + 7), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        sae.reconstructed(5 * x + 7), 5 * sae.reconstructed(x) + 7, rtol=1e-3, atol=1e-3
    )
    np.testing.assert_allclose(sae.length(x), np.sqrt(5), rtol=1e-4)


def test_moving_a_feature_moves_the_reconstruction_alike():
    sae, x = made(), rows()
    z = sae.encode(x)
    wanted = z * 0.5
    np.testing.assert_allclose(
        sae.decode(z, x) + sae.moved(x, z, wanted), sae.decode(wanted, x), rtol=1e-4, atol=1e-4
    )


def test_jumprelu_keeps_what_is_above_its_threshold():
    sae = made(architecture="jumprelu", threshold=np.full(9, 1.5, np.float32), k=0)
    z = sae.encode(rows())
    assert z[z > 0].min() > 1.5


def test_a_constant_reconstructs_one_row():
    row = np.arange(6, dtype=np.float32)
    np.testing.assert_array_equal(constant(made(), row).reconstructed(rows(3)), [row] * 3)


@pytest.mark.parametrize("options", [{}, {"normalisation": "none"}, {"architecture": "jumprelu"}])
def test_the_folder_gives_it_back(tmp_path, options):
    if options.get("architecture"):
        options = options | {"threshold": np.ones(9, np.float32), "k": 0}
    sae = made(metadata={"site": "vlm.1.resid_post", "rows": "token"}, **options)
    save_autoencoder(tmp_path / "a", sae)
    again = load_autoencoder(tmp_path / "a")
    assert again.sha256 == sae.sha256
    assert (again.site, again.is_pooled, again.metadata) == (sae.site, False, sae.metadata)
    np.testing.assert_array_equal(again.reconstructed(rows()), sae.reconstructed(rows()))
    with pytest.raises(FileExistsError):
        save_autoencoder(tmp_path / "a", sae)


def test_the_hash_is_of_what_works():
    sae = made()
    assert replace(sae, metadata={"site": "x"}).sha256 == sae.sha256
    for other in (replace(sae, k=2), replace(sae, normalisation="none"), made(seed=3)):
        assert other.sha256 != sae.sha256


def spoilt(folder, **changes):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / CONFIG).unlink(), "holds no sparse autoencoder .*vla-trace sae train"),
        (lambda f: (f / CONFIG).write_text("{"), "cannot be|can be read"),
        (lambda f: (f / WEIGHTS).write_bytes(b"x" * 40), "SAELens' layout"),
        (lambda f: spoilt(f, architecture="gated"), "unknown architecture 'gated'"),
        (lambda f: spoilt(f, normalize_activations="x"), "unknown normalisation 'x'"),
        (lambda f: spoilt(f, k=99), "k = 99 of 9 features"),
        (lambda f: spoilt(f, rescale_acts_by_decoder_norm=True), "no rescale_acts"),
        (
            lambda f: save_file(
                load_file(f / WEIGHTS) | {"b_dec": np.zeros(4, np.float32)}, f / WEIGHTS
            ),
            r"b_dec of this autoencoder is not \(6,\) finite numbers",
        ),
        (
            lambda f: save_file(
                load_file(f / WEIGHTS) | {"b_dec": np.full(6, np.nan, np.float32)}, f / WEIGHTS
            ),
            "finite numbers",
        ),
    ],
)
def test_what_is_broken_is_said_in_one_line(tmp_path, spoil, message):
    save_autoencoder(tmp_path / "a", made())
    spoil(tmp_path / "a")
    with pytest.raises(UserError, match=message) as caught:
        load_autoencoder(tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_saelens_reads_it(tmp_path):
    """SAELens itself: the same features, the same reconstruction."""
    sae_lens = pytest.importorskip("sae_lens", reason="uv sync --extra sae brings SAELens")
    import torch

    for options in ({}, {"normalisation": "none"}):
        folder = tmp_path / (options.get("normalisation") or "default")
        sae = made(metadata={"site": "vlm.1.resid_post", "policy": "p"}, **options)
        save_autoencoder(folder, sae)
        theirs = sae_lens.SAE.load_from_disk(folder)
        x = torch.from_numpy(rows())
        with torch.no_grad():
            z = theirs.encode(x)
            again = theirs.decode(z)
        np.testing.assert_allclose(z.numpy(), sae.encode(rows()), atol=2e-6)
        np.testing.assert_allclose(again.numpy(), sae.reconstructed(rows()), atol=1e-5)

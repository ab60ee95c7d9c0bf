"""Training: what it learns, what it keeps, what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.sae.measures import reconstruction
from analysis.sae.rows import SiteRows
from analysis.sae.training import (
    STATE,
    SaeConfig,
    Training,
    device_of,
    geometric_median,
)
from traces.errors import UserError

D, FACTORS, ACTIVE = 16, 24, 3


def sparse_rows(n=4096, seed=0):
    """Rows made of a few of `FACTORS` directions, which are returned as well."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(FACTORS, D))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    z = np.zeros((n, FACTORS))
    for row in z:
        row[rng.choice(FACTORS, ACTIVE, replace=False)] = rng.uniform(1, 3, ACTIVE)
    return (z @ directions + 0.5).astype(np.float32), directions


@pytest.fixture(scope="module")
def parts():
    rows, directions = sparse_rows()
    blocks = tuple(slice(i, i + 256) for i in range(0, len(rows), 256))
    return SiteRows(rows, blocks[:-3]), SiteRows(rows, blocks[-3:]), directions


def config(parts, **options):
    settings = {"latents": 32, "k": ACTIVE, "normalisation": "none", "epochs": 60, "batch": 256}
    return SaeConfig(**settings | options).fitted(parts[0].width, parts[0].n)


def trained(parts, **options):
    training = Training(config(parts, **options), parts[0], parts[1])
    while not training.is_over:
        training.run_epoch()
    return training


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
@pytest.mark.parametrize("normalisation", ["none", "expected_norm"])
def test_it_finds_the_directions_that_made_the_rows(parts, architecture, normalisation):
    training = trained(parts, architecture=architecture, normalisation=normalisation)
    sae = training.result({})
    cosines = np.abs(sae.W_dec @ parts[2].T).max(axis=0)
    assert np.median(cosines) > 0.95
    np.testing.assert_allclose(np.linalg.norm(sae.W_dec, axis=1), 1.0, atol=1e-5)
    found = reconstruction(sae, parts[1].in_order())
    assert found.fvu == pytest.approx(training.best_fvu)
    assert found.fvu < 0.15
    assert abs(found.l0 - ACTIVE) < 1


def test_what_is_written_is_the_best_epoch(parts):
    training = Training(config(parts, epochs=6, lr=0.3), parts[0], parts[1])
    seen = []
    while not training.is_over:
        seen.append(training.run_epoch().fvu)
    assert training.best_fvu == min(seen)
    again = reconstruction(training.result({}), parts[1].in_order()).fvu
    assert again == pytest.approx(min(seen))


def test_it_stops_when_held_out_rows_gain_nothing(parts):
    training = trained(parts, epochs=500, patience=2, lr=0.3)
    assert training.waited == 2 and training.epoch < 500


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_a_stopped_training_ends_with_the_same_bits(parts, tmp_path, architecture):
    settings = {"epochs": 5, "architecture": architecture, "dead_steps": 20}
    whole = trained(parts, **settings)
    stopped = Training(config(parts, **settings), parts[0], parts[1])
    for _ in range(2):
        stopped.run_epoch()
    stopped.save(tmp_path)
    again = Training(config(parts, **settings), parts[0], parts[1])
    assert again.load(tmp_path)
    assert again.epoch == 2
    while not again.is_over:
        again.run_epoch()
    assert again.result({}).sha256 == whole.result({}).sha256
    assert again.best_fvu == whole.best_fvu


def test_another_training_is_not_gone_on_with(parts, tmp_path):
    Training(config(parts), parts[0], parts[1]).save(tmp_path)
    other = Training(config(parts, k=2), parts[0], parts[1])
    with pytest.raises(UserError, match=r"other settings or rows; .*--resume, or --force"):
        other.load(tmp_path)
    (tmp_path / STATE).unlink()
    assert not other.load(tmp_path)


def test_seeds_differ_and_repeat(parts):
    one, same, other = (trained(parts, epochs=2, seed=seed).result({}).sha256 for seed in (0, 0, 1))
    assert one == same != other


def test_dead_latents_come_back(parts):
    """Latents that never are among the k largest stay dead, but for the auxiliary loss."""
    alive = {}
    for aux in (0.0, 1.0):
        training = Training(config(parts, aux=aux, dead_steps=5, epochs=15), parts[0], parts[1])
        with torch.no_grad():
            training.weights["W_enc"][:, :16] *= 1e-3
        while not training.is_over:
            training.run_epoch()
        density = reconstruction(training.result({}), parts[1].in_order()).density
        alive[aux] = int((density[:16] > 0).sum())
    assert alive[0.0] <= 2
    assert alive[1.0] >= 12


def test_geometric_median_resists_outliers():
    rows = torch.cat(
        [torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), torch.full((20, 3), 1e4)]
    )
    assert geometric_median(rows).abs().max() < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "gated"}, "unknown architecture 'gated'"),
        ({"normalisation": "z"}, "unknown normalisation 'z'"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"aux": -1}, "aux must be at least 0"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(UserError, match=message):
        SaeConfig(**options)


def test_what_follows_from_the_rows():
    fitted = SaeConfig().fitted(960, 10**6)
    assert (fitted.latents, fitted.k) == (960, 32)
    assert fitted.lr == pytest.approx(2e-4 / (960 / 2**14) ** 0.5)
    assert SaeConfig().fitted(128, 400).batch == 100
    with pytest.raises(UserError, match="k = 9 of 4 latents"):
        SaeConfig(latents=4, k=9).fitted(128, 1000)
    with pytest.raises(UserError, match="8 rows are too few"):
        SaeConfig().fitted(128, 8)


def test_devices():
    assert device_of("cpu") == "cpu"
    with pytest.raises(UserError, match="unknown device"):
        device_of("tpu")
    if not torch.cuda.is_available():
        assert device_of("auto") == "cpu"
        with pytest.raises(UserError, match="finds no GPU"):
            device_of("cuda")


def test_replace_keeps_a_fitted_config(parts):
    fitted = config(parts)
    assert replace(fitted, seed=3).fitted(parts[0].width, parts[0].n).lr == fitted.lr

"""Autoencoders inside a policy: splicing, setting, scaling, and what does not belong there."""

from dataclasses import replace

import numpy as np
import pytest

from engine import sites
from engine.actor import Actor
from engine.dose import measure
from engine.likelihoods.flow_sde import FlowSDE
from engine.policies.smolvla import load_policy
from engine.recovery import splice
from traces.autoencoder import Autoencoder, save_autoencoder
from traces.errors import UserError
from traces.intervention import Intervention, Site

LAYER = 1
SHIFT = 100.0


@pytest.fixture(scope="module")
def actor():
    organism = load_policy("organism")
    return Actor(organism, FlowSDE(sites.denoise_steps(organism.policy), 0.0), 10, wanted=())


def perfect(width, kind="resid_post", tower="vlm", **metadata):
    """Feature i is coordinate i plus `SHIFT`, which keeps it above 0: nothing is lost."""
    eye = np.eye(width, dtype=np.float32)
    about = {"site": f"{tower}.{LAYER}.{kind}", "tower": tower, "layer": LAYER, "kind": kind}
    return Autoencoder(
        eye,
        np.zeros(width, np.float32),
        eye,
        np.full(width, -SHIFT, np.float32),
        k=width,
        normalisation="none",
        metadata=about | {"rows": "token", "tokens": "all"} | metadata,
    )


@pytest.fixture
def saved(actor, tmp_path):
    """Save a perfect autoencoder; returns its folder and itself."""

    def save(kind="resid_post", tower="vlm", width=None, **metadata):
        width = width or sites.place(actor.loaded.policy, tower, LAYER, kind).width
        sae = perfect(width, kind, tower, **metadata)
        save_autoencoder(tmp_path / "sae", sae)
        return tmp_path / "sae", sae

    return save


def on_features(folder, sae, operator, coefficient, features, vector=(), **options):
    site = Site(sae.place[0], LAYER, features, vector, kind=sae.place[2])
    reference = {"sae": str(folder), "sae_sha256": sae.sha256}
    return Intervention("f", operator, (site,), coefficient, **reference, **options)


def recorded(actor, requests, site, *interventions):
    """Chains (B, ...) and a site's activations as they acted, (B, ...)."""
    asked = [replace(request, interventions=interventions) for request in requests]
    capture = f"{site},keep=each,dtype=float32"
    decided = Actor(actor.loaded, actor.sampler, 10, wanted=(capture,)).decide(asked)
    values = [next(iter(d.activations.values())) for d in decided]
    return np.stack([d.chain for d in decided]), np.stack(values)


def seen(actor, requests, kind, *interventions):
    """Chains, activations (B, tokens, d), NaN where padding, and where they are not."""
    chain, x = recorded(actor, requests, f"vlm.{LAYER}.{kind}:tokens=all", *interventions)
    return chain, x, np.isfinite(x).all(axis=-1)


@pytest.mark.parametrize("kind", ["resid_post", "ffn_act"])
@pytest.mark.parametrize("rows", ["token", "mean"])
def test_a_perfect_autoencoder_changes_nothing(actor, requests, saved, kind, rows):
    folder, sae = saved(kind, rows=rows)
    chain, x, _ = seen(actor, requests, kind)
    chain_in, x_in, _ = seen(actor, requests, kind, splice(folder, sae))
    np.testing.assert_allclose(x_in, x, atol=1e-4)
    np.testing.assert_allclose(chain_in, chain, atol=1e-3)


@pytest.mark.parametrize("kind", ["resid_post", "ffn_act"])
def test_setting_moves_the_features_and_nothing_else(actor, requests, saved, kind):
    folder, sae = saved(kind)
    _, x, mask = seen(actor, requests, kind)
    put = on_features(folder, sae, "sae_set", 2.0, (3, 7), (55.0, 40.0))
    _, moved, _ = seen(actor, requests, kind, put)
    z = sae.encode(moved[mask])
    np.testing.assert_allclose(z[:, 3], 110.0, atol=1e-3)
    np.testing.assert_allclose(z[:, 7], 80.0, atol=1e-3)
    others = [i for i in range(sae.width) if i not in (3, 7)]
    np.testing.assert_allclose(moved[mask][:, others], x[mask][:, others], atol=1e-5)


def test_scaling_multiplies_the_feature(actor, requests, saved):
    folder, sae = saved()
    _, x, mask = seen(actor, requests, "resid_post")
    scale = on_features(folder, sae, "sae_scale", 0.5, (5,))
    _, moved, _ = seen(actor, requests, "resid_post", scale)
    before, after = sae.encode(x[mask]), sae.encode(moved[mask])
    np.testing.assert_allclose(after[:, 5], 0.5 * before[:, 5], rtol=1e-5)
    np.testing.assert_allclose(np.delete(after, 5, 1), np.delete(before, 5, 1), atol=1e-4)
    chain = seen(actor, requests, "resid_post")[0]
    same = seen(actor, requests, "resid_post", replace(scale, coefficient=1.0))[0]
    np.testing.assert_array_equal(same, chain)


def test_means_over_tokens_move_and_tokens_follow_alike(actor, requests, saved):
    """Set to what makes the mean 20 larger than the mean of its own row: each token gets that."""
    folder, sae = saved(rows="mean")
    _, x, mask = seen(actor, requests, "resid_post")
    put = on_features(folder, sae, "sae_set", 1.0, (2,), (SHIFT + 20.0,))
    _, moved, _ = seen(actor, requests, "resid_post", put)
    for row in range(len(x)):
        change = (moved - x)[row][mask[row]]
        mean = x[row][mask[row]].mean(axis=0)
        np.testing.assert_allclose(change[:, 2], 20.0 - mean[2], atol=1e-3)
        np.testing.assert_allclose(np.delete(change, 2, 1), 0.0, atol=1e-5)
        assert moved[row][mask[row]].mean(axis=0)[2] == pytest.approx(20.0, abs=1e-3)


def test_some_tokens_only(actor, requests, saved):
    folder, sae = saved(rows="mean", tokens="language")
    inside = splice(folder, sae)
    assert inside.token_groups == ("language",)
    put = on_features(
        folder, sae, "sae_set", 1.0, (2,), (SHIFT + 20.0,), token_groups=("language",)
    )
    _, x, mask = seen(actor, requests, "resid_post")
    _, moved, _ = seen(actor, requests, "resid_post", put)
    acted = np.zeros_like(mask)
    acted[:, slice(*sites.prefix_groups(actor.loaded.policy)["language"])] = True
    changed = np.abs(moved - x).max(axis=-1) > 1e-4
    np.testing.assert_array_equal(changed, acted & mask)


def test_the_expert_is_changed_at_every_denoising_step(actor, requests, saved):
    folder, sae = saved(tower="expert", kind="ffn_act", tokens="chunk")
    chain, *_ = seen(actor, requests, "resid_post")
    np.testing.assert_allclose(
        seen(actor, requests, "resid_post", splice(folder, sae))[0], chain, atol=1e-3
    )
    put = on_features(folder, sae, "sae_set", 1.0, (4,), (SHIFT + 3.0,))
    _, h = recorded(actor, requests, f"expert.{LAYER}.ffn_act:tokens=chunk", put)
    assert h.shape[1] == sites.denoise_steps(actor.loaded.policy)
    np.testing.assert_allclose(h[..., 4], 3.0, atol=1e-4)


def test_features_are_neither_recorded_nor_measured_as_neurons(actor, requests, saved):
    """More features than the layer has neurons: their numbers mean nothing there."""
    folder, sae = saved("ffn_act")
    put = on_features(folder, sae, "sae_set", 1.0, (sae.width - 1,), (SHIFT + 5.0,))
    steered = Actor(actor.loaded, actor.sampler, 10, put, ())
    assert steered.capture.sites == []
    dose = measure(steered, requests)
    assert dose.resid_change > 0 and dose.ffn_change > 0


def made_ready(actor, chosen):
    return Actor(actor.loaded, actor.sampler, 10, chosen, ())


def test_what_does_not_belong_is_refused_in_one_line(actor, saved, tmp_path):
    folder, sae = saved(rows="mean")
    put = on_features(folder, sae, "sae_set", 1.0, (2,), (3.0,))
    width = sae.width
    made_ready(actor, put)
    for chosen, message in (
        (replace(put, sae=str(tmp_path / "none")), "holds no sparse autoencoder"),
        (replace(put, sae_sha256="ef" * 32), "made for efefefef; write it again with"),
        (
            on_features(folder, sae, "sae_scale", 1.0, (width,)),
            f"feature {width} does not exist in .*; 0 to {width - 1}",
        ),
        (
            replace(put, sites=(replace(put.sites[0], kind="ffn_act"),)),
            f"reads rows of {width}, vlm.1.ffn_act of this policy has",
        ),
        (
            replace(put, token_groups=("image",)),
            "means over all tokens, so it acts on all of image, language, state; .* names image",
        ),
        (replace(put, sites=(replace(put.sites[0], layer=3),)), "layer 3 cannot change the action"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            made_ready(actor, chosen)
        assert "\n" not in str(caught.value)


def test_means_over_denoising_steps_are_refused(actor, saved):
    folder, sae = saved(tower="expert", kind="ffn_act", rows="mean", tokens="chunk")
    with pytest.raises(UserError, match=r"means over denoising steps.*tokens=chunk,keep=each"):
        made_ready(actor, splice(folder, sae))

"""An autoencoder of the organism finds what was planted; projecting it out undoes it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.sae.rows import SiteRows
from analysis.sae.training import SaeConfig, Training
from engine import sites
from engine.actor import Actor
from engine.hooks import tapped
from engine.likelihoods.flow_sde import FlowSDE
from engine.policies import organism as planted
from engine.policies.smolvla import load_policy
from traces.intervention import Intervention, Site

LAYER = 2  # after the planted neurons, before the reader
PLANTED = (planted.FAST, planted.SLOW, planted.DECOY, planted.DARK)
CALLS = 30


@pytest.fixture(scope="module")
def actor():
    organism = load_policy("organism")
    return Actor(organism, FlowSDE(sites.denoise_steps(organism.policy), 0.0), 10, wanted=())


def excited(place, alpha):
    layer, neuron = place
    return Intervention("test", "overwrite", (Site("vlm", layer, (neuron,)),), alpha)


@pytest.fixture(scope="module")
def rows(actor, requests):
    """Residual stream (rows, d) of calls in which each planted neuron fires now and then."""
    rng, found = np.random.default_rng(0), []
    module, _ = sites.residual_reader(actor.loaded.policy, LAYER)
    for _ in range(CALLS):
        asked = [
            replace(
                request,
                interventions=tuple(
                    excited(place, float(rng.uniform(4, 32)))
                    for place in PLANTED
                    if rng.random() < 0.3
                ),
            )
            for request in requests
        ]
        with tapped(module, lambda x: found.append(x.flatten(0, 1).clone())):
            actor.decide(asked)
    return torch.cat(found).numpy()


@pytest.fixture(scope="module")
def learnt(rows):
    """Directions (m, d) of an autoencoder trained on them."""
    blocks = [slice(i, i + 256) for i in range(0, len(rows) - 256, 256)]
    train, held = SiteRows(rows, tuple(blocks[:-4])), SiteRows(rows, tuple(blocks[-4:]))
    config = SaeConfig(latents=64, k=8, epochs=100, normalisation="expected_norm", dead_steps=100)
    training = Training(config.fitted(train.width, train.n), train, held)
    while not training.is_over:
        training.run_epoch()
    directions = training.result({}).W_dec
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def value_vector(actor, place):
    layer, neuron = place
    module = sites.ffn_input(actor.loaded.policy, "vlm", layer)
    vector = module.weight[:, neuron].numpy()
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("place", PLANTED)
def test_every_planted_direction_is_a_feature(actor, learnt, place):
    assert np.abs(learnt @ value_vector(actor, place)).max() > 0.95


def test_projecting_the_feature_out_undoes_the_neuron(actor, requests, learnt):
    vector = value_vector(actor, planted.FAST)
    feature = learnt[np.abs(learnt @ vector).argmax()]
    site = Site("vlm", LAYER, vector=tuple(feature.tolist()))
    removed = Intervention("feature", "project_out", (site,), 1.0)
    other = np.random.default_rng(1).standard_normal(len(feature))
    control = replace(removed, sites=(replace(site, vector=tuple(other.tolist())),))
    steer = excited(planted.FAST, 16.0)

    def moved(*chosen):
        natural, steered = (
            actor.decide([replace(r, interventions=what) for r in requests])
            for what in ((), chosen)
        )
        forward = [np.stack([d.chain[-1, :, 0] for d in decided]) for decided in (natural, steered)]
        return float(np.abs(forward[1] - forward[0]).mean())

    alone = moved(steer)
    assert moved(steer, control) > 0.8 * alone
    assert moved(steer, removed) < 0.1 * alone

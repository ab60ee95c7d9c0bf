"""What dictionary_learning reads."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.sae.export import write_dictionary
from traces.errors import UserError


def test_its_own_formula_gives_our_features(tmp_path, identity_sae):
    rng = np.random.default_rng(0)
    shapes = {"W_enc": (4, 7), "b_enc": 7, "W_dec": (7, 4), "b_dec": 4}
    weights = {name: rng.normal(size=size).astype(np.float32) for name, size in shapes.items()}
    sae = replace(identity_sae(4), **weights, k=2)
    write_dictionary(tmp_path / "d", sae)
    state = torch.load(tmp_path / "d" / "ae.pt", weights_only=True)
    x = torch.from_numpy(rng.normal(size=(9, 4)).astype(np.float32))
    # AutoEncoderTopK: relu(encoder(x - b_dec)), the k largest; decoder(z) + b_dec
    encoder, bias = state["encoder.weight"], state["encoder.bias"]
    before = torch.relu(torch.nn.functional.linear(x - state["b_dec"], encoder, bias))
    values, places = before.topk(int(state["k"]), dim=1)
    z = torch.zeros_like(before).scatter(1, places, values)
    made = torch.nn.functional.linear(z, state["decoder.weight"]) + state["b_dec"]
    np.testing.assert_allclose(z, sae.encode(x.numpy()), atol=1e-6)
    np.testing.assert_allclose(made, sae.reconstructed(x.numpy()), atol=1e-5)
    about = json.loads((tmp_path / "d" / "config.json").read_text())
    assert about["trainer"]["dict_class"] == "AutoEncoderTopK"
    assert (about["trainer"]["activation_dim"], about["trainer"]["dict_size"]) == (4, 7)
    assert (about["trainer"]["k"], about["normalisation"]) == (2, "none")


def test_topk_only(tmp_path, identity_sae):
    sae = replace(identity_sae(3), architecture="jumprelu", threshold=np.ones(3, np.float32))
    with pytest.raises(UserError, match="a jumprelu autoencoder: expected topk"):
        write_dictionary(tmp_path / "d", sae)

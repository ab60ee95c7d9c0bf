import polars as pl
import pytest
import torch

from analysis.clusters import choose_cluster
from engine import neurons, sites
from engine.neurons import TOP


@pytest.fixture(scope="module")
def table(loaded):
    return neurons.compute(loaded)


def test_one_row_a_neuron_with_reach(loaded, table):
    assert len(table) == 6 * 384
    assert table.filter(~pl.col("reach"))["layer"].unique().to_list() == [5]
    assert table["top_tokens"].list.len().unique().to_list() == [TOP]


def test_it_equals_the_published_computation(loaded, table):
    """A direct transcription for a few neurons: project, take the top, weigh, normalise."""
    vlm = loaded.policy.model.vlm_with_expert.vlm
    unembedding = vlm.lm_head.weight
    tokenizer = loaded.policy.model.vlm_with_expert.processor.tokenizer
    for layer, neuron in ((0, 0), (1, 17), (4, 383)):
        value = sites.layers(loaded.policy, "vlm")[layer].mlp.down_proj.weight[:, neuron]
        logits = torch.stack([row @ value for row in unembedding])
        order = logits.argsort(descending=True)[:TOP]
        row = table.filter((pl.col("layer") == layer) & (pl.col("neuron") == neuron)).row(
            0, named=True
        )
        assert row["top_ids"] == order.tolist()
        assert row["top_tokens"] == [tokenizer.decode([int(i)]) for i in order]
        assert row["top_logits"] == pytest.approx(logits[order].tolist(), abs=1e-5)
        weight = torch.exp(logits[order]) / torch.exp(logits[order]).sum()
        mean = sum(
            w * unembedding[i] / unembedding[i].norm() for w, i in zip(weight, order, strict=True)
        )
        assert row["embedding"] == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)
        assert row["v_norm"] == pytest.approx(float(value.norm()), rel=1e-5)


def test_decoded_words_and_raw_pieces(table):
    pairs = zip(table["top_pieces"].explode(), table["top_tokens"].explode(), strict=True)
    words = {piece: token for piece, token in pairs if piece.startswith("Ġ")}
    assert len(words) > 50
    assert all(token == " " + piece[1:] for piece, token in words.items())


@pytest.mark.parametrize("concept", ["fast", "slow"])
def test_a_live_layer_speaks_of_speed(table, concept):
    chosen = choose_cluster(table, concept, alpha=8.0, checkpoint_sha256="x")
    assert chosen.provenance["hits"] >= 4
    assert chosen.sites[0].layer < 5
    assert len(chosen.sites[0].neurons) == 10
    assert chosen.sites[0].neurons[0] == chosen.provenance["seed_neuron"]


def test_the_table_is_cached_per_weights(loaded, table, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = neurons.neuron_table(loaded)
    files = list((tmp_path / "vla-trace").iterdir())
    assert [f.name for f in files] == [f"neurons-{loaded.sha256}.parquet"]
    monkeypatch.setattr(neurons, "compute", lambda _: pytest.fail("computed twice"))
    assert neurons.neuron_table(loaded).equals(first)
    assert first.equals(table)

"""The table against a direct, unoptimised transcription of the published formulas."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from sklearn.neighbors import NearestNeighbors

from analysis.clusters import Choice, choose_cluster
from engine import neuron_cache, neurons, sites
from engine.neuron_cache import FACTS, Variant
from engine.neurons import BATCH, BOTTOM, TOP, Readout
from traces.errors import UnknownName, UserError

VARIANTS = [Variant(), Variant("none"), Variant(fold_norm=True), Variant("none", fold_norm=True)]
D, N, V = 24, BATCH + 40, 211


@pytest.fixture(scope="module")
def table(loaded):
    return neurons.compute(neurons.readout(loaded))


@pytest.fixture(scope="module")
def weights():
    """Random weights, tokens of very different lengths, more neurons than a batch."""
    torch.manual_seed(3)
    return Readout(
        values=[torch.randn(D, N), torch.randn(D, N).bfloat16()],
        unembedding=torch.randn(V, D) * torch.rand(V, 1) * 3,
        final_norm=torch.rand(D) + 0.5,
        reach=[True, False],
        words=[f" w{i}" for i in range(V)],
        pieces=[f"Ġw{i}" for i in range(V)],
    )


def published(weights, layer, variant, chosen):
    """One neuron after the other: project, sort, weigh the top tokens, normalise."""
    unembedding = weights.unembedding.double()
    if variant.fold_norm:
        unembedding = unembedding * weights.final_norm.double()
    down_proj = weights.values[layer].double()
    one_hot = torch.eye(N, dtype=torch.float64)
    rows = []
    for i in chosen:
        value = down_proj @ one_hot[i]  # the column, as it was published
        logits = torch.stack([row @ value for row in unembedding])
        order = sorted(range(V), key=lambda t: -logits[t])
        top = order[:TOP]
        weight = torch.exp(logits[top]) / torch.exp(logits[top]).sum()
        mean = torch.zeros(D, dtype=torch.float64)
        for w, t in zip(weight, top, strict=True):
            length = unembedding[t].norm() if variant.token_norm == "l2" else 1.0
            mean = mean + w * unembedding[t] / length
        share = torch.exp(logits) / torch.exp(logits).sum()
        rows.append(
            {
                "v_norm": float(value.norm()),
                "top": top,
                "logits": logits[top].tolist(),
                "bottom": order[::-1][:BOTTOM],
                "embedding": (mean / mean.norm()).tolist(),
                "entropy": float(-(share * share.log()).sum()),
                "weight_entropy": float(-(weight * weight.log()).sum()),
            }
        )
    return rows


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_it_equals_the_published_computation(weights, variant):
    found = neurons.compute(weights, variant)
    layer = 1 if variant.fold_norm else 0
    chosen = [*range(0, N, 13), BATCH - 1, BATCH, N - 1]
    wanted = published(weights, layer, variant, chosen)
    rows = found.filter(pl.col("layer") == layer)
    assert rows["neuron"].to_list() == list(range(N))
    rows = rows[chosen]
    assert rows["top_ids"].to_list() == [row["top"] for row in wanted]
    assert rows["bottom_ids"].to_list() == [row["bottom"] for row in wanted]
    for column, key in (("top_logits", "logits"), ("embedding", "embedding")):
        expected = np.array([row[key] for row in wanted])
        np.testing.assert_allclose(rows[column].to_numpy(), expected, rtol=1e-4, atol=2e-5)
    for column in ("v_norm", "entropy", "weight_entropy"):
        expected = [row[column] for row in wanted]
        np.testing.assert_allclose(rows[column].to_numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("token_norm", neuron_cache.TOKEN_NORMS)
def test_neighbours_are_those_of_the_published_search(weights, token_norm):
    """There, k + 1 neighbours of all neurons of the layer, the neuron itself among them."""
    variant = Variant(token_norm)
    chosen = range(60)
    found = neurons.compute(weights, variant)[chosen]
    embeddings = np.array([row["embedding"] for row in published(weights, 0, variant, chosen)])
    search = NearestNeighbors(metric="cosine", n_neighbors=21).fit(embeddings)
    for source in (0, 17, 59):
        distances, ids = search.kneighbors(embeddings[[source]])
        cluster = choose_cluster(
            found,
            "",
            alpha=1.0,
            checkpoint_sha256="x",
            size=21,
            choice=Choice(source=(0, source)),
        )
        assert cluster.sites[0].neurons == tuple(ids[0])
        assert cluster.provenance["distances"] == pytest.approx(distances[0].tolist(), abs=2e-6)


def test_the_variants_differ(weights):
    tables = [neurons.compute(weights, variant) for variant in VARIANTS]
    assert tables[0]["top_ids"].equals(tables[1]["top_ids"])
    assert not tables[0]["embedding"].equals(tables[1]["embedding"])
    assert not tables[0]["top_ids"].equals(tables[2]["top_ids"])
    with pytest.raises(UnknownName, match="token normalisation"):
        Variant("l1")


def test_where_a_neuron_is(weights):
    rows = neurons.compute(weights)
    assert rows["flat"].to_list() == list(range(2 * N))
    assert rows["hook_id"].unique(maintain_order=True).to_list() == [
        "vlm.0.ffn_act",
        "vlm.1.ffn_act",
    ]
    assert rows.filter("reach")["layer"].unique().to_list() == [0]
    assert rows["top_tokens"].to_list()[5] == [f" w{i}" for i in rows["top_ids"].to_list()[5]]
    assert rows["bottom_pieces"].to_list()[5] == [f"Ġw{i}" for i in rows["bottom_ids"].to_list()[5]]


def test_a_vocabulary_smaller_than_the_top(weights):
    few = replace(
        weights, unembedding=weights.unembedding[:7], words=weights.words[:7], pieces=["x"] * 7
    )
    rows = neurons.compute(few)
    assert {len(ids) for ids in rows["top_ids"].to_list()} == {7}
    assert {len(ids) for ids in rows["bottom_ids"].to_list()} == {7}


def test_random_directions_are_seeded_and_spell_evenly(weights):
    tokens = neurons.random_tokens(weights)
    assert tokens == neurons.random_tokens(weights)
    assert len(tokens) == neurons.RANDOM_DIRECTIONS
    assert len({token for row in tokens for token in row}) > V / 2


def test_the_shipped_policy(loaded, table):
    assert len(table) == 6 * 384
    assert table.filter(~pl.col("reach"))["layer"].unique().to_list() == [5]
    value = sites.layers(loaded.policy, "vlm")[4].mlp.down_proj.weight[:, 383]
    logits = loaded.policy.model.vlm_with_expert.vlm.lm_head.weight @ value
    row = table.filter(pl.col("layer") == 4, pl.col("neuron") == 383).row(0, named=True)
    assert row["top_ids"] == logits.argsort(descending=True)[:TOP].tolist()
    tokenizer = loaded.policy.model.vlm_with_expert.processor.tokenizer
    assert row["top_tokens"] == [tokenizer.decode([i]) for i in row["top_ids"]]
    assert row["top_pieces"] == tokenizer.convert_ids_to_tokens(row["top_ids"])


@pytest.mark.parametrize("concept", ["fast", "slow"])
def test_a_live_layer_speaks_of_speed_and_not_of_its_opposite(table, concept):
    chosen = choose_cluster(table, concept, alpha=8.0, checkpoint_sha256="x")
    assert chosen.provenance["score"] >= 4
    assert chosen.provenance["opposite_hits"] == 0
    assert chosen.sites[0].layer < 5
    assert len(chosen.sites[0].neurons) == 10
    assert chosen.sites[0].neurons[0] == chosen.provenance["seed_neuron"]


def test_what_is_checked_of_the_head(loaded, tmp_path):
    checks = neurons.lm_head_checks(loaded)
    assert (checks["in_checkpoint"], checks["tied"]) == (True, False)
    vlm = loaded.policy.model.vlm_with_expert.vlm
    pairs = zip(vlm.lm_head.weight, vlm.model.text_model.embed_tokens.weight, strict=True)
    cosines = [float(u @ e / (u.norm() * e.norm())) for u, e in pairs]
    assert sum(map(np.isnan, cosines)) == 1  # the embedding of <pad> is zero
    assert checks["cosine"] == pytest.approx(np.nanmean(cosines), abs=1e-5)
    assert neurons.lm_head_checks(replace(loaded, path=tmp_path))["in_checkpoint"] is None


def test_a_head_that_was_never_loaded_is_refused(loaded, tmp_path):
    from safetensors.torch import save_file

    save_file({"something.else": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"its checkpoint has no model\..*\.lm_head"):
        neurons.lm_head_checks(replace(loaded, path=tmp_path))
    head = loaded.policy.model.vlm_with_expert.vlm.lm_head
    kept = head.weight.clone()
    try:
        head.weight.zero_()
        with pytest.raises(UserError, match="lm_head is empty"):
            neurons.lm_head_checks(loaded)
    finally:
        head.weight.copy_(kept)


def test_a_tied_head_is_the_embedding(loaded, tmp_path):
    from safetensors.torch import save_file

    save_file({"something.else": torch.zeros(1)}, tmp_path / "model.safetensors")
    vlm = loaded.policy.model.vlm_with_expert.vlm
    kept = vlm.lm_head.weight
    try:
        vlm.lm_head.weight = vlm.model.text_model.embed_tokens.weight
        checks = neurons.lm_head_checks(replace(loaded, path=tmp_path))
        assert (checks["tied"], checks["in_checkpoint"]) == (True, False)
        assert checks["cosine"] == pytest.approx(1.0)
    finally:
        vlm.lm_head.weight = kept


def test_the_expert_spells_no_tokens(loaded):
    with pytest.raises(UserError, match=r"width 96\), which lm_head \(width 128\) never reads"):
        neurons.readout(loaded, "expert")


def test_the_table_is_cached_per_weights_and_variant(loaded, table, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = neurons.neuron_table(loaded)
    raw = neurons.neuron_table(loaded, Variant("none"))
    assert_frame_equal(first, table)
    files = sorted(file.name for file in (tmp_path / "vla-trace").iterdir())
    sha = loaded.sha256
    assert files == [f"neurons-{sha}-raw.parquet", f"neurons-{sha}.parquet"]
    monkeypatch.setattr(neurons, "compute", lambda *_: pytest.fail("computed twice"))
    assert_frame_equal(neurons.neuron_table(loaded), first)
    assert_frame_equal(neurons.neuron_table(loaded, Variant("none")), raw)
    facts = neurons.table_of(loaded).facts
    assert facts["sha256"] == sha
    assert (facts["layers"], facts["neurons"], facts["width"]) == (6, 384, 128)
    assert facts["lm_head"]["in_checkpoint"] is True


def test_an_old_or_broken_cache_is_made_again(loaded, table, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    neurons.neuron_table(loaded)
    (path,) = (tmp_path / "vla-trace").iterdir()
    facts = json.loads(pl.read_parquet_metadata(path)[FACTS])
    older = json.dumps(facts | {"format": neuron_cache.FORMAT - 1})
    spoilt = [
        lambda: table.head(3).write_parquet(path),  # as version 1 was: without facts
        lambda: table.head(3).write_parquet(path, metadata={FACTS: older}),
        lambda: path.write_bytes(path.read_bytes()[:1000]),
        lambda: path.write_bytes(b""),
    ]
    for spoil in spoilt:
        spoil()
        assert neuron_cache.cached(loaded.sha256, neuron_cache.USUAL) is None
    assert_frame_equal(neurons.neuron_table(loaded), table)
    assert neuron_cache.cached(loaded.sha256, neuron_cache.USUAL) is not None


def test_a_home_that_cannot_be_written_costs_only_time(loaded, table, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_frame_equal(neurons.neuron_table(loaded), table)

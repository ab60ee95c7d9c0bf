"""What is planted in the organism is found, and nothing else is."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import binom

from analysis import controls
from analysis.clusters import choose_cluster
from analysis.lexicons import LEXICONS
from analysis.neurons import concept_hits
from analysis.tables import episode_table
from analysis.trend import trend
from engine import sites
from engine.actor import BATCH, Actor
from engine.config import RecordConfig
from engine.hooks import tapped
from engine.likelihoods.flow_sde import FlowSDE
from engine.neurons import neuron_table
from engine.policies import organism as planted
from engine.policies.smolvla import load_policy
from engine.reach import reach
from engine.record import record
from engine.steering import Steer, check, steered
from traces.condition import BASELINE, Condition
from traces.errors import UserError
from traces.intervention import Intervention, Site
from traces.reader import TraceReader

BYSTANDERS = ((1, 50), (1, 60))
"""Random neurons beside a single planted one: clusters of three, as the controls are."""
DOSES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
SIZE = 3


@pytest.fixture(scope="module")
def organism():
    return load_policy("organism")


@pytest.fixture(scope="module")
def actor(organism):
    return Actor(organism, FlowSDE(sites.denoise_steps(organism.policy), 0.0), 10, wanted=())


@pytest.fixture(scope="module")
def table(organism, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return neuron_table(organism)


@pytest.fixture(scope="module")
def unplanted(table):
    """The table without what was planted: where random clusters are drawn from."""
    known = {planted.FAST, planted.SLOW, planted.DECOY, planted.DARK, *planted.COPIES}
    return table.filter([place not in known for place in table.select("layer", "neuron").rows()])


def at(*places, alpha=8.0, operator="overwrite", **options):
    """One intervention on some (layer, neuron)."""
    layers = sorted({layer for layer, _ in places})
    chosen = tuple(
        Site("vlm", layer, tuple(n for where, n in places if where == layer)) for layer in layers
    )
    return Intervention("test", operator, chosen, alpha, **options)


def latent(actor, requests):
    """(rows, chunk, Z): normalised actions."""
    return np.stack([d.chain[-1] for d in actor.decide(requests)])


def change(actor, requests, *chosen):
    """What interventions do to the first chunk of each request: same observation, same noise."""
    natural = latent(actor, [replace(r, interventions=()) for r in requests])
    return latent(actor, [replace(r, interventions=chosen) for r in requests]) - natural


def forward(actor, request, clusters):
    """Mean change of the action's first entry by each cluster, BATCH of them a call."""
    natural = latent(actor, [replace(request, interventions=())] * BATCH)[0]
    effects = []
    for start in range(0, len(clusters), BATCH):
        block = clusters[start : start + BATCH]
        rows = [replace(request, interventions=(cluster,)) for cluster in block]
        rows += [replace(request, interventions=())] * (BATCH - len(rows))
        effects += list((latent(actor, rows)[: len(block)] - natural)[:, :, 0].mean(1))
    return np.array(effects)


def random_clusters(table, unplanted, cluster, n):
    """Matched random clusters of neurons that were not planted."""
    own = table.filter(
        [
            (layer, neuron) in {(s.layer, k) for s in cluster.sites for k in s.neurons}
            for layer, neuron in table.select("layer", "neuron").rows()
        ]
    )
    pool = pl.concat([unplanted, own]).unique(["layer", "neuron"], maintain_order=True)
    return controls.random_clusters(pool, cluster, n)


def rank_p(effect, controls):
    """(1 + #{|control| >= |effect|}) / (1 + controls)."""
    return (1 + int((np.abs(controls) >= abs(effect)).sum())) / (1 + len(controls))


def test_a_the_search_finds_what_was_planted(table, organism):
    """Ranks of the whole table; the cluster around fast is fast and its copies in that layer."""
    fast = [planted.FAST, *planted.COPIES, planted.NULL]
    for concept, places in (("fast", fast), ("slow", [planted.SLOW]), ("up", [planted.DECOY])):
        hits = concept_hits(table, LEXICONS[concept]).sort("hits", "hit_logit", descending=True)
        best = list(hits.select("layer", "neuron").head(len(places)).iter_rows())
        assert sorted(best) == sorted(places), concept
        assert hits["hits"][len(places)] < 4 <= hits["hits"][len(places) - 1]
    chosen = choose_cluster(
        table, "fast", alpha=8.0, checkpoint_sha256=organism.sha256, layer=1, size=SIZE
    )
    copies = [neuron for layer, neuron in planted.COPIES if layer == 1]
    assert chosen.sites[0].neurons[0] == planted.FAST[1]
    assert sorted(chosen.sites[0].neurons[1:]) == copies
    assert max(chosen.provenance["distances"]) < 0.2
    for lexicon in LEXICONS.values():  # what the dark neuron spells is no concept
        hits = concept_hits(table, lexicon)
        assert hits.filter(layer=planted.DARK[0], neuron=planted.DARK[1])["hits"].item() < 4


def test_b_the_last_layer_is_dead_and_refused(organism, requests):
    found = {site.site: site for site in reach(organism, requests)}
    assert [name for name, site in found.items() if not site.structure] == ["vlm.3.ffn_act"]
    assert all(site.agrees for site in found.values())
    assert found["vlm.3.ffn_act"].max_change == 0.0
    with pytest.raises(UserError, match=r"layer 3 cannot change the action; layers that can: \[0"):
        check(organism.policy, at(planted.NULL))


def test_c_the_dose_response_has_the_planted_sign_and_form(actor, requests):
    """Over eight observations: monotone, saturating, of the sign planted."""
    for place, sign in ((planted.FAST, 1), (planted.DARK, 1), (planted.SLOW, -1)):
        curve = np.stack(
            [change(actor, requests, at(place, alpha=a))[:, :, 0].mean(1) for a in DOSES], axis=1
        )  # (pairs, doses)
        assert (sign * np.diff(curve, axis=1) > 0).all()
        steps = np.abs(np.diff(curve.mean(0))) / np.diff(DOSES)
        assert (np.diff(steps[1:]) < 0).all()  # per unit of dose ever less
        found = trend(DOSES, curve)
        assert np.sign(found.slope) == sign
        assert found.p_value < 1e-6
        assert abs(curve[:, -1].mean()) > 2


def test_c_semantic_and_causal_are_told_apart(actor, requests, table, unplanted):
    """Rank among 99 matched random clusters: the decoy only spells, the dark neuron only acts."""
    clusters = {
        name: at(getattr(planted, name), *BYSTANDERS) for name in ("FAST", "SLOW", "DARK", "DECOY")
    }
    controls = random_clusters(table, unplanted, clusters["FAST"], 99)
    random = forward(actor, requests[0], controls)
    effects = dict(zip(clusters, forward(actor, requests[0], list(clusters.values())), strict=True))
    p = {name: rank_p(effect, random) for name, effect in effects.items()}
    assert p["FAST"] == p["SLOW"] == p["DARK"] == 0.01  # the least that 99 controls allow
    assert min(abs(effects[n]) for n in ("FAST", "SLOW", "DARK")) > 5 * np.abs(random).max()
    assert p["DECOY"] > 0.05
    decoy = forward(actor, requests[0], [at(planted.DECOY, alpha=dose) for dose in DOSES])
    assert np.abs(decoy).max() < effects["FAST"] / 100


def test_c_the_null_is_exactly_zero(actor, requests):
    """In every entry of every action, at any dose: not a large p, but no difference."""
    null = at(planted.NULL, alpha=50.0, provenance={"control": "null"})
    assert not change(actor, requests, null).any()


def test_c_a_word_in_the_instruction_does_the_same(actor, requests):
    """The prompt control: the neurons listen to the words that they spell."""
    plain = [replace(r, instruction="pick up the red cube") for r in requests]
    effects = {}
    for word in ("quickly", "slowly", "normally"):
        told = [replace(r, instruction=f"{r.instruction} {word}") for r in plain]
        effects[word] = (latent(actor, told) - latent(actor, plain))[:, :, 0].mean()
    assert effects["quickly"] > 10 * abs(effects["normally"])
    assert effects["slowly"] < -10 * abs(effects["normally"])


def test_d_false_positives_of_the_rank_are_as_many_as_promised(actor, requests, table, unplanted):
    """Two hundred random clusters, each ranked among 99 others drawn by chance: 5 % pass at 0.05.

    They do act, so a test against zero would call nearly all of them causal.
    """
    planted_cluster = at(planted.FAST, *planted.COPIES[1:3])
    clusters = random_clusters(table, unplanted, planted_cluster, 200)
    effects = forward(actor, requests[0], clusters)
    assert (effects != 0).all()
    rng = np.random.default_rng(0)
    positives = 0
    for i in range(len(clusters)):
        others = rng.choice(np.delete(effects, i), 99, replace=False)
        positives += rank_p(effects[i], others) <= 0.05
    low, high = binom.interval(0.95, len(clusters), 0.05)
    assert low <= positives <= high
    fast = forward(actor, requests[0], [planted_cluster])[0]
    assert rank_p(fast, effects) == 1 / 201


def test_e_disjoint_token_groups_add_up_at_the_reader(organism, actor, requests):
    """Their shares of the effect sum to one where the expert reads it, before its last norm."""
    module, _ = sites.residual_reader(organism.policy, planted.READER, "expert")
    seen = []
    with tapped(module, lambda x: seen.append(x[..., planted.CHANNEL].clone())):
        latent(actor, requests)
        for groups in (("image",), ("language",), ("state",), ("image", "language", "state")):
            chosen = (at(planted.FAST, token_groups=groups),)
            latent(actor, [replace(r, interventions=chosen) for r in requests])
    channel = torch.stack(seen).reshape(5, -1, BATCH, 10)[:, 0].mean(-1)  # first denoising step
    natural, image, language, state, together = channel
    parts = torch.stack([image, language, state]) - natural
    assert (parts > 0.002).all()
    torch.testing.assert_close(parts.sum(0), together - natural, rtol=2e-3, atol=1e-5)


@pytest.fixture(scope="module")
def recordings(organism, tmp_path_factory):
    """Baseline, and fast in control steps 7 to 29, asked every 5; and the events of both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("organism"))
        heard = []
        config = RecordConfig(policy="organism", episodes=2, replan=5, workers=1)
        windowed = at(planted.FAST, step_window=(7, 30))
        arms = [BASELINE, Condition(windowed)]
        paths = record(config, organism, arms, "organism", lambda *e: heard.append(e))
        return [path.absolute() for path in paths], heard


def test_f_a_window_takes_effect_at_the_first_decision_in_it(recordings):
    (baseline, steered), _ = recordings
    with TraceReader(baseline) as one, TraceReader(steered) as other:
        for episode in range(2):
            a, b = (r.steps("t", "action", "intervened", episode=episode) for r in (one, other))
            differs = (a["action"] != b["action"]).any(axis=1)
            assert not a["intervened"].any()
            assert not differs[:10].any()
            assert differs[10:30].all()
            np.testing.assert_array_equal(b["intervened"], (b["t"] >= 10) & (b["t"] < 30))
        assert other.header.intervention.step_window == (7, 30)
        assert other.header.dose["sigma"][1] > 1


def test_i_hooks_are_clean(organism, actor, requests):
    """Identity is bit-equal, an exception leaves no hook, edits get copies, calls are counted."""
    identity = at(planted.FAST, alpha=0.0, operator="add")
    assert not change(actor, requests, identity).any()
    mask = actor.unsteered(requests)
    hooked = Steer(at(planted.FAST), tuple(range(BATCH)))
    with pytest.raises(RuntimeError, match="stop"), steered(organism.policy, [hooked], mask):
        raise RuntimeError("stop")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in organism.policy.modules())
    before, inputs = [], []
    vlm = sites.ffn_input(organism.policy, "vlm", 1)
    expert = sites.ffn_input(organism.policy, "expert", 1)
    with (
        tapped(vlm, inputs.append) as once,
        steered(organism.policy, [hooked], mask),
        tapped(vlm, lambda h: before.append(h.clone())),
        tapped(expert, lambda h: None) as often,
    ):
        actor.unsteered(requests)
    neuron = planted.FAST[1]
    assert (before[0][mask][:, neuron] == 8.0).all()  # what acts
    assert not (inputs[0][mask][:, neuron] == 8.0).any()  # what came in, untouched by the edit
    assert (once.count, often.count) == (1, sites.denoise_steps(organism.policy))


def test_j_meed_survives_the_file(recordings, actor, requests, traces, tmp_path):
    """As recorded on the table; and where p <- p + 0.05 clip(a), so that it has a closed form."""
    paths, heard = recordings
    for path, alpha in zip(paths, (None, 8.0), strict=True):
        said = [f["meed_cm"] for kind, f in heard if kind == "episode" and f["alpha"] == alpha]
        np.testing.assert_allclose(episode_table([path]).frame["meed_cm"], said, atol=1e-6)
    meed = {}
    for name, chosen in (
        ("baseline", ()),
        ("fast", (at(planted.FAST),)),
        ("slow", (at(planted.SLOW),)),
    ):
        rows = [replace(r, interventions=chosen) for r in requests]
        lengths = [5 * np.abs(np.clip(d.action[:, 0], -1, 1)) for d in actor.decide(rows)]  # cm
        episodes = [traces.episode(f"p{i}", steps) for i, steps in enumerate(lengths)]
        path = traces.write(tmp_path / f"{name}.h5", episodes)
        found = episode_table([path]).frame["meed_cm"].to_numpy()
        np.testing.assert_allclose(found, np.mean(lengths, axis=1), atol=1e-6)
        meed[name] = found
    assert (meed["fast"] > meed["baseline"]).all()
    assert (meed["slow"] < meed["baseline"]).all()


def test_it_is_the_same_each_time(organism):
    planted.organism.cache_clear()
    assert load_policy("organism").sha256 == organism.sha256

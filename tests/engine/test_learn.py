"""Scoring what was played, the gate, and one update of the weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.actor import action_statistics
from engine.checkpoint import POLICY, restore, save
from engine.collect import Explorer, Sample, recorded
from engine.config import TrainConfig
from engine.gate import RatioMismatch, check_gate
from engine.learn import Learner, learning_rate
from engine.likelihoods.flow_noise import FlowNoise
from engine.likelihoods.flow_sde import FlowSDE
from engine.likelihoods.gaussian import Gaussian
from engine.policies.smolvla import EMBEDDED, load_policy

REPLAN = 5


@pytest.fixture
def fresh():
    """A policy whose weights may be changed."""
    return load_policy(EMBEDDED)


def samplers(loaded):
    last = loaded.policy.model.action_out_proj
    return {
        "flow-sde": FlowSDE(3, 0.7),
        "one step": FlowSDE(3, 0.7, stochastic_steps=1),
        "window": FlowSDE(3, 0.7, stochastic_steps=2),
        "flow-noise": FlowNoise(3, last.in_features, last.out_features),
        "gaussian": Gaussian(3, **action_statistics(loaded), euler_noise=0.2),
    }


def explored(loaded, requests, likelihood="flow-sde", keep=True, n=8):
    """An explorer that made one call; the last decision was cut short."""
    explorer = Explorer(loaded, samplers(loaded)[likelihood], REPLAN, keep_prefix=keep)
    explorer.decide([*requests[:n], *[None] * (8 - n)])
    for i, sample in enumerate(explorer.calls[0][:n]):
        sample.executed = 2 if i == n - 1 else REPLAN
        sample.advantage = float((-1) ** i)
    return explorer, explorer.calls[0][:n]


def learner(explorer, **options):
    defaults = {"replan": REPLAN, "steps": 3, "train": "expert"}
    return Learner(TrainConfig(**defaults | options), explorer, 20)


def no_alert(*_):
    raise AssertionError("an alert")


@pytest.mark.parametrize("likelihood", ["flow-sde", "one step", "window", "flow-noise", "gaussian"])
@pytest.mark.parametrize("keep", [True, False])
def test_ratio_is_one_before_the_first_step(loaded, requests, likelihood, keep):
    explorer, _ = explored(loaded, requests, likelihood, keep)
    assert check_gate(explorer, explorer.calls) < 1e-5


def test_blank_and_cut_rows_do_not_count(loaded, requests):
    explorer, samples = explored(loaded, requests, n=5)
    old, new = recorded(explorer.calls[0], REPLAN), explorer.log_probs(explorer.calls[0])
    assert old.shape == new.shape == (8, REPLAN)  # N decisions score N, not N x N
    assert not old[5:].any()
    assert not new[5:].any()
    assert not new[4, 2:].any()
    np.testing.assert_allclose(old[4, :2], samples[4].log_prob[:2])


def test_kept_keys_and_values_score_as_the_vlm_does(loaded, requests):
    kept, _ = explored(loaded, requests, keep=True)
    computed, _ = explored(loaded, requests, keep=False)
    torch.testing.assert_close(
        kept.log_probs(kept.calls[0]), computed.log_probs(computed.calls[0]), rtol=0, atol=1e-9
    )


def test_the_gate_stops_a_policy_that_is_not_the_one_that_acted(fresh, requests):
    explorer, samples = explored(fresh, requests)
    before = [p.clone() for p in fresh.policy.parameters()]
    with torch.no_grad():
        fresh.policy.model.action_out_proj.bias += 1e-3
    with pytest.raises(RatioMismatch, match="recomputed and recorded log-probabilities differ"):
        learner(explorer).update(0, explorer.calls, samples, 8, no_alert)
    with torch.no_grad():
        fresh.policy.model.action_out_proj.bias -= 1e-3
    for old, new in zip(before, fresh.policy.parameters(), strict=True):
        torch.testing.assert_close(old, new, rtol=0, atol=1e-6)


def test_an_update_makes_the_better_half_more_likely(fresh, requests):
    explorer, samples = explored(fresh, requests)
    metrics = learner(explorer, lr=1e-4, warmup=0, epochs=3).update(
        0, explorer.calls, samples, 8, no_alert
    )
    gain = (explorer.log_probs(samples) - recorded(samples, REPLAN)).sum(1).detach().numpy()
    advantage = np.array([sample.advantage for sample in samples])
    assert (gain * advantage).sum() > 0
    assert metrics["first_ratio_max_abs_dev"] < 1e-5
    assert metrics["param_delta"] > 0


def test_constant_reward_changes_no_parameter(fresh, requests):
    explorer, samples = explored(fresh, requests)
    for sample in samples:
        sample.advantage = 0.0
    before = [p.clone() for p in fresh.policy.parameters()]
    learner(explorer, warmup=0).update(0, explorer.calls, samples, 8, no_alert)
    for old, new in zip(before, fresh.policy.parameters(), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("part", ["expert", "full"])
def test_the_size_of_micro_batches_changes_nothing(requests, part):
    """Gradients of 16 decisions at once and in two parts, relative to their size."""
    gradients = []
    for micro_batch in (16, 8):
        loaded = load_policy(EMBEDDED)
        explorer, samples = explored(loaded, requests, keep=part == "expert")
        explorer.decide(requests)
        for sample in explorer.calls[1]:
            sample.executed, sample.advantage = REPLAN, 0.5
        student = learner(explorer, train=part, micro_batch=micro_batch)
        student.optimizer.zero_grad()
        student._backward([*samples, *explorer.calls[1]], 1.0, first=True)
        gradients.append(torch.cat([p.grad.flatten() for p in student.parameters]).double())
    one, two = gradients
    assert float((one - two).norm() / one.norm()) < 1e-6


def test_the_learning_rate_rises_and_falls():
    config = TrainConfig(updates=5, minibatches=2, warmup=4, lr=1.0, lr_end=0.1)
    rates = [learning_rate(config, step) for step in range(1, 11)]
    np.testing.assert_allclose(rates[:5], [0.25, 0.5, 0.75, 1.0, 1.0])
    np.testing.assert_allclose(np.diff(rates[4:]), -0.18)
    assert rates[-1] == pytest.approx(0.1)
    assert learning_rate(replace(config, lr_end=1.0, warmup=0), 7) == 1.0


def test_only_what_was_asked_for_learns(fresh, requests):
    explorer, samples = explored(fresh, requests)
    before = {n: p.clone() for n, p in fresh.policy.named_parameters()}
    learner(explorer, train="expert", warmup=0).update(0, explorer.calls, samples, 8, no_alert)
    moved = {n for n, p in fresh.policy.named_parameters() if not torch.equal(p, before[n])}
    assert any("lm_expert" in name for name in moved)
    assert any("action_out_proj" in name for name in moved)
    assert not any(".vlm." in name or "state_proj" in name for name in moved)


def test_full_training_moves_everything_that_acts(fresh, requests):
    explorer, samples = explored(fresh, requests, keep=False)
    student = learner(explorer, train="full", warmup=0)
    student.update(0, explorer.calls, samples, 8, no_alert)
    still = {n for n, p in fresh.policy.named_parameters() if p.requires_grad and p.grad is None}
    assert not still
    assert not any(p.requires_grad for n, p in fresh.policy.named_parameters() if "lm_head" in n)


def test_low_rank_additions_learn_and_become_a_plain_policy(fresh, requests, tmp_path):
    """Zero at first; what a checkpoint holds acts as the policy with its additions does."""
    explorer, samples = explored(fresh, requests, keep=False)
    before = explorer.log_probs(samples).detach()
    student = learner(explorer, train="lora", lora_rank=4, lr=1e-3, warmup=0, minibatches=1)
    assert torch.equal(explorer.log_probs(samples).detach(), before)
    student.update(0, explorer.calls, samples, 8, no_alert)
    assert all(torch.equal(student.average[name], p) for name, p in student.trained.items())
    learned = {name for name, p in student.trained.items() if p.grad is not None}
    assert learned == set(student.trained)
    assert any("vision_model" in name for name in learned)
    after = explorer.log_probs(samples).detach()
    assert not torch.allclose(after, before)

    state = {"progress": {"steps": 1}}
    parts = (student.optimizer, None, student.trained, student.average, state)
    save(tmp_path / "000001", fresh, *parts)
    plain = load_policy(str(tmp_path / "000001" / POLICY))
    assert plain.policy.state_dict().keys() == load_policy(EMBEDDED).policy.state_dict().keys()
    explorer.loaded = plain
    torch.testing.assert_close(explorer.log_probs(samples), after, rtol=0, atol=0.05)

    again = load_policy(EMBEDDED)
    explorer.loaded = again
    learner(explorer, train="lora", lora_rank=4).resume(restore(tmp_path / "000001"))
    for (name, one), two in zip(
        fresh.policy.state_dict().items(), again.policy.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two), name


def test_what_is_evaluated_is_the_average_of_the_updates(fresh, requests):
    """Weights that grow like t (t + 1): after two updates the second counts three quarters."""
    explorer, samples = explored(fresh, requests)
    student = learner(explorer, warmup=0)
    after = []
    for update in range(2):
        explorer.calls.clear()
        explorer.decide(requests)
        samples = explorer.calls[0]
        for i, sample in enumerate(samples):
            sample.executed, sample.advantage = REPLAN, float((-1) ** i)
        student.update(update, explorer.calls, samples, 8, no_alert)
        after.append({name: p.detach().clone() for name, p in student.trained.items()})
    with student.averaged():
        acting = {name: p.detach().clone() for name, p in student.trained.items()}
    for name, parameter in student.trained.items():
        torch.testing.assert_close(acting[name], after[0][name] / 4 + after[1][name] * 3 / 4)
        assert torch.equal(parameter, after[1][name])


def test_a_step_that_is_not_finite_is_skipped_said_and_kept(fresh, requests, tmp_path):
    explorer, samples = explored(fresh, requests)
    samples[0].advantage = float("nan")
    said = []
    before = [p.clone() for p in fresh.policy.parameters()]
    student = learner(explorer, warmup=0, minibatches=1)
    student.evidence = tmp_path
    metrics = student.update(0, explorer.calls, samples, 8, lambda *fields: said.append(fields))
    assert metrics["skipped"] == 1
    assert said[0][:2] == ("error", "not_finite")
    (kept,) = tmp_path.glob("*.npz")
    assert str(kept) in said[0][-1]
    with np.load(kept, allow_pickle=False) as evidence:
        assert evidence["chain"].shape == (8, 4, 10, 8)
        assert np.isnan(evidence["advantage"]).sum() == 1
        assert min(evidence["noise_key"]) == "7/0/0/0/0"
        assert len(evidence["bad_gradients"]) > 0
        assert len(evidence["bad_weights"]) == 0
    for old, new in zip(before, fresh.policy.parameters(), strict=True):
        assert torch.equal(old, new)


def test_out_of_memory_halves_the_micro_batch_and_tries_again(fresh, requests):
    explorer, samples = explored(fresh, requests)
    explorer.decide(requests)
    for sample in explorer.calls[1]:
        sample.executed, sample.advantage = REPLAN, 0.5
    student = learner(explorer, micro_batch=16, minibatches=1)
    score = explorer.log_probs

    def small_machine(part):
        if len(part) > 8:
            raise torch.OutOfMemoryError("pretended")
        return score(part)

    explorer.log_probs = small_machine
    said = []
    metrics = student.update(
        0, explorer.calls, [*samples, *explorer.calls[1]], 16, lambda *fields: said.append(fields)
    )
    assert student.micro_batch == 8
    assert [fields[:4] for fields in said] == [("warn", "out_of_memory", 16, 8)]
    assert metrics["param_delta"] > 0


def test_a_sample_is_scored_with_its_own_noise(loaded, requests):
    """Two decisions swap their observations: the gate must notice."""
    explorer, samples = explored(loaded, requests, keep=False)
    one, two = samples[:2]
    swapped: list[Sample] = [
        replace(one, request=two.request),
        replace(two, request=one.request),
        *samples[2:],
    ]
    with pytest.raises(RatioMismatch):
        check_gate(explorer, [swapped])


def test_kl_to_the_start_is_zero_there_and_holds_the_policy_back(requests):
    """Same samples, with and without the penalty: the penalised policy ends nearer to its start."""
    ends = []
    for beta in (0.0, 50.0):
        loaded = load_policy(EMBEDDED)
        explorer, samples = explored(loaded, requests)
        student = learner(explorer, lr=1e-4, warmup=0, epochs=4, kl_beta=beta)
        start = student.reference or load_policy(EMBEDDED).policy
        with torch.no_grad():
            assert explorer.divergences(samples, start).abs().max() < 1e-9
        student.update(0, explorer.calls, samples, 8, no_alert)
        with torch.no_grad():
            ends.append(float(explorer.divergences(samples, start).sum()))
    assert 0 < ends[1] < ends[0]

"""Shifts between two real traces whose every activation the test chose."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from analysis import site_shift
from analysis.multiplicity import corrected
from analysis.shifts import NEURONS, SITES, activation_shifts
from analysis.site_shift import shift_p
from traces.collection import open_traces
from traces.errors import UnknownName, UserError

LENGTHS = (30, 20, 40, 25, 35, 30, 28, 22)
VLM, EXPERT = "vlm.1.ffn_act", "exp.0.ffn_act"
STEER_SHA = "cd" * 32


def halves(rng, n, units=6):
    return rng.normal(2, 1, size=(n, units)).astype(np.float16)


@pytest.fixture
def base():
    """Episodes of a VLM and an expert site."""
    rng = np.random.default_rng(0)
    return [{VLM: halves(rng, n), EXPERT: halves(rng, n, 4)} for n in LENGTHS]


def tuned_of(base, rng):
    """Neuron 2 of the expert moves by 1 or a little more or less an episode, the others barely."""
    episodes = []
    for episode in base:
        moved = episode[EXPERT].astype(np.float32)
        moved[:, 2] += 1 + 0.1 * rng.normal()
        moved[:, [0, 1, 3]] += 0.01 * rng.normal(size=(len(moved), 3))
        episodes.append({VLM: episode[VLM], EXPERT: moved.astype(np.float16)})
    return episodes


def compare(base, tuned, **options):
    files = [side if isinstance(side, tuple | list) else (side,) for side in (base, tuned)]
    with open_traces(*files[0]) as one, open_traces(*files[1]) as other:
        return activation_shifts(one, other, **options)


@pytest.fixture
def files(activations, base, tmp_path):
    tuned = tuned_of(base, np.random.default_rng(1))
    one = activations(tmp_path / "base.h5", base)
    return one, activations(tmp_path / "tuned.h5", tuned, sha256=STEER_SHA), base, tuned


def test_replay_is_what_numpy_and_scipy_say(files):
    one, other, base, tuned = files
    found = compare(one, other)
    assert (found.design, found.episodes, found.notes) == ("replay", (8, 8), ())
    assert found.base == "base@abababab"
    assert dict(found.neurons.schema) == NEURONS
    assert dict(found.sites.schema) == SITES
    rows = found.neurons.filter(site=EXPERT)
    x, y = (np.concatenate([e[EXPERT] for e in arm]).astype(float) for arm in (base, tuned))
    assert rows["mean_base"].to_list() == pytest.approx(x.mean(0))
    assert rows["shift"].to_list() == pytest.approx((y - x).mean(0), abs=1e-7)
    assert rows["positive_tuned"].to_list() == pytest.approx((y > 0).mean(0))
    pooled = np.sqrt((x.var(0, ddof=1) + y.var(0, ddof=1)) / 2)
    assert rows["d"].to_list() == pytest.approx((y - x).mean(0) / pooled, rel=1e-4)
    each = [(t[EXPERT].astype(float) - b[EXPERT]).mean(0) for b, t in zip(base, tuned, strict=True)]
    assert rows["p"].to_list() == pytest.approx(stats.ttest_1samp(each, 0).pvalue, rel=1e-3)
    assert rows["d_z"].to_list() == pytest.approx(
        np.mean(each, 0) / np.std(each, 0, ddof=1), rel=1e-3
    )
    for unit, (least, most) in enumerate(rows.select("ks", "ks_at_most").rows()):
        exact = stats.ks_2samp(x[:, unit], y[:, unit], method="asymp").statistic
        assert least - 1e-9 <= exact <= most + 1e-9
    assert rows["p_corrected"].arg_min() == 2
    assert rows["p_corrected"].min() < 1e-4


def test_a_frozen_site_is_zero_everywhere_and_called_so(files):
    one, other, *_ = files
    found = compare(one, other)
    rows = found.neurons.filter(site=VLM)
    assert rows["frozen"].all()
    for name in ("shift", "d", "ks", "ks_at_most"):
        assert (rows[name] == 0).all(), name
    assert rows["p"].null_count() == len(rows)
    site = found.sites.filter(site=VLM).row(0, named=True)
    assert (site["frozen"], site["mean_cosine"], site["cka"], site["max_d"]) == (True, 1, 1, 0)
    assert (site["relative_shift"], site["tested"], site["found"]) == (0, 0, 0)
    moved = found.sites.filter(site=EXPERT).row(0, named=True)
    assert not moved["frozen"]
    assert moved["cka"] < 1
    assert moved["cka_shuffled"] < 0.1
    assert (moved["tested"], moved["found"], moved["cka_rows"]) == (4, 1, sum(LENGTHS))


def test_on_policy_is_welch_and_says_that_states_differ(activations, base, files, tmp_path):
    one, _, _, tuned = files
    own = activations(tmp_path / "own.h5", tuned[:7], sha256=STEER_SHA, seed=3)
    found = compare(one, own)
    assert (found.design, found.episodes) == ("on-policy", (8, 7))
    assert "each side saw its own states" in found.notes[0]
    rows = found.neurons.filter(site=EXPERT)
    x, y = ([e[EXPERT].astype(float).mean(0) for e in arm] for arm in (base, tuned[:7]))
    assert rows["p"].to_list() == pytest.approx(
        stats.ttest_ind(y, x, equal_var=False).pvalue, rel=1e-4
    )
    assert rows["d_z"].null_count() == len(rows)
    assert found.sites["cka"].null_count() == 2
    assert not found.sites["frozen"].any()


def test_small_blocks_change_nothing(files, monkeypatch):
    one, other, *_ = files
    whole = compare(one, other)
    monkeypatch.setattr(site_shift, "BLOCK_VALUES", 64)
    apart = compare(one, other)
    for name in (name for name, kind in NEURONS.items() if kind.is_float()):
        found, expected = (shifts.neurons[name].to_numpy() for shifts in (apart, whole))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_the_order_of_episodes_does_not_matter(activations, files, tmp_path):
    """Of an on-policy comparison; a replay pairs them by what they were given."""
    one, _, _, tuned = files
    whole = compare(one, activations(tmp_path / "a.h5", tuned, sha256=STEER_SHA, seed=3))
    apart = compare(one, activations(tmp_path / "b.h5", tuned[::-1], sha256=STEER_SHA, seed=3))
    for name in ("shift", "d", "ks", "p"):
        expected = whole.neurons[name].to_list()
        assert apart.neurons[name].to_list() == pytest.approx(expected, abs=1e-5)


def test_every_token_and_step_is_a_row_and_padding_is_none(activations, tmp_path):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(12, 3, 5)).astype(np.float32) for _ in range(6)]
    for episode in values:
        episode[:, 2] = np.nan
    moved = [v + np.float32(0.5) for v in values]
    one = activations(tmp_path / "a.h5", [{VLM: v} for v in values], dtype="float32")
    two = activations(
        tmp_path / "b.h5", [{VLM: v} for v in moved], sha256=STEER_SHA, dtype="float32"
    )
    found = compare(one, two)
    assert found.neurons["n_base"].unique().to_list() == [6 * 12 * 2]
    assert found.neurons["shift"].to_list() == pytest.approx([0.5] * 5)
    assert found.notes == ()


def test_bad_numbers_become_sentences(activations, base, tmp_path):
    """A neuron that never varies, a row that is not finite, too few episodes."""
    for episode in base:
        episode[VLM][:, 1] = 3
    spoilt = [{name: v.copy() for name, v in episode.items()} for episode in base]
    for episode in spoilt:
        episode[VLM][:, 1] = 4
    spoilt[0][VLM][3, 0] = np.inf
    one = activations(tmp_path / "a.h5", base[:2])
    two = activations(tmp_path / "b.h5", spoilt[:2], sha256=STEER_SHA)
    found = compare(one, two)
    assert found.notes == (
        "2 episodes: 6 or more are needed for a test, so there is no p",
        f"{VLM}: rows left out because a value is not finite: 1",
        "neurons that never vary on either side, so they have no d: 1",
    )
    for name in ("p", "p_corrected", "ks_p"):
        assert found.neurons[name].null_count() == len(found.neurons)
    rows = found.neurons.filter(site=VLM)
    assert rows["n_base"][0] == LENGTHS[0] + LENGTHS[1] - 1
    assert rows["shift"][1] == 1
    floats = found.neurons.select(pl.selectors.float())
    assert not any(column.is_nan().any() for column in floats)


def test_rows_are_those_of_decisions_that_both_recorded():
    """One side kept decisions 0, 1, 3 of the first episode, the other 1, 2, 3."""
    ours = site_shift._Rows(
        None, np.arange(5), np.array([0, 0, 0, 1, 1]), np.array([0, 1, 3, 0, 1])
    )
    rows = np.arange(10, 15)
    theirs = site_shift._Rows(None, rows, np.array([0, 0, 0, 1, 1]), np.array([1, 2, 3, 0, 1]))
    one, other = site_shift._in_step(ours, theirs)
    assert one.rows.tolist() == [1, 2, 3, 4]
    assert other.rows.tolist() == [10, 12, 13, 14]
    assert one.episode.tolist() == other.episode.tolist() == [0, 0, 1, 1]


def test_sites_are_chosen_by_how_they_begin(files):
    one, other, *_ = files
    for wanted, expected in ((["vlm"], [VLM]), (["expert.0"], [EXPERT]), ([VLM], [VLM])):
        assert compare(one, other, sites=wanted).sites["site"].to_list() == expected


def test_what_cannot_be_compared_is_one_line(activations, base, files, traces, tmp_path):
    one, other, *_ = files
    other_width = [{VLM: np.ones((3, 9), np.float16)}]
    wide = activations(tmp_path / "wide.h5", other_width)
    elsewhere = activations(tmp_path / "else.h5", [{"vlm.7.ffn_act": np.ones((3, 9), np.float16)}])
    with pytest.raises(UserError, match=r"vlm\.1\.ffn_act has the shape 6 in BASE and 9 in TUNED"):
        compare(one, wide)
    with pytest.raises(UserError, match=r"no site was recorded on both sides; BASE has exp\.0"):
        compare(one, elsewhere)
    with pytest.raises(UserError, match=r"no common site is called vlm\.9; there are exp\.0"):
        compare(one, other, sites=["vlm.9"])
    with pytest.raises(UnknownName, match="correction 'holms'; did you mean holm"):
        compare(one, other, correction="holms")
    with pytest.raises(UserError, match="BASE holds episodes of 2 policies"):
        compare((one, other), other)
    steered = [
        activations(tmp_path / f"s{a}.h5", base[:1], intervention=traces.steer(a)) for a in (2, 4)
    ]
    with pytest.raises(UserError, match=r"BASE holds 2 conditions .* and no baseline"):
        compare(steered, other)


def test_equal_weights_and_steering_are_named(activations, base, files, traces, tmp_path):
    one = files[0]
    assert "both sides have the same weights" in compare(one, one).notes[0]
    steered = activations(tmp_path / "s.h5", base, intervention=traces.steer())
    found = compare(one, steered, sites=["vlm"])
    assert found.tuned == "s@abababab, fast α=8"
    assert "what differs here is the steering" in found.notes[0]
    assert found.sites["site"].to_list() == [VLM]


@pytest.mark.parametrize("paired", [True, False])
def test_identical_policies_are_found_different_no_more_often_than_by_chance(paired):
    """200 resamples of 100 neurons: single tests at 5 %, any find under Holm in 5 % of them."""
    rng = np.random.default_rng(0)
    single, any_found = [], 0
    for _ in range(200):
        base, tuned = rng.standard_t(5, size=(2, 8, 100))
        p = shift_p(None, tuned - base) if paired else shift_p(base, tuned)
        single.append((p <= 0.05).mean())
        any_found += (corrected(p, "holm") <= 0.05).any()
    assert np.mean(single) <= 0.055
    assert stats.binom.sf(any_found - 1, 200, 0.05) > 0.01

"""Traces in which the test decides which neuron follows what."""

import h5py
import numpy as np
import polars as pl
import pytest
from scipy import stats

from analysis import natural
from analysis.meaning import OF_COVERAGE, OF_SIGNALS, meaning
from analysis.onsets import OFF, coverage, unit_rows
from traces.errors import UnknownName, UserError

EPISODES, ROWS = 24, 8
COURSE = np.sin(np.linspace(0, np.pi, ROWS))
"""Of every episode's speed: slow at both ends."""


def speeds(rng):
    return 1 + COURSE + rng.uniform(0, 1, size=(EPISODES, ROWS))


def recording(traces, path, speed, values, **options):
    """Episodes of the given speeds (E, rows) and activations (E, rows, N)."""
    made = [
        traces.episode(f"p{i:02d}", list(cm), ffn_act=x.astype(np.float32))
        for i, (cm, x) in enumerate(zip(speed, values, strict=True))
    ]
    return str(traces.write(path, made, **options))


@pytest.fixture
def planted(traces, tmp_path):
    """Neuron 0 follows the speed, 1 opposes it, 2 shares its course only, 3 never changes."""
    rng = np.random.default_rng(0)
    speed = speeds(rng)
    noise = rng.normal(0, 0.05, size=(EPISODES, ROWS, 2))
    columns = [
        speed + noise[..., 0],
        2 - speed,
        COURSE + noise[..., 1],
        np.full((EPISODES, ROWS), 0.5),
    ]
    return recording(traces, tmp_path / "base.h5", speed, np.stack(columns, axis=-1))


def of_signal(found, name="speed"):
    return found.signals.filter(pl.col("signal") == name).sort("neuron")


def test_a_planted_neuron_is_found_and_a_clock_is_not(planted):
    found = meaning([planted])
    rows = of_signal(found)
    assert rows["n"].to_list() == [EPISODES, EPISODES, EPISODES, 0]
    assert rows["r"][0] > 0.9 and rows["r"][1] < -0.99
    follows = [p is not None and p < 0.001 for p in rows["p_follows_bh"]]
    assert follows == [True, True, False, False]
    clock = rows.row(2, named=True)
    assert clock["p_bh"] < 0.001  # it does correlate,
    assert clock["r_other"] == pytest.approx(clock["r"], abs=0.1)  # with any episode's speed
    assert clock["p_follows"] > 0.05
    assert rows.row(3, named=True)["r"] is None
    assert "1 neuron without change in any episode: no correlation" in found.notes


def test_numbers_are_scipys(planted, traces, tmp_path):
    rng = np.random.default_rng(3)
    speed = speeds(rng)[:7]
    values = rng.normal(size=(7, ROWS, 2)).astype(np.float16).astype(float)
    found = meaning([recording(traces, tmp_path / "few.h5", speed, values)])
    for neuron, row in enumerate(of_signal(found).iter_rows(named=True)):
        x = values[..., neuron]
        own = [stats.pearsonr(a, b)[0] for a, b in zip(x, speed, strict=True)]
        other = np.mean(
            [
                [stats.pearsonr(a, b)[0] for a, b in zip(x, np.roll(speed, -i, 0), strict=True)]
                for i in range(1, natural.OTHERS + 1)
            ],
            axis=0,
        )
        test, beyond = stats.ttest_1samp(own, 0), stats.ttest_rel(own, other)
        assert row["r"] == pytest.approx(np.mean(own))
        assert row["r_other"] == pytest.approx(np.mean(other))
        assert (row["low"], row["high"]) == pytest.approx(tuple(test.confidence_interval()))
        assert row["p"] == pytest.approx(test.pvalue)
        assert row["p_beyond"] == pytest.approx(beyond.pvalue)
        disagree = np.mean(own) * (np.mean(own) - np.mean(other)) <= 0
        assert row["p_follows"] == pytest.approx(
            1.0 if disagree else max(test.pvalue, beyond.pvalue)
        )
    p = of_signal(found)["p_follows"].to_numpy()
    assert of_signal(found)["p_follows_bh"].to_list() == pytest.approx(
        stats.false_discovery_control(p).tolist()
    )


def test_permuted_episodes_follow_at_no_more_than_the_nominal_rate(traces, tmp_path):
    """Each neuron follows the speed, of episodes in another order: its course is all that stays."""
    rng = np.random.default_rng(1)
    neurons, speed = 300, speeds(rng)
    shuffled = np.stack([speed[rng.permutation(EPISODES)] for _ in range(neurons)], axis=-1)
    found = of_signal(meaning([recording(traces, tmp_path / "permuted.h5", speed, shuffled)]))
    assert (found["p"] <= 0.05).mean() > 0.9  # the course alone makes r differ from 0
    bound = 0.05 + 3 * np.sqrt(0.05 * 0.95 / neurons)
    assert (found["p_beyond"] <= 0.05).mean() <= bound
    assert (found["p_follows"] <= 0.05).mean() <= bound
    assert (found["p_follows_bh"] <= 0.05).sum() == 0


def of_share(t, n):
    return np.sin(np.pi * (t + 0.5) / n)


def of_number(t, n):
    return np.exp(-t / 4)


@pytest.mark.parametrize("course", [of_share, of_number])
def test_clocks_follow_nothing_when_episodes_have_different_lengths(traces, tmp_path, course):
    """Signals and neurons that change with the share, or the number, of the decision alone."""
    rng = np.random.default_rng(6)
    neurons, made = 300, []
    for i in range(EPISODES):
        n = rng.integers(8, 30)
        clock = course(np.arange(n), n)
        cm = 1 + clock + rng.uniform(0, 1, size=n)
        values = clock[:, None] + rng.normal(0, 0.3, size=(n, neurons))
        made.append(traces.episode(f"p{i:02d}", list(cm), ffn_act=values))
    found = of_signal(meaning([traces.write(tmp_path / "clocks.h5", made)]))
    assert (found["p"] <= 0.05).mean() > 0.9
    assert (found["p_follows"] <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / neurons)


def test_coverage_is_that_of_the_arrays(traces, tmp_path):
    rng = np.random.default_rng(2)
    values = rng.normal(0.3, 1, size=(5, ROWS, 6)).astype(np.float16).astype(float)
    speed = speeds(rng)[:5]
    path = recording(traces, tmp_path / "t.h5", speed, values)
    found = meaning([path])
    episode, step = np.repeat(np.arange(5), ROWS), np.tile(np.arange(ROWS), 5)
    counted = coverage(unit_rows(values.reshape(-1, 6)), episode, step, active=OFF)
    for name in ("coverage", "onset_count", "run_length", "mean_active", "effective_episodes"):
        assert found.coverage[name].to_list() == pytest.approx(getattr(counted, name).tolist())
    assert found.sites.row(0, named=True)["neurons"] == 6
    labels = found.coverage["label"].to_list()
    assert found.sites["general"][0] == labels.count("general") > 0
    assert found.sites["general_share"][0] == labels.count("general") / 6


def test_small_blocks_and_files_in_any_order_change_nothing(traces, planted, tmp_path, monkeypatch):
    rng = np.random.default_rng(5)
    more = recording(
        traces, tmp_path / "more.h5", speeds(rng)[:3], rng.normal(size=(3, ROWS, 4)), replan=2
    )
    at_once = meaning([planted, more])
    monkeypatch.setattr(natural, "BLOCK_ROWS", 9)
    by_parts = meaning([more, planted])
    assert at_once.episodes == by_parts.episodes == EPISODES + 3
    assert at_once.signals.equals(by_parts.signals)
    assert at_once.coverage.equals(by_parts.coverage)
    assert at_once.notes == by_parts.notes


def test_an_episode_recorded_twice_counts_once(traces, planted, tmp_path):
    rng = np.random.default_rng(0)
    again = recording(
        traces, tmp_path / "again.h5", speeds(rng), rng.normal(size=(EPISODES, ROWS, 4))
    )
    found = meaning([planted, again])
    assert found.episodes == EPISODES
    assert "24 repeated recordings of the same condition and pair left out" in found.notes[0]


def test_steered_episodes_are_left_out(traces, planted, tmp_path):
    values = np.ones((EPISODES, ROWS, 4))
    speed = np.ones((EPISODES, ROWS))
    fast = recording(traces, tmp_path / "fast.h5", speed, values, intervention=traces.steer())
    both, alone = meaning([planted, fast]), meaning([planted])
    assert both.signals.equals(alone.signals)
    assert both.coverage.equals(alone.coverage)
    assert both.notes[0].startswith("24 episodes steered or otherwise told left out")
    with pytest.raises(UserError, match="all of these traces are steered"):
        meaning([fast])


def test_a_number_too_large_costs_its_neuron_one_episode(traces, tmp_path):
    rng = np.random.default_rng(4)
    values = rng.normal(size=(8, ROWS, 3))
    values[2, 3, 1] = 1e9  # infinite in float16
    speed = rng.uniform(1, 2, size=(8, ROWS))
    found = meaning([recording(traces, tmp_path / "t.h5", speed, values)])
    assert of_signal(found)["n"].to_list() == [8, 7, 8]


def test_broken_poses_and_orders(traces, tmp_path):
    rng = np.random.default_rng(7)
    made = [
        traces.episode(f"p{i}", [1.0, 2.0, 1.5, 3.0], ffn_act=rng.normal(size=(4, 2)))
        for i in range(3)
    ]
    made[1]["steps"] = {"ee_pos": np.full((4, 3), np.nan)}
    path = traces.write(tmp_path / "t.h5", made)
    found = meaning([path])
    assert of_signal(found)["n"].to_list() == [2, 2]
    assert of_signal(found, "time")["n"].to_list() == [3, 3]
    with h5py.File(path, "r+") as file:
        file["activations/vlm.1.ffn_act/decision"][5] = 10_000
    with pytest.raises(UserError, match="not in the order of decisions"):
        meaning([path])


def test_nothing_is_nan_whatever_is_missing(traces, tmp_path):
    one = traces.episode("a", [1.0, 1.0, 1.0], ffn_act=np.zeros((3, 2)))
    found = meaning([traces.write(tmp_path / "t.h5", [one])])
    for frame in (found.signals, found.coverage, found.sites):
        assert not frame.select(pl.col(pl.Float64).is_nan().any()).to_numpy().any()
    assert found.coverage["label"].to_list() == ["silent", "silent"]
    assert found.sites["general_share"].to_list() == [None]
    assert found.signals.columns == list(OF_SIGNALS)
    assert found.coverage.columns == list(OF_COVERAGE)
    assert found.notes[:3] == (
        "1 episode is fewer than the 6 that an interval or a p takes",
        "1 episode without another of the same task: no r_other there",
        "no neuron changes within an episode together with a signal: no correlation",
    )


def test_notes_say_where_the_rule_is_stretched(traces, planted, tmp_path):
    notes = " ".join(meaning([planted]).notes)
    assert "fitted to sparse features of pi0.5" in notes
    assert "one task only" in notes
    assert "the policy is asked every" not in notes  # it was asked every step
    assert "threshold from 17 on" not in notes
    one = traces.episode("a", [1.0] * 5, executed=[2, 3], ffn_act=np.eye(2))
    other = traces.episode("b", [1.0] * 5, executed=[3, 2], ffn_act=np.eye(2), task_id=1)
    notes = " ".join(meaning([traces.write(tmp_path / "t.h5", [one, other])]).notes)
    assert "the policy is asked every 2.5 control steps, 2 times an episode" in notes
    assert "2 episodes with fewer than 3 decisions" in notes
    assert "of 2 episodes, a general neuron must be active in every one" in notes
    assert "one task only" not in notes


def test_what_cannot_be_read_is_one_line(traces, planted, tmp_path):
    with pytest.raises(UnknownName, match=r"unknown site 'vlm\.11?'; .*vlm\.1\.ffn_act"):
        meaning([planted], ["vlm.11"])
    assert meaning([planted], ["vlm.1"]).sites["site"].to_list() == ["vlm.1.ffn_act"]
    nothing = traces.write(tmp_path / "light.h5", [traces.episode("a", [1.0], ffn_act=None)])
    with pytest.raises(UserError, match="no activations in these traces; record some with"):
        meaning([nothing])
    other = recording(
        traces, tmp_path / "other.h5", np.ones((1, 3)), np.ones((1, 3, 4)), sha256="cd" * 32
    )
    with pytest.raises(UserError, match=r"2 policies .*give the traces of one"):
        meaning([planted, other])
    with pytest.raises(UserError, match="no episode in these files"):
        meaning([traces.write(tmp_path / "none.h5", [])])

"""The rows that are learnt from: whose they are, in which order, and which are left out."""

import numpy as np
import pytest

from analysis.sae import rows as sae_rows
from analysis.sae.rows import (
    Shuffled,
    SiteRows,
    check_policy,
    is_held_out,
    split_rows,
    tokens_of,
)
from traces.collection import open_traces
from traces.errors import UnknownName, UserError

SITE = "vlm.1.resid_post"


def numbered(n, tokens=(), first=0):
    """Rows that say which they are."""
    values = np.arange(first, first + n, dtype=np.float32).reshape(n, *(1 for _ in tokens), 1)
    return {SITE: np.broadcast_to(values, (n, *tokens, 2)).copy()}


def test_whole_episodes_are_held_out(activations, tmp_path):
    path = activations(tmp_path / "a.h5", [numbered(7, first=7 * i) for i in range(40)])
    with open_traces(path) as traces:
        train, held_out, notes, policy = split_rows(traces, [path], SITE)
        uids = traces.episodes("uid")["uid"].astype(str)
        seen = [np.unique(np.concatenate(list(p.in_order()))[:, 0]) for p in (train, held_out)]
    wanted = [7 * i + j for i, uid in enumerate(uids) if is_held_out(uid) for j in range(7)]
    assert 0 < len(wanted) < 140
    assert seen[1].tolist() == wanted
    assert sorted([*seen[0], *seen[1]]) == list(range(280))
    assert policy == "a@abababab"
    assert notes[-1] == f"{40 - len(wanted) // 7} episodes to train on, {len(wanted) // 7} held out"


def test_blocks_stay_within_an_episode(activations, tmp_path, monkeypatch):
    monkeypatch.setattr(sae_rows, "BLOCK_ROWS", 4)
    path = activations(tmp_path / "a.h5", [numbered(n) for n in (9, 3, 4)])
    with open_traces(path) as traces:
        train, held_out, _, _ = split_rows(traces, [path], SITE)
    spans = sorted((b.start, b.stop) for part in (train, held_out) for b in part.blocks)
    assert spans == [(0, 4), (4, 8), (8, 9), (9, 12), (12, 16)]


@pytest.mark.parametrize(("n", "batch"), [(1000, 64), (1000, 7), (130, 100)])
def test_a_buffer_that_is_too_small_still_shows_every_row_once(monkeypatch, n, batch):
    monkeypatch.setattr(sae_rows, "BUFFER_BYTES", 4 * 2 * 90)  # 90 rows
    values = numbered(n)[SITE]
    rows = SiteRows(values, tuple(slice(i, min(i + 16, n)) for i in range(0, n, 16)))
    assert not rows.fits
    shuffled = Shuffled(rows, batch, seed=0)
    epochs = [list(shuffled.epoch(e)) for e in (0, 0, 1)]
    for batches in epochs:
        assert {len(one) for one in batches} == {batch}
        seen = np.concatenate(batches)[:, 0]
        assert len(seen) == len(set(seen)) == n // batch * batch  # less than a batch is left over
    np.testing.assert_array_equal(epochs[0], epochs[1])
    assert (np.concatenate(epochs[0]) != np.concatenate(epochs[2])).any()
    assert np.abs(np.diff(np.concatenate(epochs[0])[:, 0])).max() > 16  # it is shuffled


def test_what_fits_is_read_once_and_shuffled():
    values = numbered(100)[SITE]
    shuffled = Shuffled(SiteRows(values, (slice(0, 60), slice(80, 100))), 20, seed=1)
    seen = np.concatenate(list(shuffled.epoch(0)))[:, 0]
    assert sorted(seen) == [*range(60), *range(80, 100)]
    assert list(seen) != sorted(seen)


def test_padding_tokens_and_overflow_are_left_out(activations, tmp_path):
    made = [numbered(5, tokens=(3,), first=10 * i) for i in range(4)]
    made[0][SITE][:, 2] = np.nan  # padding
    made[1][SITE][1, 0, 1] = np.inf  # overflow
    path = activations(tmp_path / "a.h5", made, dtype="float32")
    with open_traces(path) as traces:
        train, held_out, _, _ = split_rows(traces, [path], SITE)
        found = np.concatenate([*train.in_order(), *held_out.in_order()])
    assert train.n + held_out.n == 4 * 5 * 3
    assert found.shape == (4 * 5 * 3 - 5 - 1, 2)
    assert np.isfinite(found).all()


def test_steered_episodes_are_no_rows(activations, traces, tmp_path):
    base = activations(tmp_path / "a.h5", [numbered(5) for _ in range(3)])
    steered = activations(
        tmp_path / "b.h5", [numbered(5, first=90)], intervention=traces.steer(), seed=1
    )
    with open_traces(base, steered) as both:
        train, held_out, notes, _ = split_rows(both, [base, steered], SITE)
        seen = np.concatenate([*train.in_order(), *held_out.in_order()])
    assert seen.max() == 4
    assert "1 episode steered or otherwise told left out: not the policy alone" in notes
    with open_traces(steered) as one, pytest.raises(UserError, match=r"all of these .* steered"):
        split_rows(one, [steered], SITE)


def test_what_cannot_be_split(activations, tmp_path):
    path = activations(tmp_path / "a.h5", [numbered(5)])
    with open_traces(path) as traces:
        with pytest.raises(UserError, match="in 1 unsteered episodes; at least 2 are needed"):
            split_rows(traces, [path], SITE)
        with pytest.raises(UnknownName, match=r"vlm\.9\.resid_post.*vlm\.1\.resid_post"):
            split_rows(traces, [path], "vlm.9.resid_post")


def test_an_episode_that_the_hash_spares_is_held_out_all_the_same(activations, tmp_path):
    for n in (2, 3):
        path = activations(tmp_path / f"{n}.h5", [numbered(5) for _ in range(n)])
        with open_traces(path) as traces:
            train, held_out, _, _ = split_rows(traces, [path], SITE)
        assert train.n and held_out.n


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("vlm.1.resid_post", "all"),
        ("vlm.1.resid_post.each", "all"),
        ("vlm.1.ffn_act.language", "language"),
        ("vlm.1.ffn_act.state.each", "state"),
        ("exp.1.ffn_act", "executed"),
        ("exp.1.ffn_act.chunk.each", "chunk"),
    ],
)
def test_the_tokens_of_a_site(activations, tmp_path, name, tokens):
    path = activations(tmp_path / "a.h5", [{name: np.ones((3, 2), np.float32)}] * 2)
    with open_traces(path) as traces:
        assert tokens_of(traces.sites()[0]) == tokens


def test_another_policys_autoencoder(identity_sae):
    sae = identity_sae()
    check_policy(sae, "f", "p", "ab" * 32)
    check_policy(sae, "f", "p", "")
    check_policy(identity_sae(policy_sha256=""), "f", "p", "cd" * 32)
    with pytest.raises(UserError, match=r"f was trained on p, this is q, .*--other-policy"):
        check_policy(sae, "f", "q", "cd" * 32)

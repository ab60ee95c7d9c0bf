import numpy as np

from engine.policies.demos import FIRST_SCENE_SEED, _chunks, load_or_collect


def test_sizes_do_not_take_each_others_place(tmp_path):
    """Two episodes, then one, then the two again: what is read back is what was recorded."""
    two = load_or_collect(tmp_path, 2, 0, workers=1)
    one = load_or_collect(tmp_path, 1, 0, workers=1)
    again = load_or_collect(tmp_path, 2, 0, workers=1)
    assert len(one) < len(two) == len(again) == len(two.images)
    np.testing.assert_array_equal(two.state, again.state)
    np.testing.assert_array_equal(two.state[: len(one)], one.state)  # the first episode is the same
    assert FIRST_SCENE_SEED >= 100_000


def test_chunks_end_where_a_kick_or_the_episode_does():
    actions = np.arange(14, dtype=np.float32)[:, None]
    kicked = np.zeros(14, bool)
    kicked[5] = True
    chunks, valid = _chunks(actions, kicked)
    assert valid.sum(1).tolist() == [5, 4, 3, 2, 1, 0, 8, 7, 6, 5, 4, 3, 2, 1]
    np.testing.assert_array_equal(chunks[6, :8, 0], actions[6:, 0])

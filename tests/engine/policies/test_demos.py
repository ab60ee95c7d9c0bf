import numpy as np
import pytest

from engine.policies.demos import (
    FIRST_SCENE_SEED,
    KICKED,
    _chunks,
    load_or_collect,
    refuse_held_out,
)


def test_sizes_do_not_take_each_others_place(tmp_path):
    """Two episodes, then one, then the two again: what is read back is what was recorded."""
    two = load_or_collect(tmp_path, 2, 0, workers=1)
    one = load_or_collect(tmp_path, 1, 0, workers=1)
    again = load_or_collect(tmp_path, 2, 0, workers=1)
    assert len(one) < len(two) == len(again) == len(two.images)
    np.testing.assert_array_equal(two.state, again.state)
    np.testing.assert_array_equal(two.state[: len(one)], one.state)  # the first episode is the same
    assert FIRST_SCENE_SEED >= 100_000


def test_chunks_end_where_a_kick_a_change_of_mind_or_the_episode_does():
    actions = np.arange(14, dtype=np.float32)[:, None]
    stage = np.repeat([0, KICKED, 0, 1], [5, 1, 4, 4])
    chunks, valid = _chunks(actions, stage)
    assert valid.sum(1).tolist() == [5, 4, 3, 2, 1, 0, 4, 3, 2, 1, 4, 3, 2, 1]
    np.testing.assert_array_equal(chunks[6, :4, 0], actions[6:10, 0])


def test_about_half_of_them_change_their_mind(tmp_path):
    """Some episodes are told two things; every scene is a training scene."""
    demos = load_or_collect(tmp_path, 16, 1, workers=1)
    starts = np.flatnonzero((np.diff(demos.scene, axis=0, prepend=-1) != 0).any(1))
    told = [set(part) for part in np.split(demos.task, starts[1:])]
    assert len(told) == 16
    assert 3 <= sum(len(tasks) == 2 for tasks in told) <= 13
    assert demos.scene.min() >= FIRST_SCENE_SEED
    with pytest.raises(ValueError, match=r"1 frames .* scene seed 42 with initial state 100001"):
        refuse_held_out(np.array([[100_000, 100_000], [42, 100_001]]))


def test_pixels_are_where_the_cubes_are(tmp_path):
    """The colour of the picture at the projected point is the cube's own, nearly always."""
    demos = load_or_collect(tmp_path, 6, 2, workers=1)
    hits = total = 0
    for image, point in zip(demos.images[:, 0], demos.pixels[:, 0], strict=True):
        for colour, (right, down) in enumerate(point):
            if 0 <= right < 1 and 0 <= down < 1:
                hits += int(image[int(64 * down), int(64 * right)].argmax() == colour)
                total += 1
    assert total > 200
    assert hits / total > 0.85  # the hand hides the rest

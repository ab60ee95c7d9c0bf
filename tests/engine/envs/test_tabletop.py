import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from engine.envs import load_suite
from engine.envs.expert import SPEED_OF, expert_action
from engine.envs.tabletop import (
    CAMERAS,
    COLOURS,
    N_INIT_STATES,
    TASKS,
    WORKSPACE,
    TabletopEnv,
    task_id_of,
)
from traces.errors import UnknownName, UserError


@pytest.fixture(params=range(len(TASKS)), ids=[task.name for task in TASKS])
def env(request):
    made = TabletopEnv(request.param)
    yield made
    made.close()


def play(env, actions, seed=3, init_state=4):
    observation, _ = env.reset(seed=seed, options={"init_state": init_state})
    seen = [observation]
    for action in actions:
        seen.append(env.step(action)[0])
    return seen


def flat(observation):
    if isinstance(observation, dict):
        return [leaf for value in observation.values() for leaf in flat(value)]
    return [observation]


def solve(env, speed, seed, init_state):
    env.reset(seed=seed, options={"init_state": init_state})
    path = [env.grip_pos()]
    while True:
        _, reward, terminated, truncated, info = env.step(expert_action(env, speed))
        path.append(env.grip_pos())
        if terminated or truncated:
            assert reward == float(terminated) == float(info["is_success"])
            return terminated, path


def test_suite_lists_tasks_of_growing_length():
    horizons = [task.horizon for task in TASKS]
    assert len(TASKS) >= 4
    assert horizons == sorted(horizons)
    assert TASKS[-1].n_targets == 2


def test_observations_fit_the_space_and_are_finite(env):
    rng = np.random.default_rng(0)
    for observation in play(env, rng.uniform(-1, 1, (12, 7)).astype(np.float32)):
        assert env.observation_space.contains(observation)
        assert all(np.isfinite(leaf).all() for leaf in flat(observation))


@pytest.mark.filterwarnings("ignore:.*Box observation space:UserWarning")  # as LIBERO's are
def test_gymnasium_accepts_it(env):
    check_env(env, skip_render_check=True)


def test_same_seed_same_bytes(env):
    actions = np.random.default_rng(1).uniform(-1, 1, (15, 7)).astype(np.float32)
    first, second = play(env, actions), play(env, actions)
    for one, other in zip(first, second, strict=True):
        for a, b in zip(flat(one), flat(other), strict=True):
            np.testing.assert_array_equal(a, b)


def test_scene_seed_moves_fixtures_and_init_state_moves_cubes(env):
    def scene(seed, init_state):
        env.reset(seed=seed, options={"init_state": init_state})
        poses = env.object_poses()[:, :2]
        return poses[: len(COLOURS)], poses[len(COLOURS) :]

    cubes, fixtures = scene(0, 0)
    other_cubes, same_fixtures = scene(0, 3)
    same_cubes, other_fixtures = scene(1, 0)
    np.testing.assert_array_equal(fixtures, same_fixtures)
    np.testing.assert_allclose(cubes, same_cubes, atol=1e-6)
    assert np.abs(cubes - other_cubes).max() > 0.01
    assert np.abs(fixtures - other_fixtures).max() > 0.001


@pytest.mark.parametrize("speed", SPEED_OF)
def test_expert_solves_it(env, speed):
    outcomes = [solve(env, speed, seed, seed * 7)[0] for seed in range(10)]
    assert all(outcomes)


def test_expert_speeds_differ(env):
    def mean_step(speed):
        path = np.array(solve(env, speed, 0, 0)[1])
        return np.linalg.norm(np.diff(path, axis=0), axis=1).mean()

    slow, normal, fast = (mean_step(speed) for speed in ("slow", "normal", "fast"))
    assert slow < normal < fast
    assert fast > 1.7 * slow


def test_horizon_ends_the_episode(env):
    env.reset(seed=0)
    still = np.zeros(7, np.float32)
    for t in range(env.task.horizon):
        _, reward, terminated, truncated, _ = env.step(still)
        assert not terminated
        assert reward == 0
        assert truncated == (t == env.task.horizon - 1)


@pytest.mark.parametrize("init_state", range(0, N_INIT_STATES, 7))
def test_initial_states_are_at_rest_and_unsolved(env, init_state):
    env.reset(seed=init_state, options={"init_state": init_state})
    before = env.object_poses()[: len(COLOURS), :3]
    for _ in range(10):
        env.step(np.array([0, 0, 0, 0, 0, 0, -1], np.float32))
    assert np.abs(env.object_poses()[: len(COLOURS), :3] - before).max() < 0.002
    assert not env.is_success()


def test_full_speed_moves_two_and_a_half_centimetres_a_step():
    env = TabletopEnv(0)
    env.reset(seed=0)
    lift = np.array([0, 0, 1, 0, 0, 0, -1], np.float32)
    env.step(lift)
    low = env.grip_pos()
    env.step(lift)
    assert 100 * (env.grip_pos() - low)[2] == pytest.approx(2.5, abs=0.1)
    env.close()


def test_contact_is_seen_with_its_force():
    env = TabletopEnv(0)
    env.reset(seed=0)
    assert env.finger_contact() == (False, 0.0)
    while not env.holds(env.targets[0]):
        env.step(expert_action(env))
    touching, force = env.finger_contact()
    assert touching
    assert force > 1.0
    env.close()


def test_video_frame_is_large_and_not_blank():
    env = TabletopEnv(0)
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (256, 256, 3)
    assert frame.std() > 20
    env.close()


def test_cameras_show_the_named_colour():
    env = TabletopEnv(0)
    observation, _ = env.reset(seed=0, options={"init_state": 0})
    assert set(observation["pixels"]) == set(CAMERAS)
    image = observation["pixels"]["image"].astype(int)
    red = (image[..., 0] > 120) & (image[..., 1] < 70) & (image[..., 2] < 70)
    assert red.sum() > 15
    env.close()


def test_unknown_names_list_what_exists():
    with pytest.raises(UnknownName, match="lift_cube"):
        task_id_of("lift_cubes")
    with pytest.raises(UnknownName, match="tabletop"):
        load_suite("tabletp")
    with pytest.raises(UserError, match="0 to 3"):
        TabletopEnv(9)
    assert task_id_of("2") == task_id_of("put_cube_in_bowl") == 2


def test_an_environment_that_goes_leaves_the_pictures_of_others_alone():
    """Closed, closed twice, or dropped without being closed, whoever drew last."""

    def picture(env: TabletopEnv) -> np.ndarray:
        return env.reset(seed=7, options={"init_state": 7})[0]["pixels"]["image"]

    expected = picture(TabletopEnv(0))
    assert expected.std() > 10
    env = TabletopEnv(0)
    env = TabletopEnv(0)  # the first one goes after the second one was made
    np.testing.assert_array_equal(picture(env), expected)
    other = TabletopEnv(1)
    other.render()
    picture(other)
    np.testing.assert_array_equal(picture(env), expected)
    other.close()
    other.close()
    np.testing.assert_array_equal(picture(env), expected)
    other = TabletopEnv(2)
    picture(env)
    del other
    np.testing.assert_array_equal(picture(env), expected)


def test_the_workspace_is_where_the_hand_ends():
    """Driven outward for three seconds, the grip stops at the ends that the suite names."""
    env = TabletopEnv(0)
    for sign, end in zip((-1, 1), WORKSPACE, strict=True):
        env.reset(seed=0, options={"init_state": 0})
        for part in (2, 0, 1) if sign > 0 else (0, 1, 2):
            action = np.zeros(7)
            action[part] = sign
            for _ in range(60):
                env.step(action)
            assert env.grip_pos()[part] == pytest.approx(end[part], abs=0.004)
    env.close()

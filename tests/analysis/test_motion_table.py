"""Every column of the motion table, from episodes whose answer is known by hand."""

import numpy as np
import polars as pl
import pytest

from analysis.motion_table import BINS, MEASURES, motion_table, read_motion, speed_profiles
from analysis.tables import IDENTITY

HZ = (("name", "tabletop"), ("control_hz", 20))


def told(closing):
    action = np.zeros((len(closing), 7), np.float32)
    action[:, -1] = np.where(closing, 1.0, -1.0)
    return action


def test_one_episode_by_hand(traces, tmp_path):
    # Steps of 1, 0.01 (idle), 3, 2 cm; touches from the third step, closes in the last.
    steps = {"contact": [False, False, True, True], "action": told([0, 0, 0, 1])}
    arm = [traces.episode("p0", [1.0, 0.01, 3.0, 2.0], success=True, steps=steps)]
    frame = motion_table([traces.write(tmp_path / "a.h5", arm, suite=HZ)], horizon=3)
    assert frame.columns == [*IDENTITY, *MEASURES]
    (row,) = frame.rows(named=True)
    assert row["meed_cm"] == pytest.approx(6.01 / 4)
    assert row["meed_first_cm"] == pytest.approx(4.01 / 3)
    assert row["meed_moving_cm"] == pytest.approx(2)
    assert row["meed_approach_cm"] == pytest.approx(1.01 / 2)
    assert row["meed_contact_cm"] == pytest.approx(3)
    assert row["meed_transport_cm"] == pytest.approx(2)
    assert row["path_cm"] == row["net_cm"] == pytest.approx(6.01)  # straight along x
    assert row["idle_share"] == 0.25
    assert (row["closes"], row["opens"]) == (1, 0)
    assert row["success_s"] == pytest.approx(4 / 20)
    assert row["sparc"] < 0
    bend = np.array([3 - 2 * 0.01 + 1, 2 - 2 * 3 + 0.01])
    assert row["ldlj"] == pytest.approx(-np.log(4**3 * (bend**2).sum() / 3**2))


def test_net_displacement_is_less_than_the_path(traces, tmp_path):
    away_and_back = {"ee_pos": [[0, 0, 0], [0.03, 0.04, 0], [0, 0, 0]]}
    home = traces.episode("p0", [0, 0, 0], steps=away_and_back, final_ee_pos=np.zeros(3))
    (row,) = motion_table([traces.write(tmp_path / "a.h5", [home])]).rows(named=True)
    assert (row["path_cm"], row["net_cm"]) == (pytest.approx(10), 0)


def test_an_early_success_does_not_change_the_fixed_horizon(traces, tmp_path):
    early = traces.episode("p0", [1.0] * 12, success=True)
    late = traces.episode("p1", [1.0] * 12 + [9.0] * 5)
    short = traces.episode("p2", [1.0] * 9)
    frame = motion_table([traces.write(tmp_path / "a.h5", [early, late, short])])
    assert frame["meed_first_cm"].to_list() == [pytest.approx(1), pytest.approx(1), None]


def test_the_first_command_is_of_the_first_decision_alone(traces, tmp_path):
    action = np.zeros((4, 7), np.float32)
    action[:, :3] = [[3, 4, 0], [0, 0, 1], [9, 9, 9], [9, 9, 9]]
    action[:, 3:] = 7  # rotation and hand do not count
    two = traces.episode("p0", [1.0] * 4, steps={"action": action}, executed=[2, 2])
    one = traces.episode("p1", [1.0] * 4, steps={"action": action}, executed=[1, 3])
    none = traces.episode("p2", [])
    frame = motion_table([traces.write(tmp_path / "a.h5", [two, one, none])])
    assert frame["first_command"].to_list() == [pytest.approx(3), pytest.approx(5), None]


def test_success_without_an_end_is_where_the_first_reward_is(traces, tmp_path):
    went_on = {"success": True, "terminated": False, "truncated": True}
    rewarded = traces.episode("p0", [1.0] * 6, steps={"reward": [0, 0, 1, 0, 1.0, 0]}, **went_on)
    lost = traces.episode("p1", [1.0] * 6, **went_on)
    failed = traces.episode("p2", [1.0] * 6)
    frame = motion_table([traces.write(tmp_path / "a.h5", [rewarded, lost, failed], suite=HZ)])
    assert frame["success_s"].to_list() == [pytest.approx(3 / 20), None, None]


def test_what_is_not_there_is_null_and_never_nan(traces, tmp_path):
    nowhere = {"ee_pos": np.full((3, 3), np.nan)}
    arm = [
        traces.episode("p0", []),
        traces.episode("p1", [1.0, 2, 3], steps=nowhere),
        traces.episode("p2", [0.0, 0, 0]),
        traces.episode("p3", [1.0, 2.0, 1.0]),
    ]
    frame = motion_table([traces.write(tmp_path / "a.h5", arm)])  # the suite gives no control rate
    assert frame.select(pl.col(pl.Float64).is_nan().any()).row(0).count(True) == 0
    empty, broken, still, whole = frame.rows(named=True)
    assert [empty[name] for name in MEASURES] == [None] * len(MEASURES)
    known = {name for name in MEASURES if broken[name] is not None}
    assert known == {"closes", "first_command", "opens"}
    assert (still["meed_cm"], still["idle_share"], still["meed_moving_cm"]) == (0, 1, None)
    assert (whole["sparc"], whole["success_s"]) == (None, None)
    assert whole["meed_cm"] == pytest.approx(4 / 3)


@pytest.mark.parametrize("size", [1e150, 1e200, 1e308])
def test_a_pose_beyond_all_numbers_is_broken(size, traces, tmp_path):
    far = {"ee_pos": np.array([[0, 0, 0], [size, 0, 0], [0, 0, 0.0]])}
    arm = [traces.episode("p0", [1.0] * 3, steps=far), traces.episode("p1", [1.0] * 3)]
    table = read_motion([traces.write(tmp_path / "a.h5", arm, suite=HZ)])
    row = table.frame.row(0, named=True)
    assert {row[name] for name in ("meed_cm", "path_cm", "sparc", "speed_cm_s")} == {None}
    assert set(speed_profiles(table)["n"]) == {1}


def test_profile_is_distance_over_time_whatever_the_number_of_steps(traces, tmp_path):
    # Half an episode at 1 cm a step, half at 3 cm, with 4, 10 and 40 steps: 20 and 60 cm/s.
    arm = [traces.episode(f"p{n}", [1.0] * n + [3.0] * n) for n in (2, 5, 20)]
    table = read_motion([traces.write(tmp_path / "a.h5", arm, suite=HZ)])
    for profile in table.frame["speed_cm_s"]:
        assert profile.to_list() == pytest.approx([20] * (BINS // 2) + [60] * (BINS // 2))
    frame = speed_profiles(table)
    assert frame["part"].to_list() == list(range(BINS))
    assert frame["time"].to_list() == pytest.approx([(i + 0.5) / BINS for i in range(BINS)])
    assert set(frame["n"]) == {3}
    assert frame["mean_cm_s"].to_list() == pytest.approx([20] * 10 + [60] * 10)
    assert frame["low_cm_s"].to_list() == pytest.approx(frame["high_cm_s"].to_list())


def test_a_bin_may_hold_parts_of_steps(traces, tmp_path):
    table = read_motion(
        [traces.write(tmp_path / "a.h5", [traces.episode("p0", [1.0, 2.0, 3.0])], suite=HZ)]
    )
    (profile,) = table.frame["speed_cm_s"]
    # Twenty bins of 0.15 steps; the seventh lies in [0.9, 1.05].
    assert profile[6] == pytest.approx((0.1 * 1 + 0.05 * 2) / 0.15 * 20)
    assert np.sum(profile.to_list()) * 3 / (BINS * 20) == pytest.approx(6)  # the whole path


def test_shards_and_order_of_files_change_nothing(paired):
    one, other = motion_table(paired), motion_table(paired[::-1])
    assert one.equals(other)
    assert one["meed_cm"].to_list()[:2] == pytest.approx([1.0, 1.1])

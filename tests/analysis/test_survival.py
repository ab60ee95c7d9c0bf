"""The effect of steering in two policies, with every path length chosen by the test."""

import numpy as np
import pytest

from analysis.lacking import lacking
from analysis.stats import sign_flip_p
from analysis.survival import SCHEMA, kept, survival
from traces.errors import UserError

PAIRS = 10
WOBBLE = 0.02 * np.array([1, -1, 2, -2, 0, 1, -1, 3, -3, 0])
TUNED = {"sha256": "cd" * 32, "policy_path": "runs/one/checkpoints/000040/pretrained_model"}


def arm(traces, path, cm, intervention=None, wobble=0.0, steps=4, success=False, **options):
    """Episodes with `cm` a step, differing from scene to scene as `WOBBLE` does."""
    made = [
        traces.episode(f"p{i}", [cm + 0.1 * i + wobble * WOBBLE[i]] * steps, success=success)
        for i in range(PAIRS)
    ]
    return str(traces.write(path, made, intervention, **options))


@pytest.fixture
def arms(traces, tmp_path):
    """Steering adds 0.5 cm a step to the base, and 0.2 cm and success to the tuned policy."""
    steer = traces.steer()
    return [
        arm(traces, tmp_path / "b0.h5", 1.0),
        arm(traces, tmp_path / "bs.h5", 1.5, steer, wobble=1),
        arm(traces, tmp_path / "t0.h5", 2.0, steps=3, **TUNED),
        arm(traces, tmp_path / "ts.h5", 2.2, steer, wobble=-1, success=True, **TUNED),
    ]


def controls(traces, folder, **options):
    """Two random clusters that add 0.1 cm to the base and 0.05 or 0.15 to the tuned policy."""
    matched = {"control": "random", "matched_to": family(traces)}
    for number, change in enumerate((0.05, 0.15)):
        cluster = traces.steer(name=f"random {number} for fast", neurons=(1, 3 - number), **matched)
        yield arm(traces, folder / f"rb{number}.h5", 1.1, cluster)
        yield arm(traces, folder / f"rt{number}.h5", 2.0 + change, cluster, steps=3, **TUNED)


def family(traces):
    from analysis.controls import family

    return family(traces.steer())


def test_effects_and_their_difference_by_hand(arms):
    found = survival(arms)
    assert dict(found.frame.schema) == SCHEMA
    assert found.base == "smolvla-tabletop@abababab"
    assert found.missing == ()
    meed, common, success = found.frame.to_dicts()
    assert (meed["measure"], common["measure"]) == ("meed_cm", "meed_common_cm")
    assert (meed["label"], meed["policy"], meed["n"]) == (
        "fast α=8",
        "pretrained_model@cdcdcdcd",
        PAIRS,
    )
    assert meed["base_effect"] == pytest.approx(0.5)
    assert meed["tuned_effect"] == pytest.approx(0.2)
    assert meed["difference"] == pytest.approx(-0.3)
    assert meed["kept"] == pytest.approx(0.4)
    assert meed["kept_low"] < 0.4 < meed["kept_high"]
    assert meed["p_value"] == pytest.approx(sign_flip_p(-0.3 - 2 * WOBBLE))
    assert meed["d_z"] == pytest.approx(-0.3 / np.std(2 * WOBBLE, ddof=1))
    assert meed["difference_low"] < -0.3 < meed["difference_high"]
    assert common["difference"] == pytest.approx(-0.3)
    assert (success["base_effect"], success["tuned_effect"], success["kept"]) == (0, 1, None)
    assert any("no random cluster was recorded on both sides" in note for note in found.notes)


def test_random_clusters_and_the_null_say_what_any_neurons_do(arms, traces, tmp_path):
    null = traces.steer(name="null for fast", layer=5, control="null", matched_to=family(traces))
    same = arm(traces, tmp_path / "n.h5", 2.0, null, steps=3, **TUNED)
    found = survival([*arms, *controls(traces, tmp_path), same]).frame.row(0, named=True)
    assert found["n_random"] == 2
    assert found["excess"] == pytest.approx(-0.3 - (0.1 - 0.1))  # randoms change by 0 on average
    assert found["excess_low"] < -0.3 < found["excess_high"]
    assert (found["null_pairs"], found["null_equal"]) == (PAIRS, PAIRS)


def test_a_share_of_nothing_is_no_number():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=20)
    assert kept(noise, noise, (-0.5, 0.4)) == (None, None)
    assert kept(noise, noise, None) == (None, None)
    share, (low, high) = kept(2 + noise, 1 + noise / 2, (1.5, 2.5))
    assert share == pytest.approx(0.5)
    assert low == pytest.approx(0.5)
    assert high == pytest.approx(0.5)


def test_what_is_missing_is_named_and_planned(arms, traces, tmp_path):
    """The tuned policy lacks the steered arm and the random clusters."""
    randoms = [path for path in controls(traces, tmp_path) if "rb" in path]
    found = survival([*arms[:3], *randoms])
    assert found.frame.is_empty()
    assert [(m.policy, m.arm) for m in found.missing] == [("pretrained_model@cdcdcdcd", "fast α=8")]
    plan = lacking([*arms[:3], *randoms])
    assert [one.label for one in plan] == [
        "fast α=8",
        "random 0 for fast α=8",
        "random 1 for fast α=8",
    ]
    assert plan[0].intervention == traces.steer()
    assert plan[0].command(tmp_path) == (
        f"vla-trace record --policy {TUNED['policy_path']} --suite tabletop --task 0 --replan 1 "
        f"--steps 2 --no-baseline --controls none --intervention {tmp_path}/fast-a8.json"
    )
    assert [one.label for one in lacking(arms[:2], "elsewhere")] == ["baseline", "fast α=8"]
    assert lacking(arms) == []


def test_other_samplers_few_pairs_and_bad_questions(arms, traces, tmp_path):
    other = [
        arm(traces, tmp_path / "o0.h5", 2.0, sampler="ode", **TUNED),
        arm(traces, tmp_path / "os.h5", 2.2, traces.steer(), sampler="ode", **TUNED),
    ]
    notes = survival([*arms[:2], *other]).notes
    assert any(
        "was sampled otherwise than the base (flow_sde, K 2 and ode, K 2)" in n for n in notes
    )
    mixed = survival([*arms[:3], other[1]])
    assert mixed.frame.is_empty()
    assert any("its unsteered arm has another sampler" in n for n in mixed.notes)
    few = [
        str(
            traces.write(
                tmp_path / f"f{i}.h5",
                [traces.episode("p0", [1.0 + i])],
                traces.steer() if i % 2 else None,
                **(TUNED if i > 1 else {}),
            )
        )
        for i in range(4)
    ]
    found = survival(few)
    assert found.frame["p_value"].null_count() == 3
    assert any("1 pair: 6 pairs or more are needed" in note for note in found.notes)
    with pytest.raises(UserError, match="which is the fine-tuned policy"):
        lacking(arms[:2])
    with pytest.raises(UserError, match="the base was not steered"):
        lacking([arms[0], arms[2]])
    assert survival(arms[:2]).frame.is_empty()

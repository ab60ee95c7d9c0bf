"""Which policies are compared inside, and what is said of those that are not."""

import numpy as np

from analysis.inside import inside

SITE = "vlm.1.ffn_act"
OTHER = "cd" * 32


def rollouts(units=4, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {SITE: (rng.normal(size=(8, units)) + shift).astype(np.float16), **expert(rng)}
        for _ in range(6)
    ]


def expert(rng):
    return {"exp.0.ffn_act.chunk.each": rng.normal(size=(8, 2, 3, 4)).astype(np.float16)}


def test_each_policy_is_compared_with_the_base(activations, tmp_path):
    base = activations(tmp_path / "base.h5", rollouts())
    tuned = activations(tmp_path / "tuned.h5", rollouts(shift=1), sha256=OTHER)
    found = inside([tmp_path], base=str(base))
    (shifts,) = found.shifts
    assert (shifts.design, shifts.episodes) == ("replay", (6, 6))
    assert shifts.sites["median_d"].max() > 0.5
    assert [type(one).__name__ for one in found.atlases] == ["Atlas", "AtlasChange"]
    assert inside([tuned, base], base=str(base)).shifts[0].neurons.equals(shifts.neurons)


def test_one_policy_is_compared_with_nothing(activations, tmp_path):
    activations(tmp_path / "base.h5", rollouts())
    found = inside([tmp_path])
    assert (found.shifts, len(found.atlases)) == ((), 1)


def test_what_cannot_be_compared_is_said(activations, tmp_path):
    base = activations(tmp_path / "base.h5", rollouts())
    activations(tmp_path / "tuned.h5", rollouts(units=5), sha256=OTHER)
    found = inside([tmp_path], base=str(base))
    assert found.shifts == ()
    (note,) = [n for n in found.notes if n.startswith("not compared inside: ")]
    assert SITE in note


def test_nothing_recorded_inside_is_nothing_to_compare(paired):
    found = inside(paired)
    assert (found.shifts, found.atlases) == ((), ())

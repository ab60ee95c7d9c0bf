import pytest

from engine.presets import PRESETS, chosen
from traces.errors import UnknownName, UserError


def names(loaded, *wanted):
    return [spec.name for spec in chosen(loaded.policy, wanted)]


def test_a_star_is_every_layer_and_what_is_not_default_is_in_the_name(loaded):
    assert names(loaded, "vlm.*.ffn_act") == [f"vlm.{i}.ffn_act" for i in range(6)]
    text = "expert.2.ffn_act:tokens=chunk,keep=each,denoise=0-2"
    assert names(loaded, text) == ["exp.2.ffn_act.chunk.each.denoise0-2"]
    assert names(loaded, "vlm.3.ffn_act:tokens=language") == ["vlm.3.ffn_act.language"]


def test_presets_and_sites_add_up_and_repeat_nothing(loaded):
    twice = names(loaded, "light", "vlm.0.resid_post", "vlm.0.ffn_act")
    assert twice == [*names(loaded, "light"), "vlm.0.ffn_act"]
    for preset in PRESETS:
        assert len(set(names(loaded, preset))) == len(names(loaded, preset)) >= 6


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("standart", UserError, "expected light, standard, full, or a site such as"),
        ("arm.3.ffn_act", UnknownName, "tower"),
        ("vlm.3.ffn", UnknownName, "ffn_act"),
        ("vlm.6.ffn_act", UserError, "the vlm has layers 0 to 5"),
        ("vlm.1.ffn_act:token=state", UnknownName, "tokens"),
        ("vlm.1.ffn_act:tokens=executed", UnknownName, "language"),
        ("vlm.1.ffn_act:denoise=0-2", UserError, "only the expert has denoise="),
        ("expert.1.ffn_act:denoise=2-2", UserError, "START-STOP within 0-5"),
        ("expert.1.ffn_act:denoise=0-6", UserError, "START-STOP within 0-5"),
    ],
)
def test_what_does_not_exist_is_one_line(loaded, text, kind, words):
    with pytest.raises(kind) as error:
        chosen(loaded.policy, [text])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_one_site_has_one_type(loaded):
    with pytest.raises(UserError, match="as float16 and as float32"):
        chosen(loaded.policy, ["vlm.1.ffn_act", "vlm.1.ffn_act:dtype=float32"])

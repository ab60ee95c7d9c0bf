import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.envs.tabletop import COLOURS, TASKS
from engine.policies.clone import CloneConfig, Cloner, name_other_colours, named_now, train
from engine.policies.demos import FIRST_SCENE_SEED, SMALL_FIELDS, load_or_collect
from engine.policies.tiny import save_vlm_folder
from traces.errors import UserError

sentences = st.builds(
    lambda task, colours: task.instruction.format(*colours),
    st.sampled_from(TASKS),
    st.permutations(COLOURS),
)


@given(sentences, st.integers(0, 2**32 - 1))
def test_other_colours_are_other_and_the_sentence_stays(text, seed):
    told = name_other_colours(text, np.random.default_rng(seed))
    old, new = ([word for word in sentence.split() if word in COLOURS] for sentence in (text, told))
    assert len(new) == len(old) == len(set(new))
    assert new[0] != old[0]
    blank = [
        [w if w not in COLOURS else "*" for w in sentence.split()] for sentence in (text, told)
    ]
    assert blank[0] == blank[1]


def test_named_now_is_the_first_that_is_not_placed():
    text = "put the blue cube and then the red cube in the bowl"
    red, blue = COLOURS.index("red"), COLOURS.index("blue")
    placed = np.zeros(3, bool)
    assert named_now(text, placed) == blue
    placed[blue] = True
    assert named_now(text, placed) == red
    placed[red] = True
    assert named_now(text, placed) == red


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("demos", -1), ("retold", 1.5)])
def test_a_configuration_that_cannot_be_is_refused(field, value):
    with pytest.raises(ValueError, match=field):
        CloneConfig(**{field: value})


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    return load_or_collect(tmp_path_factory.mktemp("demos"), 3, 0, workers=1)


def test_training_resumed_is_training_in_one_go(demos, tmp_path):
    """Four steps, or two, a checkpoint, and two from there: the same weights, bit for bit."""
    config = CloneConfig(demos=3, steps=4, batch=8, draws=2)
    save_vlm_folder(tmp_path / "vlm")
    whole, first, second = (Cloner(config, demos, tmp_path / "vlm") for _ in range(3))
    for _ in range(4):
        whole.train_step()
    for _ in range(2):
        first.train_step()
    first.save(tmp_path / "clone.pt")
    second.resume(tmp_path / "clone.pt")
    assert second.step == 2
    for _ in range(2):
        second.train_step()
    for cloner, name in ((whole, "whole"), (second, "resumed")):
        cloner.ship(tmp_path / name)
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "resumed")]
    assert weights[0] == weights[1]


def test_a_checkpoint_of_another_configuration_is_not_continued(demos, tmp_path):
    save_vlm_folder(tmp_path / "vlm")
    Cloner(CloneConfig(demos=3, steps=4), demos, tmp_path / "vlm").save(tmp_path / "clone.pt")
    other = Cloner(CloneConfig(demos=3, steps=4, lr=2e-3), demos, tmp_path / "vlm")
    with pytest.raises(UserError, match=r"clone\.pt.*another configuration"):
        other.resume(tmp_path / "clone.pt")


def test_rows_told_another_colour_have_no_action_label(demos, tmp_path):
    """With every row retold nothing pulls the action expert anywhere."""
    save_vlm_folder(tmp_path / "vlm")
    cloner = Cloner(CloneConfig(demos=3, steps=4, batch=8, retold=1.0), demos, tmp_path / "vlm")
    losses = cloner.train_step()
    assert losses["flow"] == 0.0
    assert min(losses[name] for name in ("language", "seen", "named", "located")) > 0


def test_a_held_out_scene_stops_the_training(demos, tmp_path):
    """One frame of a scene that policies are judged on, and nothing is trained."""
    folder = tmp_path / "demos" / "3-0"
    folder.mkdir(parents=True)
    for name in SMALL_FIELDS:
        values = getattr(demos, name).copy()
        if name == "scene":
            values[7] = 99, FIRST_SCENE_SEED
        np.save(folder / f"{name}.npy", values)
    (folder / "images.u8").write_bytes(demos.images.tobytes())
    (folder / "instructions.txt").write_text("\n".join(demos.instructions))
    with pytest.raises(ValueError, match="held-out scenes, first scene seed 99"):
        train(CloneConfig(demos=3), tmp_path, tmp_path / "out", threads=1)
    assert not (tmp_path / "out").exists()

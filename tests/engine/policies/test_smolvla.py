import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from engine.envs.tabletop import TabletopEnv
from engine.policies.calibrate import calibrate, ffn_mean_squares
from engine.policies.clone import VERSION, CloneConfig, flow_matching_loss
from engine.policies.smolvla import EMBEDDED, EMBEDDED_FOLDER, load_policy, policy_state
from engine.policies.tiny import new_policy, save_vlm_folder
from engine.policies.words import SPEED_WORDS, build_tokenizer
from traces.errors import UserError


def batch(rows=4, language=16):
    torch.manual_seed(0)
    mask = torch.ones(rows, language, dtype=torch.bool)
    mask[0, 9:] = False
    return {
        "observation.images.image": torch.rand(rows, 3, 64, 64),
        "observation.images.image2": torch.rand(rows, 3, 64, 64),
        "observation.state": torch.randn(rows, 8),
        "observation.language.tokens": torch.randint(7, 200, (rows, language)),
        "observation.language.attention_mask": mask,
        "action": torch.randn(rows, 10, 7),
    }


def test_it_is_lerobots_own_class_and_small(loaded):
    assert type(loaded.policy) is SmolVLAPolicy
    assert (EMBEDDED_FOLDER / "model.safetensors").stat().st_size < 12e6
    assert not any(p.requires_grad for p in loaded.policy.parameters())


def test_the_weights_are_those_of_the_recipe():
    """What `make policy` would train now is what was trained."""
    training = json.loads((EMBEDDED_FOLDER / "training.json").read_text())
    assert training["version"] == VERSION
    assert training["clone"] == asdict(CloneConfig())
    assert training["curve"][-1]["step"] == CloneConfig().steps


def test_the_folder_loads_after_being_moved(loaded, tmp_path):
    moved = load_policy(str(shutil.copytree(EMBEDDED_FOLDER, tmp_path / "elsewhere")))
    assert moved.sha256 == loaded.sha256
    assert moved.name == "elsewhere"
    text = "".join(p.read_text() for p in (tmp_path / "elsewhere").glob("*.json"))
    assert "/" not in json.loads((moved.path / "config.json").read_text())["vlm_model_name"]
    assert str(tmp_path) not in text


def test_every_speed_word_is_one_token():
    tokenizer = build_tokenizer()
    for word in (w for words in SPEED_WORDS.values() for w in words):
        ids = tokenizer(f"pick up the red cube {word}\n")["input_ids"]
        assert len(ids) == 7
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode([ids[5]]) == f" {word}"


def test_state_vector_is_liberos():
    env = TabletopEnv(0)
    observation, _ = env.reset(seed=0, options={"init_state": 0})
    state = policy_state(observation["robot_state"])
    env.close()
    assert state.shape == (8,)
    np.testing.assert_allclose(state[3:6], [np.pi, 0, 0], atol=1e-5)
    np.testing.assert_allclose(state[6:], [0.05, -0.05], atol=1e-3)


def test_training_loss_is_lerobots(tmp_path):
    """One draw with the same noise and time: the shared prefix changes nothing."""
    save_vlm_folder(tmp_path / "vlm")
    policy = new_policy(tmp_path / "vlm", seed=0)
    data = batch()
    noise, time = torch.randn(4, 10, 8), torch.rand(4) * 0.9 + 0.05
    valid = torch.rand(4, 10) > 0.3
    ours = flow_matching_loss(policy, data, valid, 1, noise, time)
    theirs, _ = policy.forward(data | {"action_is_pad": ~valid}, noise=noise, time=time)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-5)


def test_same_seed_same_new_policy(tmp_path):
    save_vlm_folder(tmp_path / "vlm")
    one, same, other = (new_policy(tmp_path / "vlm", seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


def test_calibration_sets_the_unit_and_keeps_the_function(tmp_path):
    save_vlm_folder(tmp_path / "vlm")
    policy = new_policy(tmp_path / "vlm", seed=0).eval()
    data, noise = [batch()], torch.randn(4, 10, 8)
    before = policy.predict_action_chunk(dict(data[0]), noise=noise)
    calibrate(policy, data)
    after = policy.predict_action_chunk(dict(data[0]), noise=noise)
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-5)
    for mean_square in ffn_mean_squares(policy, data):
        live = mean_square > 1e-6
        assert live.float().mean() > 0.9
        torch.testing.assert_close(
            mean_square[live], torch.ones_like(mean_square[live]), rtol=1e-3, atol=0
        )


def test_what_is_no_policy_is_said_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        load_policy(str(tmp_path))
    with pytest.raises(UserError, match=EMBEDDED):
        load_policy("smolvla-tabeltop")
    shutil.copytree(EMBEDDED_FOLDER, tmp_path / "p")
    (tmp_path / "p" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        load_policy(str(tmp_path / "p"))


def test_what_does_not_fit_the_suite_is_said_in_one_line(tmp_path):
    def variant(**changes):
        folder = tmp_path / "-".join(changes)
        shutil.copytree(EMBEDDED_FOLDER, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))
        return str(folder)

    with pytest.raises(UserError, match="type 'act'; supported: smolvla"):
        load_policy(variant(type="act"))
    camera = {"observation.images.camera1": {"type": "VISUAL", "shape": [3, 64, 64]}}
    with pytest.raises(UserError, match="camera1"):
        load_policy(variant(input_features=camera))
    lonely = variant(vlm_model_name="nobody/nothing-here")
    shutil.rmtree(f"{lonely}/vlm")
    with pytest.raises(UserError, match="its VLM 'nobody/nothing-here' cannot be loaded"):
        load_policy(lonely)

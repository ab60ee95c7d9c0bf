"""Which policy is the base: said, and never guessed in silence."""

import pytest

from analysis.base_policy import base_policy
from analysis.tables import read_episodes
from traces.errors import UnknownName, UserError

CHECKPOINT = "runs/a/checkpoints/000040/pretrained_model"


@pytest.fixture
def policies(traces, tmp_path):
    def made(*policies):
        arm = [traces.episode("p0", [1.0])]
        return [
            traces.write(
                tmp_path / f"{i}.h5", arm, sha256=sha * 32, policy_path=path, created_utc=when
            )
            for i, (sha, path, when) in enumerate(policies)
        ]

    return made


def test_the_only_one_that_is_no_checkpoint(policies):
    frame = read_episodes(policies(("aa", CHECKPOINT, "2025"), ("bb", "smolvla", "2026"))).frame
    notes = []
    assert base_policy(frame, notes=notes) == "bb" * 32
    assert notes == [
        "the base is smolvla@bbbbbbbb, the only policy that is no checkpoint of a training run; "
        "another one: --base NAME"
    ]


def test_else_the_oldest(policies):
    frame = read_episodes(policies(("aa", "one", "2026"), ("bb", "two", "2025"))).frame
    notes = []
    assert base_policy(frame, notes=notes) == "bb" * 32
    assert "the policy of the oldest recording" in notes[0]


def test_one_policy_needs_no_sentence(policies):
    notes = []
    assert base_policy(read_episodes(policies(("aa", "x", ""))).frame, notes=notes) == "aa" * 32
    assert notes == []
    assert base_policy(read_episodes([]).frame) == ""


@pytest.mark.parametrize("wanted", ["two", "two@bbbbbbbb", "models/two", "models/two/", "b" * 8])
def test_by_name_hash_or_path(wanted, policies):
    frame = read_episodes(policies(("aa", "models/one", ""), ("bb", "models/two", ""))).frame
    assert base_policy(frame, wanted) == "bb" * 32


def test_by_a_trace_of_it(policies):
    files = policies(("aa", "models/one", ""), ("bb", "models/two", ""))
    assert base_policy(read_episodes(files).frame, str(files[1])) == "bb" * 32


def test_what_nobody_is_called_and_what_several_are(policies):
    files = policies(("aa", "a/model", ""), ("bb", "b/model", ""))
    frame = read_episodes(files).frame
    with pytest.raises(UnknownName, match="model@aaaaaaaa"):
        base_policy(frame, "smolvla")
    with pytest.raises(UserError, match="several policies match"):
        base_policy(frame, "model")
    with pytest.raises(UnknownName):
        base_policy(read_episodes(files[:1]).frame, str(files[1]))


def test_training_names_its_policies_by_run_and_update(traces, tmp_path):
    """Weights of an update are on no disk: without this all of them would be one policy."""
    for run in ("a", "b"):
        arm = [traces.episode(f"{run}", [1.0])]
        traces.write(tmp_path / f"{run}.h5", arm, sha256="", policy_path="", kind="grpo")
    frame = read_episodes([tmp_path]).frame
    assert frame["policy"].to_list() == ["a update 0", "b update 0"]
    assert base_policy(frame) == ""  # none of them is asked

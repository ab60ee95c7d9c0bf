"""The folder of a run: going on where it stopped."""

import json

import pytest

from engine.config import RecordConfig
from engine.runs import new_run, stopped_run
from traces.condition import BASELINE, Condition
from traces.errors import FileExists, UserError
from traces.events import EventWriter
from traces.intervention import Intervention, Site

FAST = Intervention("fast", "overwrite", (Site("vlm", 1, (1, 2)),), 8.0, provenance={"hits": 4})
CONFIG = RecordConfig(episodes=3, capture=("light", "vlm.1.ffn_act"), keep=("frames",))
ARMS = [BASELINE, Condition(FAST), Condition(prompt="{} quickly")]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_was_asked_for_comes_back_equal(here):
    folder = new_run("one", CONFIG, ARMS)
    with EventWriter(folder / "events.jsonl") as events:
        events.emit("run_start", policy_sha256="ab")
        (here / "there.h5").touch()
        events.emit("condition", name="baseline", files=["there.h5"])
        events.emit("condition", name="fast α=8", files=["gone.h5"])
    stopped = stopped_run("one")
    assert (stopped.config, stopped.conditions) == (CONFIG, ARMS)
    assert stopped.conditions[1].intervention.provenance == {"hits": 4}
    assert list(stopped.finished) == ["baseline"]
    assert stopped.policy_sha256 == "ab"


def test_a_run_that_is_there_is_not_begun_again():
    new_run("one", CONFIG, ARMS)
    with pytest.raises(FileExists):
        new_run("one", CONFIG, ARMS)


def test_conditions_that_cannot_be_told_apart_are_refused(here):
    with pytest.raises(UserError, match="two conditions are called 'baseline'"):
        new_run("one", CONFIG, [BASELINE, BASELINE])
    assert not (here / "runs").exists()


def test_a_run_that_is_not_there_names_those_that_are():
    new_run("one", CONFIG, ARMS)
    with pytest.raises(UserError, match=r"no run .two.*runs there are: one"):
        stopped_run("two")


@pytest.mark.parametrize("content", ["[]", "{", json.dumps([{"prompt": "{}"}])])
def test_a_damaged_run_is_one_sentence(content):
    folder = new_run("one", CONFIG, ARMS)
    (folder / "conditions.json").write_text(content)
    if content == "[]":
        assert stopped_run("one").conditions == []
    else:
        with pytest.raises(UserError, match="damaged"):
            stopped_run("one")

"""`vla-trace neurons` and `vla-trace cluster` as typed, on the shipped policy."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from analysis.clusters import places_of
from traces.intervention import Intervention
from tui.cli import run

RECORDED = Path(__file__).parents[1] / "tui" / "recorded" / "traces"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for all: the table is made by whoever comes first."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, cache):
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.json").write_text("precious")
    (tmp_path / "far.yaml").write_text("far: [999999]\nnear: [5, 2303]")
    (tmp_path / "words.toml").write_text('kitchen = ["plate", "soap", "mug"]')
    return tmp_path


def said(capsys, *arguments):
    assert run(arguments) == 0
    return capsys.readouterr()


BAD = {
    "neurons nowhere": "config.json",
    "neurons --layers 0-9": "no layer 6; this policy has 0-5",
    "neurons --layers 3-1": "expected layers such as 0-3",
    "neurons --concept fasst": "did you mean fast",
    "neurons --against slow": "add --concept",
    "neurons --sort top_tokens": "unknown column of numbers",
    "neurons --tower expert": "never reads",
    "neurons --tower arm": "expected vlm",
    "neurons --token-norm l1": "available: l2, none",
    "neurons --lexicon no.yaml": "no such file",
    "neurons --parquet there.json": "add --force",
    "neurons --parquet no/x.parquet": "no such folder",
    "neurons --json --csv": "choose one",
    "neurons --traces no.h5": "no trace files match",
    "neurons a b": "unexpected argument 'b'",
    "neurons --top 0": "--top",
    "cluster": "needs a concept",
    "cluster fasst": "did you mean fast",
    "cluster close": "concepts it has: fast",
    "cluster fast --layer 5": "cannot change the action",
    "cluster fast --layer 50": "no layer 50",
    "cluster fast --size 0": "holds 1 to 384",
    "cluster fast --size 400": "holds 1 to 384",
    "cluster fast --neuron 3": "expected LAYER:NEURON",
    "cluster fast --neuron 3:999": "no neuron 3:999",
    "cluster fast --neuron 3:9 --layer 2": "is not in --layer 2",
    "cluster fast --neuron 5:1": "cannot change the action",
    "cluster fast --accept 1:2 --reject 1:2": "both wanted and rejected",
    "cluster fast --by magic": "neighbours, score",
    "cluster fast --alpha nan": "coefficient",
    "cluster fast -o there.json": "add --force",
    "cluster fast -o no/x.json": "no such folder",
    "cluster --import far.yaml": "choose one: --name",
    "cluster --import far.yaml --name far": "0 to 2303",
    "cluster --import far.yaml --name farr": "did you mean far",
    "cluster --import no.yaml": "no such file",
    "cluster fast --import far.yaml": "as it is",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_and_exit_2(line, here, capsys):
    before = sorted(here.iterdir())
    code = run(line.split())
    out, err = capsys.readouterr()
    lines = [text for text in err.splitlines() if not text.startswith("reading")]
    assert (code, out, len(lines)) == (2, "", 1)
    assert lines[0].startswith("error: ")
    assert BAD[line] in lines[0]
    assert sorted(here.iterdir()) == before
    assert (here / "there.json").read_text() == "precious"


def test_neurons_for_people(capsys):
    out, err = said(capsys, "neurons", "--concept", "fast", "--top", "3", "--layers", "1-2")
    header, *rows = out.splitlines()
    assert header.split() == "neuron reach norm entropy hits against score top tokens".split()
    assert [row.split()[0][:2] for row in rows] == ["1:"] * 3
    assert "lm_head: in the checkpoint, not tied" in err
    assert "of 512 random directions" in err


def test_neurons_as_json(capsys):
    out, _ = said(capsys, "neurons", "--json", "--search", "red", "--lexicon", "words.toml")
    found = json.loads(out)
    assert (found["schema"], found["layers"], found["token_norm"]) == (1, 6, "l2")
    assert found["lm_head"]["in_checkpoint"] is True
    for row in found["neurons"]:
        assert row["top_tokens"][row["word_rank"] - 1] == " red"
        kitchen = {" plate", " soap", " mug"} & set(row["top_tokens"])
        assert row["hits_kitchen"] == len(kitchen)
    logits = [row["word_logit"] for row in found["neurons"]]
    assert len(logits) > 10
    assert logits == sorted(logits, reverse=True)


def test_neurons_as_csv_and_parquet(capsys, here):
    out, _ = said(capsys, "neurons", "--csv", "--layers", "0", "--sort", "-v_norm")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 384
    assert len(json.loads(rows[0]["top_tokens"])) == 30
    assert float(rows[0]["v_norm"]) < float(rows[-1]["v_norm"])
    out, _ = said(capsys, "neurons", "--parquet", "x.parquet", "--fold-norm", "--top", "5")
    assert out == "x.parquet\n"
    found = pl.read_parquet(here / "x.parquet")
    assert len(found) == 5
    assert found["embedding"].to_numpy().shape == (5, 128)


def test_nothing_found_is_an_answer(capsys):
    out, err = said(capsys, "neurons", "--search", "redd", "--json")
    assert json.loads(out)["neurons"] == []
    assert "no neuron has 'redd' among its top tokens; near: red" in err


def test_traces_add_how_they_fired(capsys, loaded):
    files = sorted(map(str, RECORDED.glob("*.h5")))
    out, err = said(capsys, "neurons", "--traces", *files, "--layers", "1", "--json")
    row = json.loads(out)["neurons"][0]
    assert row["act_std"] > 0
    assert -1 <= row["speed_r"] <= 1
    assert "steered recordings left out" in err


def test_a_cached_table_needs_no_torch(capsys):
    said(capsys, "neurons", "--top", "1")
    for line in (["neurons", "--top", "1"], ["cluster", "fast", "--json"]):
        code = f"import sys; from tui.cli import run; run({line}); sys.exit('torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_cluster_is_printed_and_saved(capsys, here):
    out, err = said(capsys, "cluster", "fast", "--layer", "3", "--size", "4", "-o", "fast.json")
    header, *rows = out.splitlines()
    assert header.split()[:3] == ["neuron", "hits", "against"]
    assert len(rows) == 4
    saved = Intervention.from_json((here / "fast.json").read_text())
    assert [row.split()[0] for row in rows] == saved.provenance["neurons"]
    assert f"4 steered neurons, the source {saved.provenance['neurons'][0]} included" in err
    assert (saved.provenance["token_norm"], saved.provenance["fold_norm"]) == ("l2", False)
    said(capsys, "cluster", "slow", "-o", "fast.json", "--force")
    assert Intervention.from_json((here / "fast.json").read_text()).name == "slow"


def test_by_hand(capsys):
    choice = ["--accept", "1:61,1:62", "--reject", "0:226", "--size", "5", "--across", "--json"]
    found = json.loads(said(capsys, "cluster", "fast", *choice).out)
    provenance = found["intervention"]["provenance"]
    assert (provenance["accepted"], provenance["rejected"]) == (["1:61", "1:62"], ["0:226"])
    places = [(row["layer"], row["neuron"]) for row in found["members"]]
    assert len(places) == 5
    assert {(1, 61), (1, 62)} < set(places)
    assert (0, 226) not in places


def test_through_yaml_and_back(capsys, here):
    said(
        capsys,
        "cluster",
        "--neuron",
        "2:353",
        "--size",
        "3",
        "--name",
        "mine",
        "--export",
        "x.yaml",
    )
    said(capsys, "cluster", "--import", "x.yaml", "-o", "back.json", "--alpha", "4")
    back = Intervention.from_json((here / "back.json").read_text())
    assert (back.name, back.coefficient) == ("mine", 4.0)
    assert places_of(back)[0] == (2, 353)
    assert back.neuron_count == 3
    err = said(capsys, "cluster", "--import", "far.yaml", "--name", "near").err
    assert "1 of them, in layer 5, cannot change the action" in err

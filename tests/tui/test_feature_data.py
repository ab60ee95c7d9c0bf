"""The data of the list of features: tables as columns, filters, autoencoders in a folder."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from traces.errors import UserError
from traces.intervention import Intervention
from tui import cli
from tui.data.feature_filter import matching, parse, signal_of
from tui.data.feature_sources import feature_sources
from tui.data.feature_table import draft_feature, read_card, read_features


def beside(name):
    path = Path(__file__).parent / "golden" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tui_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


made = beside("feature_scenes")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return made.describe(made.write_autoencoder(), made.peaks(0, ["a", "b"]))


@pytest.fixture
def features(folder):
    return read_features(folder)


def rows(features, text):
    terms, trouble = parse(text)
    assert not trouble
    return matching(features, terms).tolist()


def test_columns_are_those_of_the_tables(features):
    assert features.feature.tolist() == list(range(6))
    assert [features.labels[i] for i in features.label] == [label for label, *_ in made.FEATURES]
    np.testing.assert_allclose(features.coverage, [1, 1, 5 / 6, 0, 1 / 3, 1 / 2])
    np.testing.assert_array_equal(features.onsets, [1.5, np.nan, 2, np.nan, 1, np.nan])
    assert features.follows.episodes[0].tolist() == [6, 6, 5, 0, 2, 3]


def test_the_strongest_signal_is_one_that_it_follows_and_never_the_clock(features):
    strongest = [features.signal(row) for row in range(6)]
    names = [features.follows.names[i] if i >= 0 else "" for i in strongest]
    # 0: -.80 is explained by other episodes; 5: .99 has no p, the others are .12 of speed's rivals
    assert names[:5] == ["speed", "moves z", "speed", "", "phase contact"]
    assert names[5] not in ("speed", "time", "")
    np.testing.assert_allclose(features.numbers("r")[:3], [0.61, -0.44, -0.35], rtol=1e-6)
    assert np.isnan(features.numbers("p")[made.SILENT])
    np.testing.assert_allclose(features.numbers("r", "closing")[0], 0.30, rtol=1e-6)


def test_what_filters_keep(features):
    assert rows(features, "") == list(range(6))
    assert rows(features, "label:general") == rows(features, "label=general") == [0, 2]
    assert rows(features, "!label=memorised") == [0, 2, 3]
    assert rows(features, "signal:speed") == [0, 2]
    assert rows(features, "signal:speed r<0") == [2]
    assert rows(features, "signal:phase-contact") == []
    assert rows(features, "signal=moves-z p<0.001") == [1]
    assert rows(features, "coverage>0.5") == [0, 1, 2]
    assert rows(features, "onsets>=1.5 feature=0-1") == [0]
    assert rows(features, "peak>0.1 !signal:speed") == [4]
    assert rows(features, "contact") == [4]  # of its strongest signal
    assert rows(features, "memo contact") == [4]
    assert rows(features, "onsets<100") == [0, 2, 4]  # what is unknown satisfies nothing


def test_a_word_that_cannot_be_read_says_what_there_is():
    assert "unknown column 'colour'" in parse("colour:red")[1]
    assert parse("label:blue")[1] == "label=blue: expected label=general|memorised|silent"
    assert "coverage and a number" in parse("coverage~x")[1]
    for typing in ("label:", "label:gen", "signal:sp", "coverage>", "coverage>0.", ""):
        assert parse(typing) == ((), "")
    assert signal_of(parse("signal:moves-x")[0]) == "moves x"
    assert signal_of(parse("!signal:moves-x")[0]) == ""


def test_the_card_has_every_signal_and_the_episodes(folder):
    card = read_card(folder, 0)
    assert [row["signal"] for row in card.signals[:3]] == ["time", "phase contact", "speed"]
    assert len(card.signals) == 11
    assert [(row["uid"], row["step"]) for row in card.top] == [("a", 12), ("b", 17)]
    assert read_card(folder, made.SILENT).top == ()


def test_the_intervention_is_that_of_sae_steer(folder, capsys):
    for way in ("add", "project_out", "set", "scale"):
        command = ["sae", "steer", str(folder), "--feature", "2", "--way", way]
        assert cli.run(command) == 0
        expected = Intervention.from_json(capsys.readouterr().out).with_coefficient(2.0)
        assert draft_feature(folder, Path(), 2, way, 2.0) == expected
    with pytest.raises(UserError, match="active in no recorded episode"):
        draft_feature(folder, Path(), made.SILENT, "add", 1.0)


def test_an_autoencoder_outside_of_home_is_named_in_full(folder, tmp_path):
    inside = tmp_path / "elsewhere"
    inside.mkdir()
    drafted = draft_feature(folder, inside, 2, "set", 1.0)
    assert drafted.sae == str(tmp_path / folder)


def test_autoencoders_are_found_where_train_puts_them(folder, tmp_path):
    (found,) = feature_sources(Path())
    assert (found.folder, found.stamp is not None) == (folder, True)
    for name in ("runs", "traces"):
        (tmp_path / name).mkdir()
        (found,) = feature_sources(Path())  # sae/ beside them
        assert found.name == f"{made.SITE}/seed0"
        (found,) = feature_sources(tmp_path / name)
        assert found.folder.resolve() == (tmp_path / folder).resolve()
    other = made.write_autoencoder(Path("runs/own"))
    assert [source.folder for source in feature_sources(Path("runs"))][1:] == [other]
    made.write_autoencoder(folder.with_name("seed1"), "ab" * 32)
    described, bare = feature_sources(Path())
    assert (described.folder, bare.stamp, bare.policy_sha256) == (folder, None, "ab" * 32)
    (bare.folder / "cfg.json").write_text("nothing")
    assert feature_sources(Path())[1].policy_sha256 == ""


@pytest.mark.parametrize("name", ["coverage", "signals"])
def test_damaged_tables_are_one_sentence_with_the_command(folder, name):
    (folder / f"features_{name}.parquet").write_bytes(b"nothing")
    with pytest.raises(UserError, match="describe them again: vla-trace sae features"):
        read_features(folder)
    with pytest.raises(UserError, match="describe them again"):
        read_card(folder, 0)


def test_columns_that_are_gone_are_no_traceback(folder):
    pl.DataFrame({"feature": [0]}).write_parquet(folder / "features_signals.parquet")
    with pytest.raises(UserError, match="describe them again"):
        read_features(folder)
    made.describe(folder)
    (folder / "features.json").write_text(json.dumps([1]))
    with pytest.raises(UserError, match="describe them again"):
        read_features(folder)

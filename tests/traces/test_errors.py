import pickle

import pytest

from traces import errors

ALL_USER_ERRORS = [
    errors.MissingFile("/nowhere/at/all.h5"),
    errors.NoFilesMatch("*.h5"),
    errors.FileExists("a.h5"),
    errors.UnwritableFolder("/proc"),
    errors.DiskFull("a.h5", 70_000_000, 1_000_000),
    errors.WriteFailed("a.h5.partial", "file write failed"),
    errors.NotATrace("a.h5", "it is not an HDF5 file"),
    errors.NewerFormat("a.h5", 2, 1),
    errors.DifferentTraces("a.h5", 8.0, "b.h5", 4.0, "the dose"),
    errors.UnknownName("task", "lfit", ["lift", "push"]),
    errors.MissingExtra("torch", "engine"),
    errors.BadIntervention("sites", [], "at least one site"),
    errors.TextTooLong("episodes/uid", "x" * 200, 96),
]


def test_every_user_error_is_covered_here():
    here = {e for e in errors.UserError.__subclasses__() if e.__module__ == errors.__name__}
    assert {type(e) for e in ALL_USER_ERRORS} == here


@pytest.mark.parametrize("error", ALL_USER_ERRORS, ids=lambda e: type(e).__name__)
def test_errors_cross_process_borders_with_their_facts(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_the_docstring_draws_the_whole_tree():
    for error in ALL_USER_ERRORS:
        assert f"── {type(error).__name__} " in errors.__doc__


def test_control_characters_are_escaped_and_letters_kept():
    message = str(errors.NotATrace("Bär\x1b[2J\n\udc80.h5", "bad"))
    assert message == "Bär\\x1b[2J\\n\\udc80.h5 is not a readable trace: bad"


def test_of_a_long_text_the_beginning_is_shown():
    assert errors.shown("x" * errors.LONGEST) == "x" * errors.LONGEST
    assert errors.shown("\n" * 10**7) == "\\n" * errors.LONGEST + "…"


def test_unknown_name_offers_near_matches_then_all_names():
    error = errors.UnknownName("operator", "Overwrit", ["scale", "overwrite"])
    assert str(error) == (
        "unknown operator 'Overwrit'; did you mean overwrite? available: overwrite, scale"
    )
    assert error.available == ("overwrite", "scale")


def test_unknown_name_without_near_match_and_with_many_names():
    error = errors.UnknownName("site", "zzz", [f"vlm.{i:02d}" for i in range(40)])
    assert str(error).endswith("vlm.11 and 28 more")
    assert str(errors.UnknownName("site", "x", [])) == "unknown site 'x'; there are none here"


def test_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "steered.h5").touch()
    assert "did you mean steered.h5?" in str(errors.MissingFile(tmp_path / "stered.h5"))
    assert "does not exist either" in str(errors.MissingFile(tmp_path / "no" / "a.h5"))


def test_messages_name_the_command_that_mends_it():
    assert "pip install 'vla-trace[engine]'" in str(errors.MissingExtra("torch", "engine"))
    assert "pip install --upgrade vla-trace" in str(errors.NewerFormat("a.h5", 2, 1))

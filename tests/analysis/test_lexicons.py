import json

import pytest

from analysis.lexicons import LEXICONS, OPPOSITES, lexicon_of, opposite_of, read_lexicons
from traces.errors import MissingFile, UnknownName, UserError


def test_lexicons_are_words_and_opposites_share_none():
    wanted = {"fast", "slow", "up", "down", "left", "right", "open", "close", "careful"}
    assert set(LEXICONS) == wanted == set(OPPOSITES)
    for words in LEXICONS.values():
        assert len(words) >= 10
        assert all(word.isalpha() and word == word.lower() for word in words)
    for one, other in OPPOSITES.items():
        assert not LEXICONS[one] & LEXICONS[other]


def test_opposites():
    assert opposite_of("careful") == "fast"
    assert opposite_of("fast", against="up") == "up"
    assert opposite_of("mine", {"mine": frozenset({"x"})}) == ""
    assert opposite_of("fast", {"fast": frozenset({"x"})}) == ""  # its opposite has no words here
    with pytest.raises(UnknownName):
        opposite_of("fast", against="nothing")
    with pytest.raises(UnknownName, match="did you mean slow"):
        lexicon_of("slwo")


WANTED = {"gentle": frozenset({"soft", "mild"}), "lamp": frozenset({"on", "off", "1"})}
FORMATS = {
    "mine.yaml": "gentle: [Soft, mild]\nlamp: on off 1\n",
    "mine.yml": "gentle: soft mild\nlamp:\n- on\n- off\n- 1\n",
    "mine.toml": 'gentle = ["soft", "mild"]\nlamp = "on off 1"\n',
    "mine.json": json.dumps({"gentle": ["soft", "mild"], "lamp": ["on", "off", "1"]}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_three_formats_say_the_same(name, tmp_path):
    """In YAML `on` and `off` are words here, not truth values."""
    (tmp_path / name).write_text(FORMATS[name])
    assert read_lexicons(tmp_path / name) == WANTED


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.txt", "x: [y]", "ends in .yaml, .yml, .toml, .json"),
        ("a.yaml", "x: [y", "is not YAML"),
        ("a.yaml", "- x\n- y", "names with what belongs"),
        ("a.yaml", "", "names with what belongs"),
        ("a.yaml", "x: {y: z}", "should be a list of words"),
        ("a.yaml", "x: [pick up]", "single words only"),
        ("a.yaml", "x: []", "'x' has no words"),
        ("a.toml", "x = 1", "should be a list of words"),
        ("a.toml", "x = ", "is not TOML"),
        ("a.json", "[" * 100_000, "is not JSON"),
        ("a.yaml", "? {a: b}\n: c", "is not YAML"),
        ("a.yaml", b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_bad_files_are_one_line(name, text, says, tmp_path):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=says) as caught:
        read_lexicons(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_no_such_file_offers_its_neighbour(tmp_path):
    (tmp_path / "words.yaml").write_text("x: y")
    with pytest.raises(MissingFile, match=r"words\.yaml"):
        read_lexicons(tmp_path / "word.yaml")

"""Concepts as words: those shipped, and a person's own from a file."""

from collections.abc import Mapping
from pathlib import Path

from analysis.mapping_file import read_mapping
from traces.errors import UnknownName, UserError

Lexicons = Mapping[str, frozenset[str]]

LEXICONS: dict[str, frozenset[str]] = {
    concept: frozenset(words.split())
    for concept, words in {
        "fast": """fast faster fastest quick quicker quickly rapid rapidly swift swiftly speedy
            speed speedily hurry hurriedly hasty hastily brisk briskly prompt promptly rush rushing
            sprint instantly immediately urgently""",
        "slow": """slow slower slowest slowly slowing sluggish sluggishly leisurely unhurried
            unhurriedly gradual gradually calmly patiently crawl lazily plodding dawdle""",
        "up": """up upward upwards above higher high raise raised raising rise rising lift lifted
            lifting top ascend elevate""",
        "down": """down downward downwards below lower lowered lowering low drop descend sink fall
            falling bottom beneath""",
        "left": """left leftward leftwards leftmost lefthand lefty port larboard west
            westward western counterclockwise anticlockwise""",
        "right": """right rightward rightwards rightmost righthand righty starboard east eastward
            eastern clockwise""",
        "open": """open opens opened opening reopen unlock unlocked unfold uncover unseal unclasp
            release ajar""",
        "close": """close closes closed closing shut shuts shutting seal sealed lock locked fasten
            clasp""",
        "careful": """careful carefully caution cautious cautiously gentle gently gingerly delicate
            delicately soft softly tenderly precise precisely""",
    }.items()
}
"""Concept -> lower-case single words that count as a hit."""

OPPOSITES = {
    "fast": "slow",
    "slow": "fast",
    "up": "down",
    "down": "up",
    "left": "right",
    "right": "left",
    "open": "close",
    "close": "open",
    "careful": "fast",
}
"""Concept -> the one whose words count against it."""


def read_lexicons(path: Path | str) -> dict[str, frozenset[str]]:
    """Read concepts from YAML, TOML or JSON: each a list of words, or one string of them.

    Raises:
        UserError: the file is none of these, or a concept has no words.
    """
    return {concept: _words(path, concept, given) for concept, given in read_mapping(path).items()}


def lexicon_of(concept: str, lexicons: Lexicons = LEXICONS) -> frozenset[str]:
    """Return the words of a concept.

    Raises:
        UnknownName: there is no such concept.
    """
    if concept not in lexicons:
        raise UnknownName("concept", concept, lexicons)
    return lexicons[concept]


def opposite_of(concept: str, lexicons: Lexicons = LEXICONS, against: str | None = None) -> str:
    """Return the concept whose words count against one, "" where there is none.

    Args:
        concept: a key of `lexicons`.
        lexicons: concept to words.
        against: chosen by hand; otherwise the one of `OPPOSITES`.
    """
    if against:
        lexicon_of(against, lexicons)
        return against
    return OPPOSITES[concept] if OPPOSITES.get(concept) in lexicons else ""


def _words(path: Path | str, concept: str, given: object) -> frozenset[str]:
    words = given.split() if isinstance(given, str) else given
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UserError(f"{path}: '{concept}' should be a list of words, such as [quick, rapid]")
    for word in words:
        if len(word.split()) != 1:
            raise UserError(f"{path}: '{concept}' holds '{word}'; tokens match single words only")
    if not words:
        raise UserError(f"{path}: '{concept}' has no words")
    return frozenset(word.strip().lower() for word in words)

"""The words that `smolvla-tabletop` knows, and its tokenizer.

Speed synonyms come in three classes. Motion words name what the hand is doing; they are never in an
instruction, the language loss asks for them. The rest fills the vocabulary, as in a real one: most
tokens have nothing to do with the task.
"""

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

SPEED_WORDS = {
    "fast": (
        "quickly fast rapidly swiftly hastily speedily briskly promptly hurriedly immediately "
        "urgently instantly rushing"
    ).split(),
    "slow": (
        "slowly gently gradually calmly leisurely cautiously softly patiently unhurriedly "
        "lazily sluggishly delicately carefully"
    ).split(),
    "normal": "normally ordinarily usually typically regularly moderately".split(),
}

MOTION_WORDS = {
    "left": "left leftward leftwards".split(),
    "right": "right rightward rightwards".split(),
    "forward": "forward near closer toward".split(),
    "back": "back backward away far".split(),
    "up": "up upward raise lift rise".split(),
    "down": "down downward lower descend drop".split(),
    "close": "close grasp grip hold squeeze".split(),
    "open": "open release free".split(),
}

TASK_WORDS = (
    "pick up the red green blue cube push to purple zone put in bowl and then on of a it"
).split()

OTHER_WORDS = (
    "robot arm hand finger table plate cup mug drawer door handle stove pot pan spoon "
    "fork knife bottle can box ball block brick ring bread apple banana orange lemon pear "
    "milk soup sauce cheese butter juice tea coffee water sugar salt kitchen room wall "
    "floor shelf basket tray towel sponge soap book pen paper lamp chair sofa window key "
    "lock button switch yellow white black brown pink grey silver golden dark bright big "
    "small long short round square heavy light hard wet dry clean dirty hot cold new old "
    "full empty one two three four five first second last next turn pour wipe stir fold "
    "cut wash cook eat drink see look find keep give take make go come stay stop begin "
    "end is are was be been has have will not no yes or but if when while where what "
    "which who how why this that these those here there with without from into over under "
    "between behind beside before after again also only just very too more less most "
    "least all some any each other same different good bad true false please now"
).split()

SPECIAL_TOKENS = (
    "<pad>",
    "<unk>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
)


def vocabulary() -> list[str]:
    """Raw pieces in id order: special tokens, the newline, then `Ġword` for every word."""
    groups = [TASK_WORDS, *SPEED_WORDS.values(), *MOTION_WORDS.values(), OTHER_WORDS]
    words = dict.fromkeys(word for group in groups for word in group)
    return [*SPECIAL_TOKENS, "Ċ", *(f"Ġ{word}" for word in words)]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer whose every word is one token, with SmolLM's piece conventions."""
    pieces = vocabulary()
    core = Tokenizer(WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
    )

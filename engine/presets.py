"""What to record inside a policy: presets, the grammar of `--capture`, and what it costs.

A site is written TOWER.LAYER.KIND, with options after a colon:

    vlm.3.ffn_act                       mean over valid prefix tokens, once a decision
    vlm.3.ffn_act:tokens=language       mean over the instruction's tokens
    vlm.*.resid_post:keep=each          every layer, token by token (padding is NaN)
    expert.2.ffn_act:denoise=0-2        mean over executed action tokens and the first two steps
    expert.2.ffn_act:tokens=chunk,keep=each,dtype=float32
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lerobot.policies.pretrained import PreTrainedPolicy

from engine import sites
from traces.errors import UnknownName, UserError

KINDS = ("ffn_act", "resid_post")
TOKENS = {"vlm": ("all", "image", "language", "state"), "expert": ("executed", "chunk")}
KEEPS = ("mean", "each")
DTYPES = ("float16", "float32")
OPTIONS = ("tokens", "keep", "denoise", "dtype")
PRESETS = {
    "light": ("vlm.*.resid_post",),
    "standard": ("vlm.*.ffn_act", "vlm.*.resid_post", "expert.*.ffn_act"),
    "full": (
        "vlm.*.ffn_act:keep=each",
        "vlm.*.resid_post:keep=each",
        "expert.*.ffn_act:tokens=chunk,keep=each",
    ),
}
"""Each also records steered neurons, token by token."""
_SITE = re.compile(r"(?P<tower>\w+)\.(?P<layer>\d+|\*)\.(?P<kind>\w+)(?::(?P<options>.+))?")


@dataclass(frozen=True)
class Spec:
    """One thing to record."""

    tower: str
    layer: int
    kind: str
    tokens: str
    keep: str = "mean"
    """mean over the tokens, or each of them; of the expert also over, or of, the denoising steps"""
    denoise: tuple[int, int] | None = None
    """Denoising steps [start, stop); None: all, and for the VLM, which runs once."""
    dtype: str = "float16"

    @property
    def name(self) -> str:
        """Site name: what is not the default is part of it."""
        short = "exp" if self.tower == "expert" else self.tower
        parts = [short, str(self.layer), self.kind]
        parts += [self.tokens] if self.tokens != TOKENS[self.tower][0] else []
        parts += [self.keep] if self.keep != "mean" else []
        parts += [f"denoise{self.denoise[0]}-{self.denoise[1]}"] if self.denoise else []
        return ".".join(parts)


def chosen(policy: PreTrainedPolicy, wanted: Sequence[str]) -> list[Spec]:
    """Resolve presets and sites, in order, each once.

    Raises:
        UserError: a name that does not exist, an option that the tower does not have, a layer or
            a denoising step that the policy does not have.
    """
    specs = [
        spec
        for text in wanted
        for site in PRESETS.get(text, (text,))
        for spec in _read(policy, site)
    ]
    unique: dict[str, Spec] = {}
    for spec in specs:
        if unique.setdefault(spec.name, spec) != spec:
            raise UserError(f"{spec.name} is wanted as float16 and as float32; choose one")
    return list(unique.values())


def _read(policy: PreTrainedPolicy, text: str) -> list[Spec]:
    match = _SITE.fullmatch(text)
    if match is None:
        raise UserError(
            f"--capture {text!r}: expected {', '.join(PRESETS)}, or a site such as "
            "vlm.3.ffn_act:tokens=language"
        )
    tower = {"exp": "expert"}.get(match["tower"], match["tower"])
    if tower not in TOKENS:
        raise UnknownName("tower", tower, TOKENS)
    if match["kind"] not in KINDS:
        raise UnknownName("kind of site", match["kind"], KINDS)
    n_layers = len(sites.layers(policy, tower))
    layers = range(n_layers) if match["layer"] == "*" else [int(match["layer"])]
    if layers[-1] >= n_layers:
        raise UserError(f"{text}: the {tower} has layers 0 to {n_layers - 1}")
    spec = Spec(tower, 0, match["kind"], TOKENS[tower][0])
    for option in (match["options"] or "").split(",") if match["options"] else ():
        spec = _with(spec, option, text, sites.denoise_steps(policy))
    return [replace(spec, layer=layer) for layer in layers]


def _with(spec: Spec, option: str, text: str, steps: int) -> Spec:
    name, _, value = option.partition("=")
    if name not in OPTIONS:
        raise UnknownName(f"option of {text.partition(':')[0]}", name, OPTIONS)
    if name == "denoise":
        window = re.fullmatch(r"(\d+)-(\d+)", value)
        if spec.tower != "expert":
            raise UserError(f"{text}: the vlm runs once a decision; only the expert has denoise=")
        if not window or not 0 <= int(window[1]) < int(window[2]) <= steps:
            raise UserError(f"{text}: denoise={value}: expected START-STOP within 0-{steps}")
        return replace(spec, denoise=(int(window[1]), int(window[2])))
    allowed = {"tokens": TOKENS[spec.tower], "keep": KEEPS, "dtype": DTYPES}[name]
    if value not in allowed:
        raise UnknownName(f"{name} of {text.partition(':')[0]}", value, allowed)
    return replace(spec, **{name: value})

"""The intervention contract: what is changed inside the policy, where, when and how much.

`analysis` chooses neurons and writes one, `engine` applies it, and the trace stores it.  It is
plain data: frozen dataclasses which become JSON and come back equal.

With h the activation of a neuron of a feed-forward block, c the coefficient, v the neuron's entry
of `Site.vector` (1 where that is empty; typically the neuron's root mean square or its standard
deviation, so that c counts in those) and m its entry of `Site.offset` (0 where that is empty;
typically its mean):

    overwrite       h <- m + c v         zero_ablation   h <- 0
    add             h <- h + c v         mean_ablation   h <- v        (v is the neuron's mean)
    scale           h <- c h             clamp           h <- min(max(h, m - |c v|), m + |c v|)
    patch           h <- donor's h       clamp_min       h <- max(h, m + c v)
                                         clamp_max       h <- min(h, m + c v)

and with x the residual stream after the layer, d the direction in `Site.vector` and u = d / |d|:

    add_direction   x <- x + c d         project_out     x <- x - c (u . x) u

and with z the features that a sparse autoencoder reads from x (or from h), D its decoder and f one
of the features in `Site.neurons`:

    sae_set         x <- x + (c v_f - z_f) D_f    sae_scale   x <- x + (c - 1) z_f D_f
    sae_splice      x <- x + c (x^ - x)           x^ being its reconstruction

in the scale that x has (see `traces.autoencoder`). An autoencoder of means over tokens reads the
mean of the tokens it acts on, and each of them gets the change of that mean.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import MISSING, asdict, dataclass, field, fields, replace

from traces.errors import BadIntervention, UnknownName

OFFSET_OPERATORS = ("overwrite", "clamp", "clamp_min", "clamp_max")
PLAIN_OPERATORS = ("scale", "zero_ablation", "patch")
"""Operators without a number per neuron; a site without neurons means its whole layer."""
NEURON_OPERATORS = (*OFFSET_OPERATORS, "add", "mean_ablation", *PLAIN_OPERATORS)
DIRECTION_OPERATORS = ("add_direction", "project_out")
FEATURE_OPERATORS = ("sae_set", "sae_scale")
SAE_OPERATORS = (*FEATURE_OPERATORS, "sae_splice")
OPERATORS = (*NEURON_OPERATORS, *DIRECTION_OPERATORS, *SAE_OPERATORS)
TOKEN_GROUPS = ("image", "language", "state")
KINDS = ("ffn_act", "resid_post")


@dataclass(frozen=True)
class Site:
    """A place in the network."""

    tower: str
    """"vlm" or "expert"."""
    layer: int
    neurons: tuple[int, ...] = ()
    """Hidden units of the layer's feed-forward block, empty for all of them where the operator has
    no number per neuron; numbers of features for `sae_set` and `sae_scale`."""
    vector: tuple[float, ...] = ()
    """One number per neuron, or the direction in the residual stream."""
    offset: tuple[float, ...] = ()
    """One number per neuron: what a coefficient of 0 stands for; empty: zeros."""
    kind: str = ""
    """`ffn_act` or `resid_post`, for `patch` (empty: ffn_act) and what an autoencoder does (empty:
    resid_post); others have but one place."""

    def __post_init__(self) -> None:
        _set(self, "tower", str(self.tower))
        _set(self, "layer", _whole("layer", self.layer))
        _set(self, "neurons", tuple(_whole("neurons", n) for n in self.neurons))
        _set(self, "vector", tuple(_finite("vector", v) for v in self.vector))
        _set(self, "offset", tuple(_finite("offset", v) for v in self.offset))
        if not self.tower:
            raise BadIntervention("tower", self.tower, "a tower name such as vlm or expert")
        if len(set(self.neurons)) != len(self.neurons):
            raise BadIntervention("neurons", list(self.neurons), "each neuron once")
        if self.kind and self.kind not in KINDS:
            raise UnknownName("kind of site", str(self.kind), KINDS)


@dataclass(frozen=True)
class Donor:
    """The recording whose activations `patch` puts in, decision by decision.

    It must have recorded the sites token by token, for example with
    `--capture vlm.3.ffn_act:keep=each,dtype=float32`. Where the donor has no value (a decision
    after its end, a token that is padding there) the natural one stays.
    """

    path: str
    """A trace; its first shard stands for all."""
    episodes: dict[str, str] = field(default_factory=dict, hash=False)
    """Scene seed of the patched episode, or "*" for all others, to the uid of the donor's episode.
    Where it says nothing: the donor's episode of the same scene seed and initial state."""

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise BadIntervention("donor", self.path, "the path of a trace")
        if not isinstance(self.episodes, dict):
            raise BadIntervention("donor episodes", self.episodes, "scene seeds to episode uids")
        for scene, uid in self.episodes.items():
            if not (scene == "*" or str(scene).isdecimal()) or not isinstance(uid, str):
                raise BadIntervention("donor episodes", {scene: uid}, "scene seed (or *) to a uid")


@dataclass(frozen=True)
class Intervention:
    """What is done to the activations of a policy."""

    name: str
    operator: str
    sites: tuple[Site, ...]
    coefficient: float
    token_groups: tuple[str, ...] = TOKEN_GROUPS
    """Prefix tokens it acts on; the expert's own tokens are always all addressed."""
    step_window: tuple[int, int] | None = None
    """Control steps [start, stop): it acts in decisions made at one of them; None: in all."""
    denoise_window: tuple[int, int] | None = None
    """Denoising steps [start, stop) in which it acts on the expert; None: all."""
    sae: str = ""
    """Folder of the sparse autoencoder, for `sae_set`, `sae_scale` and `sae_splice`."""
    sae_sha256: str = ""
    """Hash of it, see `Autoencoder.sha256`."""
    provenance: dict = field(default_factory=dict, hash=False)
    """Where it came from: concept, seed neuron, cluster size, distances, checkpoint hash."""
    every: int = 1
    """It acts in every n-th decision of an episode, the first one included."""
    donor: Donor | None = None
    """Where `patch` takes its values."""

    def __post_init__(self) -> None:
        _set(self, "sites", tuple(self.sites))
        _set(self, "coefficient", _finite("coefficient", self.coefficient))
        _set(self, "token_groups", tuple(self.token_groups))
        _set(self, "step_window", _window("step_window", self.step_window))
        _set(self, "denoise_window", _window("denoise_window", self.denoise_window))
        _set(self, "every", _whole("every", self.every))
        if self.every < 1:
            raise BadIntervention("every", self.every, "1 or larger")
        if self.operator not in OPERATORS:
            raise UnknownName("operator", str(self.operator), OPERATORS)
        for group in self.token_groups:
            if group not in TOKEN_GROUPS:
                raise UnknownName("token group", str(group), TOKEN_GROUPS)
        if not self.token_groups:
            raise BadIntervention("token_groups", [], "at least one token group")
        if not self.sites:
            raise BadIntervention("sites", [], "at least one site")
        places = [(site.tower, site.layer) for site in self.sites]
        if len(set(places)) != len(places):
            raise BadIntervention("sites", places, "each (tower, layer) once")
        for name in ("sae", "sae_sha256"):
            if (self.operator in SAE_OPERATORS) != bool(getattr(self, name)):
                raise BadIntervention(
                    name, getattr(self, name), "one for the sae operators and none for others"
                )
        if (self.operator == "patch") != (self.donor is not None):
            raise BadIntervention(
                "donor", self.donor, "a recording for patch and none for other operators"
            )
        for site in self.sites:
            _check_site(site, self.operator)

    @property
    def is_null_control(self) -> bool:
        """Whether it is meant to change nothing: it acts where nothing reads."""
        return self.provenance.get("control") == "null"

    def kind(self, site: Site) -> str:
        """What it changes at one of its sites: one of `KINDS`."""
        residual = self.operator in (*DIRECTION_OPERATORS, *SAE_OPERATORS)
        return site.kind or ("resid_post" if residual else "ffn_act")

    def acts_at(self, step: int, decision: int) -> bool:
        """Whether it acts in an episode's decision of that number, made at that control step."""
        start, stop = self.step_window or (0, step + 1)
        return start <= step < stop and decision % self.every == 0

    @property
    def neuron_count(self) -> int:
        """Neurons (or features) addressed in all sites together."""
        return sum(len(site.neurons) for site in self.sites)

    def with_coefficient(self, alpha: float) -> Intervention:
        """Return the same intervention at another dose."""
        return replace(self, coefficient=alpha)

    def to_json(self) -> str:
        """Return JSON with a fixed key order; floats come back exactly."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Intervention:
        """Read what `to_json` wrote; keys of later versions are ignored."""
        try:
            content = json.loads(text)
        except ValueError as error:
            raise BadIntervention("file", text[:40], f"JSON ({error})") from None
        content = _known(cls, content)
        if not isinstance(content["sites"], list):
            raise BadIntervention("sites", content["sites"], "a list of sites")
        try:
            content["sites"] = tuple(Site(**_known(Site, site)) for site in content["sites"])
            if content.get("donor") is not None:
                content["donor"] = Donor(**_known(Donor, content["donor"]))
            return cls(**content)
        except TypeError as error:
            raise BadIntervention(
                "file", text[:40], f"fields of the right type ({error})"
            ) from None

    def fingerprint(self) -> str:
        """Return a SHA-256 of everything that acts: all fields but name and provenance."""
        acts = _without_later(asdict(self))
        acts["sites"] = [_without_later(site) for site in acts["sites"]]
        del acts["name"], acts["provenance"], acts["sae"]
        return hashlib.sha256(json.dumps(acts, sort_keys=True).encode()).hexdigest()


def _without_later(content: dict) -> dict:
    """Leave out fields that version 0.1 lacked, where they are empty: its fingerprints stay."""
    empty = {"every": 1, "donor": None, "offset": (), "kind": ""}
    return {key: v for key, v in content.items() if key not in empty or v != empty[key]}


def _check_site(site: Site, operator: str) -> None:
    """Check that a site carries what its operator reads, and nothing it would ignore."""
    if site.kind and operator not in ("patch", *SAE_OPERATORS):
        raise BadIntervention("kind", site.kind, f"none for {operator}, which has one place")
    if site.offset and operator not in OFFSET_OPERATORS:
        raise BadIntervention("offset", f"{len(site.offset)} numbers", f"none for {operator}")
    if operator in SAE_OPERATORS:
        _check_features(site, operator)
        return
    if operator in DIRECTION_OPERATORS or site.kind == "resid_post":
        if site.neurons:
            raise BadIntervention("neurons", list(site.neurons), f"none for {operator}")
        if operator != "patch" and not any(site.vector):
            raise BadIntervention("vector", list(site.vector), f"a direction for {operator}")
        if operator == "patch" and site.vector:
            raise BadIntervention("vector", f"{len(site.vector)} numbers", "none for patch")
        return
    if not site.neurons and operator not in PLAIN_OPERATORS:
        raise BadIntervention("neurons", [], f"at least one for {operator}")
    _check_length("vector", site.vector, operator, _vector_lengths(operator, len(site.neurons)))
    _check_length("offset", site.offset, operator, (0, len(site.neurons)))


def _check_features(site: Site, operator: str) -> None:
    """Check the features that an autoencoder's operator changes."""
    if (operator in FEATURE_OPERATORS) != bool(site.neurons):
        wanted = "at least one feature" if operator in FEATURE_OPERATORS else "none"
        raise BadIntervention("neurons", list(site.neurons), f"{wanted} for {operator}")
    allowed = (0, len(site.neurons)) if operator == "sae_set" else (0,)
    _check_length("vector", site.vector, operator, allowed)


def _vector_lengths(operator: str, neurons: int) -> tuple[int, ...]:
    if operator in PLAIN_OPERATORS:
        return (0,)
    return (neurons,) if operator == "mean_ablation" else (0, neurons)


def _check_length(
    name: str, numbers: tuple[float, ...], operator: str, lengths: tuple[int, ...]
) -> None:
    if len(numbers) not in lengths:
        allowed = " or ".join(map(str, lengths))
        raise BadIntervention(name, f"{len(numbers)} numbers", f"{allowed} numbers for {operator}")


def _set(frozen: object, name: str, value: object) -> None:
    object.__setattr__(frozen, name, value)


def _whole(name: str, value: object) -> int:
    """Return a non-negative integer, whatever integer type it came in."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise BadIntervention(name, value, "whole numbers, 0 or larger") from None
    if number != value or number < 0 or isinstance(value, bool):
        raise BadIntervention(name, value, "whole numbers, 0 or larger")
    return number


def _finite(name: str, value: object) -> float:
    """Return a finite float, whatever number type it came in."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadIntervention(name, value, "finite numbers") from None
    if not math.isfinite(number):
        raise BadIntervention(name, value, "finite numbers")
    return number


def _window(name: str, window: object) -> tuple[int, int] | None:
    """Return [start, stop) with start < stop, or None."""
    if window is None:
        return None
    try:
        start, stop = (_whole(name, bound) for bound in window)
    except (TypeError, ValueError):
        raise BadIntervention(name, window, "two whole numbers [start, stop)") from None
    if start >= stop:
        raise BadIntervention(name, window, "start before stop")
    return start, stop


def _known(kind: type, content: object) -> dict:
    """Keep the keys that `kind` has; say which required ones are missing."""
    if not isinstance(content, dict):
        raise BadIntervention("file", content, "a JSON object")
    required = {f.name for f in fields(kind) if f.default is f.default_factory is MISSING}
    if absent := sorted(required - set(content)):
        raise BadIntervention("keys", sorted(content), f"also {', '.join(absent)}")
    return {f.name: content[f.name] for f in fields(kind) if f.name in content}

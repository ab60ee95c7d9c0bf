"""The intervention contract: what is changed inside the policy, where, when and how much.

`analysis` chooses neurons and writes one, `engine` applies it, and the trace stores it.  It is
plain data: two frozen dataclasses which become JSON and come back equal.

With h the activation of a neuron, c the coefficient and v the neuron's entry of `Site.vector`
(1 where the vector is empty; typically the neuron's root mean square, so that c counts in those):

    overwrite       h <- c v            zero_ablation   h <- 0
    add             h <- h + c v        mean_ablation   h <- v        (v is the neuron's mean)
    scale           h <- c h            clamp           h <- min(max(h, -|c v|), |c v|)

and with x the residual stream after the layer, d the direction in `Site.vector` and u = d / |d|:

    add_direction   x <- x + c d        project_out     x <- x - c (u . x) u
    sae_feature     x <- x + c v (decoder row of feature), for the features in `Site.neurons`
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields, replace

from traces.errors import BadIntervention, UnknownName

NEURON_OPERATORS = ("overwrite", "add", "scale", "zero_ablation", "mean_ablation", "clamp")
DIRECTION_OPERATORS = ("add_direction", "project_out")
OPERATORS = (*NEURON_OPERATORS, *DIRECTION_OPERATORS, "sae_feature")
TOKEN_GROUPS = ("image", "language", "state")


@dataclass(frozen=True)
class Site:
    """A place in the network."""

    tower: str
    """"vlm" or "expert"."""
    layer: int
    neurons: tuple[int, ...] = ()
    """Hidden units of the layer's feed-forward block; feature numbers for `sae_feature`."""
    vector: tuple[float, ...] = ()
    """One number per neuron, or the direction in the residual stream."""

    def __post_init__(self) -> None:
        _set(self, "tower", str(self.tower))
        _set(self, "layer", _whole("layer", self.layer))
        _set(self, "neurons", tuple(_whole("neurons", n) for n in self.neurons))
        _set(self, "vector", tuple(_finite("vector", v) for v in self.vector))
        if not self.tower:
            raise BadIntervention("tower", self.tower, "a tower name such as vlm or expert")
        if len(set(self.neurons)) != len(self.neurons):
            raise BadIntervention("neurons", list(self.neurons), "each neuron once")


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
    """Control steps [start, stop) in which it acts; None: all."""
    denoise_window: tuple[int, int] | None = None
    """Denoising steps [start, stop) in which it acts on the expert; None: all."""
    sae_sha256: str = ""
    """Hash of the sparse autoencoder's file, for `sae_feature`."""
    provenance: dict = field(default_factory=dict, hash=False)
    """Where it came from: concept, seed neuron, cluster size, distances, checkpoint hash."""

    def __post_init__(self) -> None:
        _set(self, "sites", tuple(self.sites))
        _set(self, "coefficient", _finite("coefficient", self.coefficient))
        _set(self, "token_groups", tuple(self.token_groups))
        _set(self, "step_window", _window("step_window", self.step_window))
        _set(self, "denoise_window", _window("denoise_window", self.denoise_window))
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
        if (self.operator == "sae_feature") != bool(self.sae_sha256):
            raise BadIntervention(
                "sae_sha256", self.sae_sha256, "a hash for sae_feature and none for other operators"
            )
        for site in self.sites:
            _check_site(site, self.operator)

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
            return cls(**content)
        except TypeError as error:
            raise BadIntervention(
                "file", text[:40], f"fields of the right type ({error})"
            ) from None

    def fingerprint(self) -> str:
        """Return a SHA-256 of everything that acts: all fields but name and provenance."""
        acts = asdict(self)
        del acts["name"], acts["provenance"]
        return hashlib.sha256(json.dumps(acts, sort_keys=True).encode()).hexdigest()


def _check_site(site: Site, operator: str) -> None:
    """Check that a site carries what its operator reads, and nothing it would ignore."""
    if operator in DIRECTION_OPERATORS:
        if site.neurons:
            raise BadIntervention("neurons", list(site.neurons), f"none for {operator}")
        if not any(site.vector):
            raise BadIntervention("vector", list(site.vector), f"a direction for {operator}")
        return
    if not site.neurons:
        raise BadIntervention("neurons", [], f"at least one for {operator}")
    if operator in ("scale", "zero_ablation"):
        lengths = (0,)
    elif operator == "mean_ablation":
        lengths = (len(site.neurons),)
    else:
        lengths = (0, len(site.neurons))
    if len(site.vector) not in lengths:
        allowed = " or ".join(map(str, lengths))
        raise BadIntervention(
            "vector", f"{len(site.vector)} numbers", f"{allowed} numbers for {operator}"
        )


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
    required = (
        {"name", "operator", "sites", "coefficient"}
        if kind is Intervention
        else {
            "tower",
            "layer",
        }
    )
    absent = sorted(required - set(content))
    if absent:
        raise BadIntervention("keys", sorted(content), f"also {', '.join(absent)}")
    return {f.name: content[f.name] for f in fields(kind) if f.name in content}

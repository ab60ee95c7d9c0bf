"""What a trace says about itself: the run it belongs to, and the sites it recorded.

Both are stored as HDF5 attributes: numbers and short texts as they are, everything else as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from traces.condition import UNCHANGED, Condition
from traces.errors import BadRecord
from traces.intervention import Intervention
from traces.schema import FORMAT, FORMAT_VERSION

JSON_ATTRIBUTES = (
    "config",
    "suite",
    "normalisation",
    "versions",
    "host",
    "hook_map",
    "likelihood",
    "dose",
)
MAX_SHARDS = 100_000
MAX_NAME = 1000
"""Characters of run_id, kind, created_utc and recording."""
INTEGER_ATTRIBUTES = ("n_action_steps", "K", "H", "A", "Z", "language_length", "shard")


@dataclass(frozen=True)
class TraceHeader:
    """The root attributes of a trace."""

    run_id: str
    kind: str
    """record, grpo or eval."""
    created_utc: str
    """ISO 8601."""
    config: dict = field(default_factory=dict)
    """The resolved configuration."""
    intervention: Intervention | None = None
    prompt: str = UNCHANGED
    """What the policy was told, see `Condition.prompt`."""
    suite: dict = field(default_factory=dict)
    """At least `name`."""
    normalisation: dict = field(default_factory=dict)
    """Statistics that map states and actions to what the network sees."""
    versions: dict = field(default_factory=dict)
    """Package name to version."""
    host: dict = field(default_factory=dict)
    hook_map: dict = field(default_factory=dict)
    """Site name to module path."""
    likelihood: dict = field(default_factory=dict)
    """name, stochastic steps, noise, dims that enter log_prob, t_schedule; or why there is none."""
    dose: dict = field(default_factory=dict)
    """Size of the intervention in sigma of the natural activations and as relative changes."""
    n_action_steps: int = 1
    """Action rows executed before the policy is asked again."""
    K: int = 0
    H: int = 0
    A: int = 0
    Z: int = 0
    language_length: int = 0
    """W, the padded number of language tokens."""
    recording: str = ""
    """Equal in all shards of one condition's recording, and in no other file; empty: unknown."""
    shard: int = 0
    """Place of this file in its recording, from 0."""

    def __post_init__(self) -> None:
        for name in ("run_id", "kind", "created_utc", "recording", "prompt"):
            if not isinstance(getattr(self, name), str):
                raise BadRecord(name, "a text", type(getattr(self, name)).__name__)
            if len(getattr(self, name)) > MAX_NAME:
                raise BadRecord(name, f"at most {MAX_NAME} characters", len(getattr(self, name)))
        if not 0 <= self.shard < MAX_SHARDS:
            raise BadRecord("shard", f"0 to {MAX_SHARDS - 1}", self.shard)
        for name in INTEGER_ATTRIBUTES:
            if not 0 <= getattr(self, name) < 2**31:
                raise BadRecord(name, "a number from 0 to 2147483647", getattr(self, name))
        for name in JSON_ATTRIBUTES:
            if not isinstance(getattr(self, name), dict):
                raise BadRecord(name, "a JSON object", type(getattr(self, name)).__name__)

    @property
    def condition(self) -> Condition:
        """The arm of the experiment that this trace holds."""
        return Condition(self.intervention, self.prompt)

    @property
    def sizes(self) -> dict[str, int]:
        """Size of each axis letter that is the same for every row."""
        return {"K": self.K, "H": self.H, "A": self.A, "Z": self.Z, "W": self.language_length}

    def to_attributes(self) -> dict[str, str | int]:
        """Return the root attributes, format and version included."""
        attributes: dict[str, str | int] = {"format": FORMAT, "format_version": FORMAT_VERSION}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name in JSON_ATTRIBUTES:
                value = json.dumps(value, default=_plain)
            elif entry.name == "intervention":
                value = "null" if value is None else value.to_json()
            attributes[entry.name] = value
        return attributes

    def of_shard(self, shard: int = 0, created_utc: str = "") -> TraceHeader:
        """Return the header of another shard of this recording."""
        return replace(self, shard=int(shard), created_utc=created_utc)

    @classmethod
    def from_attributes(cls, attributes: Mapping) -> TraceHeader:
        """Read what `to_attributes` wrote; an absent attribute keeps its default."""
        known = {f.name: attributes[f.name] for f in fields(cls) if f.name in attributes}
        for name in JSON_ATTRIBUTES:
            if name in known:
                known[name] = json.loads(known[name])
        if "intervention" in known:
            text = known["intervention"]
            known["intervention"] = None if text == "null" else Intervention.from_json(text)
        for name in INTEGER_ATTRIBUTES:
            if name in known:
                known[name] = _whole(name, known[name])
        return cls(**({"run_id": "", "kind": "", "created_utc": ""} | known))


@dataclass(frozen=True)
class SiteInfo:
    """One place whose activations were recorded: the attributes of activations/<name>/."""

    name: str
    """tower.layer.kind, such as "vlm.3.ffn_act"."""
    module: str
    """Path of the hooked module."""
    tower: str
    layer: int
    tokens: str
    """Which tokens the values cover or average over."""
    calls_per_chunk: int
    """How often the module runs in one decision."""
    reaches_action: bool
    """False where nothing downstream of the site can move an action."""
    dims: tuple[str, ...]
    """Axes of the values: "D" first, the units ("N") last."""
    shape: tuple[int, ...]
    """Shape of one decision's values."""
    dtype: str = "float16"
    """float16 or float32."""
    alias: str = ""
    """What other tools call this site."""

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise BadRecord("site name", "a name without '/'", repr(self.name))
        if len(self.dims) != len(self.shape) + 1 or self.dims[0] != "D" or not self.shape:
            raise BadRecord(f"site {self.name}", "D and one axis name per size", self.dims)
        if self.dtype not in ("float16", "float32"):
            raise BadRecord(f"site {self.name}", "float16 or float32", self.dtype)

    def to_attributes(self) -> dict[str, str | int | bool]:
        """Return the attributes of the site's group (its dtype is that of `values`)."""
        attributes = {f.name: getattr(self, f.name) for f in fields(self)}
        del attributes["dtype"]
        attributes["dims"] = ",".join(self.dims)
        attributes["shape"] = ",".join(map(str, self.shape))
        return attributes

    @classmethod
    def from_attributes(cls, attributes: Mapping, dtype: str) -> SiteInfo:
        """Read what `to_attributes` wrote."""
        known = {f.name: attributes[f.name] for f in fields(cls) if f.name in attributes}
        known["dims"] = tuple(known["dims"].split(","))
        known["shape"] = tuple(int(size) for size in known["shape"].split(","))
        for name in ("layer", "calls_per_chunk"):
            known[name] = _whole(name, known[name])
        known["reaches_action"] = bool(known["reaches_action"])
        return cls(**known, dtype=dtype)


def _whole(name: str, value: object) -> int:
    try:
        return int(value)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise BadRecord(name, "a whole number", repr(value)) from error


def _plain(value: object) -> object:
    """Turn numpy scalars and arrays into numbers and lists, paths into text."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a trace attribute cannot hold {type(value).__name__}: {value!r}")

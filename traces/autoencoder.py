"""A sparse autoencoder on disk and at work: `engine` splices it in, `analysis.sae` trains it.

A folder holds `cfg.json` and `sae_weights.safetensors`, in SAELens' layout, so that
`sae_lens.SAE.load_from_disk(FOLDER)` gives the same features and the same reconstruction.

    y   = n(x)                                        see `NORMALISATIONS`
    z   = keep(relu((y - b_dec) W_enc + b_enc))       topk: the k largest of a row
                                                      jumprelu: those above their threshold
    x^  = n^-1(z W_dec + b_dec)

x is one row of a recorded site, (d,), or a mean of rows where the site keeps means: `metadata` says
which policy, site and kind of row. Rows of W_dec are the features' directions.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from traces.errors import UnknownName, UserError

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
ARCHITECTURES = ("topk", "jumprelu")
NORMALISATIONS = ("layer_norm", "none")
"""layer_norm: y = (x - mean(x)) / std(x), over the entries of a row, as SAELens computes it (its
std has d - 1 in the denominator and 1e-5 added)."""
EPSILON = 1e-5


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """Weights, and what they are for.

    Raises:
        UserError: weights that do not fit each other, or a name that does not exist.
    """

    W_enc: np.ndarray
    """(d, m) float32"""
    b_enc: np.ndarray
    """(m,)"""
    W_dec: np.ndarray
    """(m, d)"""
    b_dec: np.ndarray
    """(d,)"""
    architecture: str = "topk"
    k: int = 0
    """features of a row that stay, for topk"""
    threshold: np.ndarray | None = None
    """(m,), for jumprelu"""
    normalisation: str = "layer_norm"
    metadata: dict = field(default_factory=dict)
    """site, policy, policy_sha256, rows (mean or token), training, ..."""

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise UnknownName("architecture", self.architecture, ARCHITECTURES)
        if self.normalisation not in NORMALISATIONS:
            raise UnknownName("normalisation", self.normalisation, NORMALISATIONS)
        d, m = self.W_enc.shape if self.W_enc.ndim == 2 else (0, 0)
        shapes = {"b_enc": (m,), "W_dec": (m, d), "b_dec": (d,)}
        if self.architecture == "jumprelu":
            shapes["threshold"] = (m,)
        elif not 1 <= self.k <= m:
            raise UserError(f"k = {self.k} of {m} features: expected 1 to {m}")
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None or value.shape != shape or not np.isfinite(value).all():
                raise UserError(f"{name} of this autoencoder is not {shape} finite numbers")

    @property
    def width(self) -> int:
        """Entries of x, d."""
        return self.W_enc.shape[0]

    @property
    def features(self) -> int:
        """How many, m."""
        return self.W_enc.shape[1]

    @property
    def site(self) -> str:
        """Site that it was trained on, such as vlm.2.resid_post; empty where unknown."""
        return str(self.metadata.get("site", ""))

    @property
    def place(self) -> tuple[str, int, str]:
        """Tower, layer and kind of its site.

        Raises:
            UserError: it does not say.
        """
        missing = [key for key in ("tower", "layer", "kind") if key not in self.metadata]
        if missing:
            raise UserError(
                f"this autoencoder does not say where it belongs (no {', '.join(missing)} in "
                f"{CONFIG}); train one with: vla-trace sae train"
            )
        about = self.metadata
        return str(about["tower"]), int(about["layer"]), str(about["kind"])

    @property
    def is_pooled(self) -> bool:
        """Whether a row is the mean over tokens, rather than one token."""
        return self.metadata.get("rows", "mean") == "mean"

    @cached_property
    def sha256(self) -> str:
        """Hash of the weights and of what decides how they work."""
        digest = hashlib.sha256(f"{self.architecture} {self.k} {self.normalisation}".encode())
        for value in (self.W_enc, self.b_enc, self.W_dec, self.b_dec, self.threshold):
            digest.update(b"" if value is None else np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Features (rows, m) of rows (rows, d)."""
        y, _, _ = self._normalised(x)
        return self._kept((y - self.b_dec) @ self.W_enc + self.b_enc)

    def decode(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Reconstruction (rows, d) of features, at the mean and scale that rows x have."""
        _, mean, std = self._normalised(x)
        return (z @ self.W_dec + self.b_dec) * std + mean

    def reconstructed(self, x: np.ndarray) -> np.ndarray:
        """What is left of rows (rows, d)."""
        return self.decode(self.encode(x), x)

    def moved(self, x: np.ndarray, z: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Change of x that takes features from z to `wanted`, the rest of x as it is: (rows, d)."""
        _, _, std = self._normalised(x)
        return (wanted - z) @ self.W_dec * std

    def scale(self, x: np.ndarray) -> np.ndarray:
        """(rows, 1) length in x of a feature of 1 along a direction of length 1."""
        return self._normalised(x)[2]

    def length(self, x: np.ndarray) -> np.ndarray:
        """(rows, 1) length of the rows as they are encoded, around b_dec where not normalised."""
        y = self._normalised(x)[0]
        centre = self.b_dec if self.normalisation == "none" else 0.0
        return np.maximum(np.linalg.norm(y - centre, axis=1, keepdims=True), 1e-12)

    def _normalised(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows y, and mean and scale that lead back to x."""
        x = np.asarray(x, np.float32)
        if self.normalisation == "none":
            return x, np.zeros((len(x), 1), np.float32), np.ones((len(x), 1), np.float32)
        mean = x.mean(axis=1, keepdims=True)
        std = (x - mean).std(axis=1, keepdims=True, ddof=1)
        return (x - mean) / (std + EPSILON), mean, std

    def _kept(self, before: np.ndarray) -> np.ndarray:
        """Features of pre-activations (rows, m)."""
        if self.architecture == "jumprelu":
            return np.where(before > self.threshold, np.maximum(before, 0.0), 0.0)
        z = np.zeros_like(before)
        largest = np.argpartition(before, -self.k, axis=1)[:, -self.k :]
        values = np.maximum(np.take_along_axis(before, largest, axis=1), 0.0)
        np.put_along_axis(z, largest, values, axis=1)
        return z


def constant(like: Autoencoder, row: np.ndarray) -> Autoencoder:
    """An autoencoder that reconstructs everything as one row: an ablation, spliced in likewise."""
    return replace(
        like,
        W_dec=np.zeros_like(like.W_dec),
        b_dec=np.asarray(row, np.float32),
        normalisation="none",
    )


def save_autoencoder(folder: Path | str, sae: Autoencoder) -> None:
    """Write `cfg.json` and `sae_weights.safetensors`, the former last.

    Raises:
        FileExistsError: there is one already.
    """
    from safetensors.numpy import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / CONFIG).exists():
        raise FileExistsError(folder / CONFIG)
    weights = {name: getattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    if sae.threshold is not None:
        weights["threshold"] = sae.threshold
    plain = {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}
    (folder / WEIGHTS).write_bytes(save(plain))
    about = {
        "model_name": sae.metadata.get("policy", ""),
        "hook_name": sae.site,
        "sae_lens_training_version": None,
    }
    config = {
        "architecture": sae.architecture,
        "d_in": sae.width,
        "d_sae": sae.features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": sae.normalisation,
        "reshape_activations": "none",
        "metadata": about | {"vla_trace": sae.metadata},
    }
    if sae.architecture == "topk":
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    part = folder / f"{CONFIG}.new"
    part.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    part.replace(folder / CONFIG)


def load_autoencoder(folder: Path | str) -> Autoencoder:
    """Read what `save_autoencoder` or SAELens wrote.

    Raises:
        UserError: nothing there, or nothing that this version can use; says what it is.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS)
        return _read(config, weights)
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no sparse autoencoder (expected {CONFIG} and {WEIGHTS}); train one "
            "with: vla-trace sae train"
        ) from None
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    except (KeyError, TypeError, ValueError, OSError, SafetensorError, AttributeError) as error:
        raise UserError(
            f"{folder} is not a sparse autoencoder that can be read ({type(error).__name__}: "
            f"{error}); expected SAELens' layout"
        ) from None


def _read(config: dict, weights: dict[str, np.ndarray]) -> Autoencoder:
    if config.get("rescale_acts_by_decoder_norm") or not config.get("apply_b_dec_to_input", True):
        raise UserError("expected apply_b_dec_to_input and no rescale_acts_by_decoder_norm")
    metadata = dict(config.get("metadata") or {})
    own = metadata.get("vla_trace") or {
        "site": metadata.get("hook_name", ""),
        "policy": metadata.get("model_name", ""),
    }
    floats = {name: np.asarray(value, np.float32) for name, value in weights.items()}
    return Autoencoder(
        **{name: floats[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")},
        architecture=str(config["architecture"]),
        k=int(config.get("k") or 0),
        threshold=floats.get("threshold"),
        normalisation=str(config.get("normalize_activations", "none")),
        metadata=dict(own),
    )

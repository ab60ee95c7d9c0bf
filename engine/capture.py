"""Record activations of a decision at the sites of some `presets.Spec`.

Values are those that act: a steered neuron shows its steered value. A VLM module runs once a
decision, an expert module once a denoising step; both counts are checked every time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from engine import sites
from engine.hooks import tapped
from engine.presets import TOKENS, Spec, chosen
from traces.header import SiteInfo
from traces.intervention import SAE_OPERATORS, Intervention, Site

ALIASES = {"ffn_act": "mlp.hook_post", "resid_post": "hook_resid_post"}  # TransformerLens's names


class Capture:
    """The sites of one recording, and their values for the last decision.

    Args:
        policy: the policy to read.
        n_executed: action rows of a chunk that are sent.
        intervention: its neurons are recorded per token.
        wanted: presets and sites, see `presets`.

    Raises:
        UserError: something wanted does not exist.
    """

    def __init__(
        self,
        policy: PreTrainedPolicy,
        n_executed: int,
        intervention: Intervention | None = None,
        wanted: Sequence[str] = ("standard",),
    ):
        self.policy, self.n_executed = policy, n_executed
        self.steps = sites.denoise_steps(policy)
        self.sites: list[SiteInfo] = []
        self._readers: list[_Reader] = []
        for spec in chosen(policy, wanted):
            self._add_vlm(spec) if spec.tower == "vlm" else self._add_expert(spec)
        for site in intervention.sites if intervention else ():
            if site.neurons and intervention.operator not in SAE_OPERATORS:  # not features
                self._add_cluster(site)

    @contextmanager
    def recording(self, prefix_mask: Tensor) -> Iterator[Callable[[], dict[str, np.ndarray]]]:
        """Read one decision.

        Args:
            prefix_mask: (B, P) bool, False where a prefix token is padding.

        Yields:
            A function that returns site -> (B, *shape) float32, to be called after the decision.
        """
        with ExitStack() as stack:
            calls = []
            for reader in self._readers:
                reader.begin(prefix_mask)
                calls.append(stack.enter_context(tapped(reader.module, reader.read)))

            def values() -> dict[str, np.ndarray]:
                for site, reader, call in zip(self.sites, self._readers, calls, strict=True):
                    if call.count != reader.expected_calls:
                        raise RuntimeError(
                            f"{site.module} ran {call.count} times in a decision, "
                            f"expected {reader.expected_calls}"
                        )
                return {
                    site.name: reader.value().numpy()
                    for site, reader in zip(self.sites, self._readers, strict=True)
                }

            yield values

    def _add_vlm(self, spec: Spec) -> None:
        place = self._place(spec)
        start, stop = (0, place.tokens) if spec.tokens == "all" else self._group(spec.tokens)
        tokens = "prefix" if spec.tokens == "all" else spec.tokens
        if spec.keep == "mean":
            where, dims, shape = f"mean over valid {tokens} tokens", ("D", "N"), (place.width,)
        else:
            where = f"each {tokens} token, NaN where it is padding"
            dims, shape = ("D", "token", "N"), (stop - start, place.width)
        reader = _PrefixReader(self._module(place), slice(start, stop), each=spec.keep == "each")
        self._add(spec, place, where, dims, shape, reader)

    def _add_expert(self, spec: Spec) -> None:
        place = self._place(spec)
        start, stop = spec.denoise or (0, self.steps)
        rows = self.n_executed if spec.tokens == "executed" else place.tokens
        what = "executed action tokens" if spec.tokens == "executed" else "action tokens"
        steps = f"denoising steps {start} to {stop - 1}" if spec.denoise else "denoising steps"
        if spec.keep == "mean":
            where, dims, shape = f"mean over {what} and {steps}", ("D", "N"), (place.width,)
        else:
            where = f"each of {what}, {steps}"
            dims, shape = ("D", "K", "H", "N"), (stop - start, rows, place.width)
        reader = _ExpertReader(
            self._module(place), self.steps, (start, stop), rows, each=spec.keep == "each"
        )
        self._add(spec, place, where, dims, shape, reader)

    def _add_cluster(self, site: Site) -> None:
        """The steered neurons, token by token."""
        spec = Spec(site.tower, site.layer, "ffn_act", TOKENS[site.tower][0])
        place, size = self._place(spec), len(site.neurons)
        module, neurons = self._module(place), torch.tensor(site.neurons)
        which = f"neurons {','.join(map(str, site.neurons))}"
        if site.tower == "vlm":
            where, dims = f"each prefix token, {which}", ("D", "token", "N")
            reader: _Reader = _PrefixReader(
                module, slice(0, None), each=True, neurons=neurons, mask_padding=False
            )
            self._add(spec, place, where, dims, (place.tokens, size), reader, ".steered")
            return
        where, dims = f"each action token and denoising step, {which}", ("D", "K", "H", "N")
        reader = _ExpertReader(
            module, self.steps, (0, self.steps), place.tokens, each=True, neurons=neurons
        )
        shape = (self.steps, place.tokens, size)
        self._add(spec, place, where, dims, shape, reader, ".steered")

    def _place(self, spec: Spec) -> sites.Place:
        return sites.place(self.policy, spec.tower, spec.layer, spec.kind)

    def _module(self, place: sites.Place) -> torch.nn.Module:
        return self.policy.get_submodule(place.path)

    def _group(self, name: str) -> tuple[int, int]:
        return sites.prefix_groups(self.policy)[name]

    def _add(
        self,
        spec: Spec,
        place: sites.Place,
        tokens: str,
        dims: tuple[str, ...],
        shape: tuple[int, ...],
        reader: "_Reader",
        suffix: str = "",
    ) -> None:
        alias = f"blocks.{spec.layer}.{ALIASES[spec.kind]}"
        plain = spec.tower == "vlm" and spec.tokens == "all" and spec.keep == "mean" and not suffix
        self._readers.append(reader)
        self.sites.append(
            SiteInfo(
                name=spec.name + suffix,
                module=place.path,
                tower=spec.tower,
                layer=spec.layer,
                tokens=tokens,
                calls_per_chunk=reader.expected_calls,
                reaches_action=place.reaches_action,
                dims=dims,
                shape=shape,
                dtype=spec.dtype,
                alias=alias if plain else "",
            )
        )


class _Reader:
    """What one tap keeps of a decision."""

    def __init__(self, module: torch.nn.Module, expected_calls: int):
        self.module, self.expected_calls = module, expected_calls
        self._kept: list[Tensor] = []

    def begin(self, prefix_mask: Tensor) -> None:
        self._kept.clear()
        self._mask = prefix_mask


class _PrefixReader(_Reader):
    """Prefix tokens of one call, (B, P, N): their mean without padding, or each of them."""

    def __init__(
        self,
        module: torch.nn.Module,
        tokens: slice,
        *,
        each: bool,
        neurons: Tensor | None = None,
        mask_padding: bool = True,
    ):
        super().__init__(module, 1)
        self._tokens, self._each, self._neurons = tokens, each, neurons
        self._mask_padding = mask_padding

    def read(self, h: Tensor) -> None:
        h, valid = h[:, self._tokens], self._mask[:, self._tokens].unsqueeze(-1)
        if self._neurons is not None:
            h = h[:, :, self._neurons]
        if not self._each:
            weight = valid.to(h.dtype)
            self._kept.append((h * weight).sum(1) / weight.sum(1))
        elif self._mask_padding:
            self._kept.append(h.masked_fill(~valid, torch.nan))
        else:
            self._kept.append(h.clone())

    def value(self) -> Tensor:
        return self._kept[0]


class _ExpertReader(_Reader):
    """The first `rows` action tokens of some denoising steps: their mean, or each of them."""

    def __init__(
        self,
        module: torch.nn.Module,
        n_steps: int,
        window: tuple[int, int],
        rows: int,
        *,
        each: bool,
        neurons: Tensor | None = None,
    ):
        super().__init__(module, n_steps)
        self._window, self._rows, self._each, self._neurons = window, rows, each, neurons
        self._step = 0

    def begin(self, prefix_mask: Tensor) -> None:
        super().begin(prefix_mask)
        self._step = 0

    def read(self, h: Tensor) -> None:
        if self._window[0] <= self._step < self._window[1]:
            h = h[:, : self._rows]
            if self._neurons is not None:
                h = h[:, :, self._neurons]
            self._kept.append(h.clone() if self._each else h.mean(1))
        self._step += 1

    def value(self) -> Tensor:
        stacked = torch.stack(self._kept, dim=1)  # (B, steps, ...)
        return stacked if self._each else stacked.mean(1)

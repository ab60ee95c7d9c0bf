"""Record activations of a decision: the `standard` preset.

Per VLM layer the FFN activations and the residual stream after it, averaged over valid prefix
tokens; per expert layer the FFN activations, averaged over the executed action tokens and the
denoising steps; and the steered neurons token by token. Values are those that act: a steered
neuron shows its steered value.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import Tensor

from engine import sites
from engine.hooks import tapped
from traces.header import SiteInfo
from traces.intervention import Intervention


class Capture:
    """The sites of one recording, and their values for the last decision.

    Args:
        policy: the policy to read.
        n_executed: action rows of a chunk that are sent.
        intervention: its neurons are recorded per token.
    """

    def __init__(
        self, policy: SmolVLAPolicy, n_executed: int, intervention: Intervention | None = None
    ):
        self.policy, self.n_executed = policy, n_executed
        self.steps = policy.config.num_steps
        self.sites: list[SiteInfo] = []
        self._taps: list[tuple] = []  # (site, module, how to reduce its input)
        for layer in range(len(sites.layers(policy, "vlm"))):
            self._add_vlm_ffn(layer)
            self._add_residual(layer)
        for layer in range(len(sites.layers(policy, "expert"))):
            self._add_expert_ffn(layer)
        for site in intervention.sites if intervention else ():
            self._add_cluster(site.layer, site.neurons)

    @contextmanager
    def recording(self, prefix_mask: Tensor) -> Iterator[Callable[[], dict[str, np.ndarray]]]:
        """Read one decision.

        Args:
            prefix_mask: (B, P) bool, False where a prefix token is padding.

        Yields:
            A function that returns site -> (B, *shape) float32, to be called after the decision.
        """
        sums: dict[str, Tensor] = {}
        with ExitStack() as stack:
            calls = {
                site.name: stack.enter_context(tapped(module, self._adder(sums, site, reduce)))
                for site, module, reduce in self._taps
            }
            self._mask = prefix_mask

            def values() -> dict[str, np.ndarray]:
                for site, _, _ in self._taps:
                    if calls[site.name].count != site.calls_per_chunk:
                        raise RuntimeError(
                            f"{site.module} ran {calls[site.name].count} times in a decision, "
                            f"expected {site.calls_per_chunk}"
                        )
                return {
                    site.name: (sums[site.name] / site.calls_per_chunk).numpy()
                    for site, _, _ in self._taps
                }

            yield values

    def _adder(self, sums: dict[str, Tensor], site: SiteInfo, reduce: Callable) -> Callable:
        def add(h: Tensor) -> None:
            value = reduce(h)
            sums[site.name] = sums[site.name] + value if site.name in sums else value

        return add

    def _mean_over_prefix(self, h: Tensor) -> Tensor:
        """(B, P, N) -> (B, N), padding left out."""
        weight = self._mask.to(h.dtype).unsqueeze(-1)
        return (h * weight).sum(1) / weight.sum(1)

    def _add_vlm_ffn(self, layer: int) -> None:
        module = sites.ffn_input(self.policy, "vlm", layer)
        path = sites.module_path("vlm", layer, "mlp.down_proj")
        site = self._vlm_site(layer, "ffn_act", path, "mlp.hook_post", module.in_features)
        self._add(site, module, self._mean_over_prefix)

    def _add_residual(self, layer: int) -> None:
        module, path = sites.residual_reader(self.policy, layer)
        width = self.policy.model.vlm_with_expert.config.text_config.hidden_size
        site = self._vlm_site(layer, "resid_post", path, "hook_resid_post", width)
        self._add(site, module, self._mean_over_prefix)

    def _add_cluster(self, layer: int, neurons: tuple[int, ...]) -> None:
        n_tokens = sites.prefix_groups(self.policy)["state"][1]
        path = sites.module_path("vlm", layer, "mlp.down_proj")
        site = replace(
            self._vlm_site(layer, "ffn_act.steered", path, "", len(neurons)),
            tokens=f"each prefix token, neurons {','.join(map(str, neurons))}",
            dims=("D", "token", "N"),
            shape=(n_tokens, len(neurons)),
        )
        chosen = torch.tensor(neurons)
        module = sites.ffn_input(self.policy, "vlm", layer)
        self._add(site, module, lambda h: h[:, :, chosen].clone())

    def _add_expert_ffn(self, layer: int) -> None:
        module = sites.ffn_input(self.policy, "expert", layer)
        site = SiteInfo(
            name=f"exp.{layer}.ffn_act",
            module=sites.module_path("expert", layer, "mlp.down_proj"),
            tower="expert",
            layer=layer,
            tokens="mean over executed action tokens and denoising steps",
            calls_per_chunk=self.steps,
            reaches_action=True,
            dims=("D", "N"),
            shape=(module.in_features,),
        )
        self._add(site, module, lambda h: h[:, : self.n_executed].mean(1))

    def _vlm_site(self, layer: int, kind: str, path: str, alias: str, width: int) -> SiteInfo:
        return SiteInfo(
            name=f"vlm.{layer}.{kind}",
            module=path,
            tower="vlm",
            layer=layer,
            tokens="mean over valid prefix tokens",
            calls_per_chunk=1,
            reaches_action=sites.reaches_action(self.policy, "vlm", layer),
            dims=("D", "N"),
            shape=(width,),
            alias=f"blocks.{layer}.{alias}" if alias else "",
        )

    def _add(self, site: SiteInfo, module: torch.nn.Module, reduce: Callable) -> None:
        self.sites.append(site)
        self._taps.append((site, module, reduce))

"""How large an intervention is in units that mean something: alpha alone has none.

One policy call without the intervention shows the natural activations; what the operator would
make of them is worked out from these. Said are, over the tokens it acts on,

    sigma_i = mean(h'_i - h_i) / std(h_i)     per neuron; for an overwrite (alpha - mu_i) / sigma_i
    |W (h' - h)| / |W h|                      change of what the FFN writes
    |x' - x| / |x|                            change of the residual stream

the last two as medians over tokens. For a direction the one "neuron" is the residual stream's
component along it, and there is no change of the FFN. The scenes are those at reset of the first
block, so this is the natural size at the start of an episode, not over all of it.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor
from torch.nn.functional import linear

from engine import sites
from engine.actor import Actor, Request
from engine.hooks import tapped
from engine.steering import Steer, effect
from traces.intervention import DIRECTION_OPERATORS, SAE_OPERATORS, Site

SILENT = 1e-9  # a standard deviation below this is none


@dataclass(frozen=True)
class Dose:
    """The size of an intervention at some observations."""

    tokens: int
    """token activations it was measured on, all sites and denoising steps together"""
    neurons: int
    """neurons (or directions) whose natural activation varies"""
    silent: int
    """those whose does not, so that their dose has no unit"""
    sigma: tuple[float, float, float] | None
    """smallest, median and largest dose in standard deviations; None: all are silent"""
    ffn_change: float | None
    """|dFFN| / |FFN|, median over tokens; None for the residual stream"""
    resid_change: float
    """|dx| / |x|, median over tokens"""

    def to_dict(self) -> dict:
        """As the header of a trace holds it."""
        return asdict(self) | {"text": str(self)}

    def __str__(self) -> str:
        parts = []
        if self.sigma:
            low, middle, high = self.sigma
            spread = f" ({low:+.3g} to {high:+.3g})" if self.neurons > 1 else ""
            parts.append(f"{middle:+.3g}σ{spread}")
        if self.silent:
            parts.append(f"{self.silent} neurons that are otherwise silent")
        if self.ffn_change is not None:
            parts.append(f"FFN output changed by {self.ffn_change:.0%}")
        parts.append(f"residual stream by {self.resid_change:.1%}")
        return ", ".join(parts)


@torch.inference_mode()
def measure(actor: Actor, requests: Sequence[Request | None]) -> Dose | None:
    """Measure an actor's intervention at the given observations, with one unsteered call.

    Returns:
        None without an intervention, or where a donor has no value. The step window is left out of
        account: a window that begins later than these decisions has the dose it would have here.
    """
    if actor.intervention is None:
        return None
    policy, found = actor.loaded.policy, []
    always = (replace(actor.intervention, step_window=None, every=1),)
    steers = actor.steers([r and replace(r, interventions=always) for r in requests])
    if not steers:
        return None
    acting = [(steer, site) for steer in steers for site in steer.intervention.sites]
    with ExitStack() as stack:
        taps = [_tapped(stack, policy, steer, site) for steer, site in acting]
        mask = actor.unsteered(requests)
    for (steer, site), (natural, stream) in zip(acting, taps, strict=True):
        before, after, where = effect(policy, steer, site, mask, natural)
        x = torch.cat([stream[call][row, token] for call, row, token in where])
        found.append(_at_site(policy, steer, site, before, after - before, x))
    sigma, ffn, resid = (torch.cat(parts) for parts in zip(*found, strict=True))
    known = sigma[sigma.isfinite()]
    return Dose(
        tokens=len(resid),
        neurons=len(known),
        silent=len(sigma) - len(known),
        sigma=tuple(map(float, (known.min(), known.median(), known.max()))) if len(known) else None,
        ffn_change=float(ffn.nanmedian()) if len(ffn) else None,
        resid_change=float(resid.nanmedian()),
    )


def _tapped(
    stack: ExitStack, policy: PreTrainedPolicy, steer: Steer, site: Site
) -> tuple[list[Tensor], list[Tensor]]:
    """Where what a site's operator changes, and the residual stream after it, will be kept."""
    kept: tuple[list[Tensor], list[Tensor]] = ([], [])
    for kind, values in zip((steer.intervention.kind(site), "resid_post"), kept, strict=True):
        module = policy.get_submodule(sites.place(policy, site.tower, site.layer, kind).path)
        stack.enter_context(tapped(module, lambda h, values=values: values.append(h.clone())))
    return kept


def _at_site(
    policy: PreTrainedPolicy, steer: Steer, site: Site, before: Tensor, shift: Tensor, x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Dose per neuron, and per token the relative changes of the FFN and the residual stream.

    Args:
        policy: the policy.
        steer: the intervention.
        site: one of its sites.
        before: (M, N) natural activations.
        shift: (M, N) what the operator adds to them.
        x: (M, d) residual stream after the layer.
    """
    if steer.intervention.kind(site) == "resid_post":
        if steer.intervention.operator in DIRECTION_OPERATORS:
            along = torch.tensor(site.vector)
            before, shift = ((h @ along / along.norm())[:, None] for h in (before, shift))
        return _in_sigma(shift, before), torch.zeros(0), _relative(shift, x)
    weight = sites.ffn_input(policy, site.tower, site.layer).weight.float()
    features = steer.intervention.operator in SAE_OPERATORS  # which have no neurons of their own
    neurons = slice(None) if features or not site.neurons else list(site.neurons)
    written = linear(shift[:, neurons], weight[:, neurons])
    sigma = _in_sigma(shift[:, neurons], before[:, neurons])
    return sigma, _relative(written, linear(before, weight)), _relative(written, x)


def _in_sigma(shift: Tensor, natural: Tensor) -> Tensor:
    """Mean shift of each column in units of its natural deviation; NaN where that is none."""
    spread = natural.double().std(0, correction=0)
    spread[spread < SILENT] = torch.nan
    return (shift.double().mean(0) / spread).float()


def _relative(change: Tensor, whole: Tensor) -> Tensor:
    """Norm of each row's change over the norm of the row."""
    return change.norm(dim=1) / whole.norm(dim=1)

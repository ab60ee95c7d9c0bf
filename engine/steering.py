"""Apply an intervention to a policy: FFN activations are changed at the `down_proj` input."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from torch import Tensor

from engine import sites
from engine.hooks import edited
from traces.errors import UnknownName, UserError
from traces.intervention import Intervention, Site

# h: (B, tokens, neurons) -> the same shape; c the coefficient, v the site's vector (or 1)
OPERATORS: dict[str, Callable[[Tensor, float, Tensor], Tensor]] = {
    "overwrite": lambda h, c, v: (c * v).expand_as(h),
    "add": lambda h, c, v: h + c * v,
    "scale": lambda h, c, v: c * h,
    "zero_ablation": lambda h, c, v: torch.zeros_like(h),
    "mean_ablation": lambda h, c, v: v.expand_as(h),
    "clamp": lambda h, c, v: torch.clamp(h, -abs(c * v), abs(c * v)),
}


def check(policy: SmolVLAPolicy, intervention: Intervention) -> None:
    """Refuse what cannot be applied, or cannot act, before the first episode.

    Raises:
        UserError: operator, window, layer, neuron or token group that this policy cannot serve,
            or a layer that nothing reads; layers that work are listed.
    """
    if intervention.operator not in OPERATORS:
        raise UnknownName("operator this version can apply", intervention.operator, OPERATORS)
    if intervention.step_window or intervention.denoise_window:
        raise UserError("step and denoise windows cannot be applied by this version")
    null = intervention.provenance.get("control") == "null"
    for site in intervention.sites:
        _check_site(policy, site, null)


def _check_site(policy: SmolVLAPolicy, site: Site, null: bool) -> None:
    if site.tower != "vlm":
        raise UserError(f"tower {site.tower!r}: this version steers the vlm only")
    n_layers = len(sites.layers(policy, "vlm"))
    live = [i for i in range(n_layers) if sites.reaches_action(policy, "vlm", i)]
    if not 0 <= site.layer < n_layers or (site.layer not in live and not null):
        why = "does not exist" if site.layer >= n_layers else "cannot change the action"
        raise UserError(f"layer {site.layer} {why}; layers that can: {live}")
    width = sites.ffn_input(policy, "vlm", site.layer).in_features
    outside = [n for n in site.neurons if not 0 <= n < width]
    if outside:
        raise UserError(
            f"neuron {outside[0]} of layer {site.layer} does not exist; 0 to {width - 1}"
        )


@contextmanager
def steered(policy: SmolVLAPolicy, intervention: Intervention | None) -> Iterator[None]:
    """Change activations inside the block; without an intervention, do nothing.

    Raises:
        UserError: on leaving, a site whose module never ran.
    """
    if intervention is None:
        yield
        return
    groups = sites.prefix_groups(policy)
    tokens = [t for name in intervention.token_groups for t in range(*groups[name])]
    with ExitStack() as stack:
        calls = [
            stack.enter_context(
                edited(
                    sites.ffn_input(policy, site.tower, site.layer),
                    _edit(intervention, site, torch.tensor(tokens)),
                )
            )
            for site in intervention.sites
        ]
        yield
    for site, count in zip(intervention.sites, calls, strict=True):
        if count.count == 0:
            raise UserError(
                f"the hook on {sites.module_path(site.tower, site.layer, 'mlp.down_proj')} never "
                "fired, so nothing was steered; this lerobot runs the layer in another way"
            )


def _edit(intervention: Intervention, site: Site, tokens: Tensor) -> Callable[[Tensor], Tensor]:
    operator, c = OPERATORS[intervention.operator], intervention.coefficient
    neurons = torch.tensor(site.neurons)
    vector = torch.tensor(site.vector) if site.vector else torch.ones(len(neurons))
    place = tokens[:, None], neurons[None, :]

    def edit(h: Tensor) -> Tensor:  # (B, tokens, N)
        h[:, *place] = operator(h[:, *place], c, vector).to(h.dtype)
        return h

    return edit

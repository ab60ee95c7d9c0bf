"""Apply interventions to a policy, each to its own rows of a batch.

FFN activations are changed at the `down_proj` input; the residual stream by adding the difference
to the FFN's output, which is the last thing a layer adds to it. Padding tokens are left alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from engine import sites, splice
from engine.hooks import edited, rewritten, tapped
from traces.autoencoder import Autoencoder
from traces.errors import UnknownName, UserError
from traces.intervention import SAE_OPERATORS, Intervention, Site

# h: (tokens, neurons) -> the same shape; c the coefficient, v the site's vector (ones where it is
# empty; of patch the donor's values, NaN where it has none), m its offset (zeros where empty)
OPERATORS: dict[str, Callable[[Tensor, float, Tensor, Tensor], Tensor]] = {
    "overwrite": lambda h, c, v, m: (m + c * v).expand_as(h),
    "add": lambda h, c, v, m: h + c * v,
    "scale": lambda h, c, v, m: c * h,
    "zero_ablation": lambda h, c, v, m: torch.zeros_like(h),
    "mean_ablation": lambda h, c, v, m: v.expand_as(h),
    "clamp": lambda h, c, v, m: torch.clamp(h, m - abs(c * v), m + abs(c * v)),
    "clamp_min": lambda h, c, v, m: torch.maximum(h, m + c * v),
    "clamp_max": lambda h, c, v, m: torch.minimum(h, m + c * v),
    "patch": lambda h, c, v, m: torch.where(v.isnan(), h, v),
}

# what is added to the residual stream x, (tokens, d); d the direction, of patch the donor's x
RESIDUAL_OPERATORS: dict[str, Callable[[Tensor, float, Tensor], Tensor]] = {
    "add_direction": lambda x, c, d: (c * d).expand_as(x),
    "project_out": lambda x, c, d: -c * (x @ d / (d @ d))[:, None] * d,
    "patch": lambda x, c, d: torch.where(d.isnan(), 0.0, d - x),
}


@dataclass(frozen=True)
class Steer:
    """One intervention on some rows of a batch."""

    intervention: Intervention
    rows: tuple[int, ...]
    donated: Mapping[Site, Tensor] = field(default_factory=dict)
    """for patch: site to (rows, tokens, N), of the expert (rows, K, tokens, N); NaN: no value"""
    autoencoder: Autoencoder | None = None
    """for the sae operators"""


@contextmanager
def steered(policy: PreTrainedPolicy, steers: Sequence[Steer], mask: Tensor) -> Iterator[None]:
    """Change activations inside the block, on any exit as before.

    Args:
        policy: the policy.
        steers: applied in this order where they meet.
        mask: (B, P) bool, False where a prefix token is padding, see `sites.prefix_mask`.

    Raises:
        UserError: on leaving, a site whose module never ran.
        RuntimeError: on leaving, one that did not run once a decision (expert: K times).
    """
    counted = []
    with ExitStack() as stack:
        for steer in steers:
            for site in steer.intervention.sites:
                counted.append(_hook(stack, policy, steer, site, mask))
        yield
    for path, expected, calls in counted:
        if calls.count == 0:
            raise UserError(
                f"the hook on {path} never fired, so nothing was steered; this lerobot runs the "
                "layer in another way"
            )
        if calls.count % expected:
            raise RuntimeError(f"{path} ran {calls.count} times, expected {expected} a decision")


def effect(
    policy: PreTrainedPolicy, steer: Steer, site: Site, mask: Tensor, natural: Sequence[Tensor]
) -> tuple[Tensor, Tensor, list[tuple]]:
    """What an operator makes of natural activations at one of its sites.

    Args:
        policy: the policy.
        steer: the intervention and its rows.
        site: one of its sites.
        mask: (B, P) bool, False where a prefix token is padding.
        natural: FFN activations or residual stream there, (B, tokens, N), one tensor a call.

    Returns:
        The activations of the tokens it acts on before and after, (M, N) each; and per call it
        acts in, the call's number, rows and tokens.
    """
    place = sites.place(policy, site.tower, site.layer, steer.intervention.kind(site))
    row, token = _tokens(policy, steer, place, mask)
    start, stop = _window(steer.intervention, place)
    before, after, where = [], [], []
    for call in range(start, stop):
        h = natural[call]
        if place.kind == "ffn_act":
            edit = _ffn_edit(steer, site, (row, token))
        else:  # as if the FFN wrote all of it
            edit = _residual_edit(steer, site, (row, token), [torch.zeros_like(h)])
        before.append(h[row, token])
        after.append(edit(h.clone(), call)[row, token])
        where.append((call, row, token))
    return torch.cat(before), torch.cat(after), where


def _hook(
    stack: ExitStack, policy: PreTrainedPolicy, steer: Steer, site: Site, mask: Tensor
) -> tuple:
    """Install one site's hook; returns its module, the calls of a decision and their counter."""
    place = sites.place(policy, site.tower, site.layer, steer.intervention.kind(site))
    chosen = _tokens(policy, steer, place, mask)
    if place.kind == "ffn_act":
        edit = _in_window(steer.intervention, place, _ffn_edit(steer, site, chosen))
        module = sites.ffn_input(policy, site.tower, site.layer)
        return place.path, place.calls, stack.enter_context(edited(module, edit))
    ffn, norm, path = sites.residual_writer(policy, site.tower, site.layer)
    before: list[Tensor] = []  # the residual stream that the FFN adds to, of the present call
    stack.enter_context(tapped(norm, lambda x: before.__setitem__(slice(None), [x])))
    edit = _in_window(steer.intervention, place, _residual_edit(steer, site, chosen, before))
    return path, place.calls, stack.enter_context(rewritten(ffn, edit))


def _tokens(
    policy: PreTrainedPolicy, steer: Steer, place: sites.Place, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Row and token of everything that is changed: two index tensors of equal length."""
    chosen = torch.zeros(len(mask), place.tokens, dtype=torch.bool)
    rows = list(steer.rows)
    if place.tower == "expert":
        chosen[rows] = True
    else:
        groups = sites.prefix_groups(policy)
        for group in steer.intervention.token_groups:
            chosen[rows, slice(*groups[group])] = True
        chosen &= mask
    return chosen.nonzero(as_tuple=True)


def _in_window(
    intervention: Intervention, place: sites.Place, edit: Callable[[Tensor, int], Tensor]
) -> Callable[[Tensor], Tensor]:
    """The edit with its denoising step, left out where that is outside the window."""
    start, stop = _window(intervention, place)
    calls = 0

    def edit_now(h: Tensor) -> Tensor:
        nonlocal calls
        step, calls = calls % place.calls, calls + 1
        return edit(h, step) if start <= step < stop else h

    return edit_now


def _window(intervention: Intervention, place: sites.Place) -> tuple[int, int]:
    """Calls [start, stop) of a decision in which it acts."""
    window = intervention.denoise_window if place.tower == "expert" else None
    return window or (0, place.calls)


def _ffn_edit(
    steer: Steer, site: Site, chosen: tuple[Tensor, Tensor]
) -> Callable[[Tensor, int], Tensor]:
    row, token = chosen
    if steer.autoencoder:
        added = splice.change(steer.autoencoder, steer.intervention, site, row)

        def moved(h: Tensor, step: int) -> Tensor:
            h[chosen] += added(h[chosen]).to(h.dtype)
            return h

        return moved
    operator, c = OPERATORS[steer.intervention.operator], steer.intervention.coefficient
    where = chosen
    if site.neurons:
        where = row[:, None], token[:, None], torch.tensor(site.neurons)
    vector = torch.tensor(site.vector) if site.vector else torch.ones(())
    offset = torch.tensor(site.offset) if site.offset else torch.zeros(())
    donated = _donated(steer, site, chosen)

    def edit(h: Tensor, step: int) -> Tensor:  # (B, tokens, N)
        v = donated(step) if donated else vector
        h[where] = operator(h[where], c, v, offset).to(h.dtype)
        return h

    return edit


def _residual_edit(
    steer: Steer, site: Site, chosen: tuple[Tensor, Tensor], before: list[Tensor]
) -> Callable[[Tensor, int], Tensor]:
    added = _residual_change(steer, site, chosen)

    def edit(written: Tensor, step: int) -> Tensor:  # (B, tokens, d): what the FFN adds
        x = written[chosen] + before[0][chosen]
        written[chosen] += added(x.float(), step).to(written.dtype)
        return written

    return edit


def _residual_change(
    steer: Steer, site: Site, chosen: tuple[Tensor, Tensor]
) -> Callable[[Tensor, int], Tensor]:
    """What is added to the residual stream of the chosen tokens, (tokens, d)."""
    if steer.autoencoder:
        added = splice.change(steer.autoencoder, steer.intervention, site, chosen[0])
        return lambda x, step: added(x)
    operator, c = RESIDUAL_OPERATORS[steer.intervention.operator], steer.intervention.coefficient
    direction, donated = torch.tensor(site.vector), _donated(steer, site, chosen)
    return lambda x, step: operator(x, c, donated(step) if donated else direction)


def _donated(
    steer: Steer, site: Site, chosen: tuple[Tensor, Tensor]
) -> Callable[[int], Tensor] | None:
    """The donor's values of the chosen tokens at a denoising step, (chosen, N)."""
    if site not in steer.donated:
        return None
    place = {row: i for i, row in enumerate(steer.rows)}
    rows = torch.tensor([place[int(row)] for row in chosen[0]], dtype=torch.long)
    values = steer.donated[site]
    if site.tower == "vlm":
        values = values[:, None]
    return lambda step: values[rows, step, chosen[1]]


def check(policy: PreTrainedPolicy, intervention: Intervention, null_control: bool = False) -> None:
    """Refuse what cannot be applied, or cannot act, before the first episode.

    Args:
        policy: the policy.
        intervention: what is to be done to it.
        null_control: it is meant to act where nothing reads; then a layer that can change the
            action is refused instead.

    Raises:
        UserError: operator, window, layer, neuron or direction that this policy cannot serve, or
            a layer that nothing reads; layers that work are listed.
    """
    for site in intervention.sites:
        _check_site(policy, intervention, site, null_control)
    if window := intervention.denoise_window:
        steps = sites.denoise_steps(policy)
        if not any(site.tower == "expert" for site in intervention.sites):
            raise UserError("a denoise window needs a site in the expert; the vlm runs once")
        if window[1] > steps:
            raise UserError(f"denoise window {list(window)}: this policy has {steps} steps")


def _check_site(
    policy: PreTrainedPolicy, intervention: Intervention, site: Site, null_control: bool
) -> None:
    if site.tower not in sites.TOWERS:
        raise UnknownName("tower", site.tower, sites.TOWERS)
    n_layers = len(sites.layers(policy, site.tower))
    live = [i for i in range(n_layers) if sites.reaches_action(policy, site.tower, i)]
    if site.layer >= n_layers:
        raise UserError(f"layer {site.layer} does not exist; layers that can act: {live}")
    if null_control and site.layer in live:
        dead = sites.dead_layers(policy, site.tower)
        raise UserError(
            f"a null control at {site.tower} layer {site.layer}, which can change the action; "
            f"layers that cannot: {dead}"
        )
    if not null_control and site.layer not in live:
        raise UserError(f"layer {site.layer} cannot change the action; layers that can: {live}")
    width = sites.place(policy, site.tower, site.layer, intervention.kind(site)).width
    if intervention.operator in SAE_OPERATORS:
        return  # `splice.autoencoder_of` knows its features
    outside = [n for n in site.neurons if n >= width]
    if outside:
        raise UserError(
            f"neuron {outside[0]} of layer {site.layer} does not exist; 0 to {width - 1}"
        )
    if intervention.kind(site) == "resid_post" and len(site.vector) not in (0, width):
        raise UserError(
            f"a direction of {len(site.vector)} numbers; the residual stream of the {site.tower} "
            f"has {width}"
        )

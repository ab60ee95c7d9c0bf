"""What a sparse autoencoder does to activations: set or scale features, or splice all of it in.

Rows of x are tokens. An autoencoder that learnt from means over tokens cannot be asked for one of
them: it is asked for the mean of those it acts on, and each of them gets the change of that mean.
"""

from collections.abc import Callable

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from engine import sites
from traces.autoencoder import Autoencoder, load_autoencoder
from traces.errors import UserError
from traces.intervention import Intervention, Site


def autoencoder_of(policy: PreTrainedPolicy, intervention: Intervention) -> Autoencoder:
    """Load the autoencoder of an intervention, and check that it belongs there.

    Raises:
        UserError: none there, another one than it was, of another site, width or kind of row.
    """
    sae = load_autoencoder(intervention.sae)
    if sae.sha256 != intervention.sae_sha256:
        raise UserError(
            f"{intervention.sae} holds the autoencoder {sae.sha256[:8]}, the intervention was made "
            f"for {intervention.sae_sha256[:8]}; write it again with: vla-trace sae steer"
        )
    for site in intervention.sites:
        place = sites.place(policy, site.tower, site.layer, intervention.kind(site))
        if sae.width != place.width:
            raise UserError(
                f"{intervention.sae} reads rows of {sae.width}, {place.name} of this policy has "
                f"{place.width}; train one on a recording of this policy: vla-trace sae train"
            )
        if outside := [f for f in site.neurons if f >= sae.features]:
            last = sae.features - 1
            raise UserError(
                f"feature {outside[0]} does not exist in {intervention.sae}; 0 to {last}"
            )
        _check_tokens(sae, intervention, site)
    return sae


def change(
    sae: Autoencoder, intervention: Intervention, site: Site, row: Tensor
) -> Callable[[Tensor], Tensor]:
    """What is added to activations x, (tokens, d), of tokens in the given rows of a batch.

    Args:
        sae: the autoencoder.
        intervention: one of the sae operators.
        site: one of its sites.
        row: (tokens,) which row of the batch each token belongs to.
    """
    _, group = np.unique(row.cpu().numpy(), return_inverse=True)
    count = np.bincount(group)[:, None]

    def changed(x: Tensor) -> Tensor:
        rows = x.float().cpu().numpy()
        if sae.is_pooled:
            means = np.zeros((len(count), rows.shape[1]), np.float32)
            np.add.at(means, group, rows)
            added = _added(sae, intervention, site, means / count)[group]
        else:
            added = _added(sae, intervention, site, rows)
        return torch.from_numpy(added).to(x.device)

    return changed


def _added(sae: Autoencoder, intervention: Intervention, site: Site, x: np.ndarray) -> np.ndarray:
    """Change of rows (rows, d) float32."""
    c, z = np.float32(intervention.coefficient), sae.encode(x)
    if intervention.operator == "sae_splice":
        return c * (sae.decode(z, x) - x)
    wanted, features = z.copy(), list(site.neurons)
    if intervention.operator == "sae_scale":
        wanted[:, features] *= c
    else:
        wanted[:, features] = c * np.float32(site.vector or 1.0)
    return sae.moved(x, z, wanted)


def _check_tokens(sae: Autoencoder, intervention: Intervention, site: Site) -> None:
    """Refuse an autoencoder of means over other tokens than those it would act on."""
    tokens = str(sae.metadata.get("tokens", "all"))
    if not sae.is_pooled:  # it reads any token
        return
    if site.tower == "expert":
        raise UserError(
            f"{intervention.sae} learnt from means over denoising steps, which none of them knows; "
            "train one on tokens: vla-trace record --capture "
            f"expert.{site.layer}.{intervention.kind(site)}:tokens=chunk,keep=each"
        )
    wanted = sites.GROUPS if tokens == "all" else (tokens,)
    if set(intervention.token_groups) != set(wanted):
        raise UserError(
            f"{intervention.sae} learnt from means over {tokens} tokens, so it acts on all of "
            f"{', '.join(wanted)}; this intervention names {', '.join(intervention.token_groups)}"
        )

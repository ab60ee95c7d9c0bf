"""What a policy still does when an autoencoder's reconstruction takes the place of a site.

On the observations and the noise of a recording, with x^ spliced in (`sae_splice`):

    recovered = 1 - MSE(a_spliced, a) / MSE(a_ablated, a)

over the action dimensions that vary, of whole chunks, normalised as the policy has them, episode by
episode. Ablated is the site replaced by its mean over the recording, or by zero: the analogue of
"loss recovered" for language models. 1 is nothing lost, 0 no better than the ablation.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import batched
from pathlib import Path

import numpy as np

from engine.actor import BATCH, Actor
from engine.policies.smolvla import LoadedPolicy
from engine.rescore import asked_like, requests_of
from engine.splice import autoencoder_of
from traces.autoencoder import Autoencoder, constant, load_autoencoder, save_autoencoder
from traces.collection import TraceCollection, open_traces
from traces.intervention import TOKEN_GROUPS, Intervention, Site

ABLATIONS = ("mean", "zero")


@dataclass(frozen=True)
class Recovery:
    """Mean squared errors of each episode, (E,)."""

    spliced: np.ndarray
    mean: np.ndarray
    zero: np.ndarray
    decisions: int


def splice(folder: Path | str, sae: Autoencoder, name: str = "") -> Intervention:
    """The intervention that puts an autoencoder's reconstruction in the place of its site."""
    tower, layer, kind = sae.place
    tokens = str(sae.metadata.get("tokens", "all"))
    some = {"token_groups": (tokens,)} if tokens in TOKEN_GROUPS else {}
    return Intervention(
        name=name or f"spliced {Path(folder).name}",
        operator="sae_splice",
        sites=(Site(tower, layer, kind=kind),),
        coefficient=1.0,
        sae=str(folder),
        sae_sha256=sae.sha256,
        **some,
    )


def recovery(
    path: Path | str,
    loaded: LoadedPolicy,
    folder: Path | str,
    episodes: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Recovery:
    """Ask a policy again on a recording, with an autoencoder spliced in and with ablations.

    Args:
        path: a recording of the autoencoder's site, made with `--keep frames`.
        loaded: the policy.
        folder: the autoencoder.
        episodes: of the recording, at most.
        progress: told episodes done and in all.

    Raises:
        UserError: no frames were kept, the site was not recorded, or the autoencoder is of
            another site or width.
    """
    sae = load_autoencoder(folder)
    autoencoder_of(loaded.policy, splice(folder, sae))  # fits this policy, before anything is asked
    with open_traces(path) as traces, _ablations(traces, sae) as ablated:
        chosen = {"spliced": splice(folder, sae)} | ablated
        actor = asked_like(path, loaded, wanted=())
        columns = traces.episodes()
        n = min(episodes, traces.n_episodes)
        errors: dict[str, list[float]] = {name: [] for name in chosen}
        decisions = 0
        for row in range(n):
            episode = {name: values[row] for name, values in columns.items()}
            episode["number"] = row - int(np.searchsorted(columns["file"], episode["file"]))
            found, count = _episode(traces, row, episode, actor, chosen)
            decisions += count
            for name, error in found.items():
                errors[name].append(error)
            progress(row + 1, n)
    return Recovery(**{name: np.array(e) for name, e in errors.items()}, decisions=decisions)


def _episode(
    traces: TraceCollection,
    row: int,
    episode: dict,
    actor: Actor,
    chosen: dict[str, Intervention],
) -> tuple[dict[str, float], int]:
    """Mean squared error under each intervention, and the decisions of the episode."""
    sums, count = dict.fromkeys(chosen, 0.0), 0
    for block in batched(requests_of(traces, row, episode), BATCH):
        blank = [None] * (BATCH - len(block))
        natural = _chunks(actor, [*block, *blank])
        count += len(block)
        for name, intervention in chosen.items():
            asked = [replace(request, interventions=(intervention,)) for request in block]
            error = (_chunks(actor, [*asked, *blank]) - natural) ** 2
            sums[name] += float(error.mean(axis=(1, 2)).sum())
    return {name: total / max(count, 1) for name, total in sums.items()}, count


def _chunks(actor: Actor, requests: list) -> np.ndarray:
    """(decisions, H, dims that count) of the actions that a call ends with."""
    decided = [d for d in actor.decide(requests) if d is not None]
    return np.stack([d.chain[-1][:, actor.likelihood_dims] for d in decided]).astype(np.float64)


@contextmanager
def _ablations(traces: TraceCollection, sae: Autoencoder) -> Iterator[dict[str, Intervention]]:
    """Interventions that put the recording's mean, or zero, in the place of the site."""
    _, mean, _ = traces.activation_stats(sae.site)
    rows = {"mean": mean, "zero": np.zeros(sae.width)}
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name in ABLATIONS:
            place = Path(folder) / name
            save_autoencoder(place, constant(sae, rows[name]))
            found[name] = splice(place, load_autoencoder(place), name)
        yield found

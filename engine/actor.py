"""A policy that acts on a fixed batch: sample a chunk, score it, capture what happened inside.

Every call has a multiple of `BATCH` rows (recordings: exactly that), the same language length and
the same number of threads, whatever is asked: batch shape alone moves float32 results, and then the
same seeds would not give the same bytes. Rows without an episode are blank and their results are
dropped.
"""

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from engine import likelihoods, sites
from engine.capture import Capture
from engine.donor import DonorTrace, Scene
from engine.likelihoods import flow_sde
from engine.noise import NoiseKey
from engine.policies.smolvla import LoadedPolicy, image_batch, prefix_cache
from engine.splice import autoencoder_of
from engine.steering import Steer, check, steered
from traces.autoencoder import Autoencoder
from traces.errors import UserError
from traces.intervention import Intervention

BATCH = 8
THREADS = 1  # as fast as two beside environment workers, and steady on a shared machine


@dataclass(frozen=True)
class Request:
    """What one row of the batch is asked."""

    pixels: dict[str, np.ndarray]
    """camera of the policy to (64, 64, 3) uint8"""
    state: np.ndarray
    """(8,) float32, see `policy_state`"""
    instruction: str
    key: NoiseKey
    decision: int
    """number of this policy call within the episode"""
    step: int = 0
    """control step of the episode at which it is made"""
    scene: Scene = (-1, -1)
    """scene seed and initial state; finds the donor of a `patch`"""
    interventions: tuple[Intervention, ...] | None = None
    """what is changed for this row, in order; None: what the actor was made with"""


@dataclass(frozen=True)
class Decision:
    """One policy call for one episode; arrays as the trace stores them."""

    action: np.ndarray
    """(n_executed, A) in the environment's units, not clipped"""
    log_prob: np.ndarray
    """(n_executed,) nat, under the policy that acted; NaN when deterministic"""
    log_prob_base: np.ndarray
    """(n_executed,) nat, under the unsteered policy; NaN where that was not asked for"""
    chain: np.ndarray
    """(K+1, H, Z) float32"""
    state: np.ndarray
    """(8,) float32"""
    tokens: np.ndarray
    token_mask: np.ndarray
    obs_hash: str
    noise_key: str
    policy_ms: float
    activations: dict[str, np.ndarray]
    intervened: bool = False
    """whether an intervention acted in this decision"""


class Actor:
    """A loaded policy, how it samples, what is done to it and what is recorded of it.

    Args:
        loaded: the policy.
        sampler: denoising steps and noise.
        n_executed: action rows of each chunk that are sent.
        intervention: what is changed inside, if anything.
        wanted: what is recorded inside: presets and sites, see `presets`.
        base_log_prob: score steered decisions under the unsteered policy, too, which takes a
            second pass.

    Raises:
        UserError: more rows than a chunk has, an intervention that cannot be applied or act, or a
            site that does not exist.
    """

    def __init__(
        self,
        loaded: LoadedPolicy,
        sampler: flow_sde.FlowSDE,
        n_executed: int = 1,
        intervention: Intervention | None = None,
        wanted: Sequence[str] = ("standard",),
        base_log_prob: bool = False,
    ):
        torch.set_num_threads(THREADS)
        if not 1 <= n_executed <= loaded.policy.config.chunk_size:
            raise UserError(
                f"replan {n_executed}: this policy plans chunks of "
                f"{loaded.policy.config.chunk_size} steps, so 1 to that many can be executed"
            )
        self.loaded, self.sampler, self.n_executed = loaded, sampler, n_executed
        self.intervention, self.base_log_prob = intervention, base_log_prob
        self._sources: dict[Intervention, DonorTrace | Autoencoder | None] = {}
        if intervention is not None:
            self._made_ready(intervention)
        self.capture = Capture(loaded.policy, n_executed, intervention, wanted)
        self.statistics = action_statistics(loaded)
        self.likelihood_dims = [i for i, s in enumerate(self.statistics["std"]) if s > 1e-6]
        self.prefix_layout = sites.prefix_groups(loaded.policy)

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """(H, Z)."""
        config = self.loaded.policy.config
        return config.chunk_size, config.max_action_dim

    @property
    def why_base_nan(self) -> str:
        """Why `log_prob_base` may be NaN; empty when it is always known."""
        if self.sampler.deterministic:
            return "the ODE sampler has no density"
        if self.intervention is None or self.base_log_prob:
            return ""
        return "where steered it takes a second pass: record --keep base-log-prob"

    def expect(self, scenes: Iterable[Scene]) -> None:
        """Check that the episodes to come have what the intervention takes from elsewhere.

        Raises:
            UserError: a donor lacks one of them.
        """
        for source in self._sources.values():
            if isinstance(source, DonorTrace):
                source.expect(scenes)

    @torch.inference_mode()  # bit-equal to no_grad and 5 % faster
    def decide(self, requests: Sequence[Request | None]) -> list[Decision | None]:
        """One policy call for as many rows as there are requests; a None row stays None."""
        began = time.perf_counter()
        policy = self.loaded.policy
        batch = self._batch(requests)
        initial, noise = self._noise(requests)
        mask = sites.prefix_mask(policy, batch)
        steers = self.steers(requests)
        intervened = {row for steer in steers for row in steer.rows}
        with steered(policy, steers, mask), self.capture.recording(mask) as captured:
            chain, log_prob = likelihoods.sample(
                self.sampler, self._velocity(batch), initial, noise, self.likelihood_dims
            )
            activations = captured()
        log_prob_base = log_prob.clone()
        if intervened:
            log_prob_base[list(intervened)] = self._base_log_prob(batch, chain)[list(intervened)]
        n_actions = policy.config.action_feature.shape[0]
        actions = self.loaded.postprocess(chain[:, -1, : self.n_executed, :n_actions])
        if hasattr(self.sampler, "squash"):
            actions = self.sampler.squash(actions)
        ms = (time.perf_counter() - began) * 1000
        return [
            request
            and Decision(
                action=actions[i].numpy(),
                log_prob=log_prob[i, : self.n_executed].numpy(),
                log_prob_base=log_prob_base[i, : self.n_executed].numpy(),
                chain=chain[i].numpy(),
                state=request.state,
                tokens=batch["observation.language.tokens"][i].numpy(),
                token_mask=batch["observation.language.attention_mask"][i].numpy().astype(bool),
                obs_hash=input_hash(request),
                noise_key=f"{request.key}/{request.decision}",
                policy_ms=ms,
                activations={name: value[i] for name, value in activations.items()},
                intervened=i in intervened,
            )
            for i, request in enumerate(requests)
        ]

    @torch.inference_mode()
    def unsteered(self, requests: Sequence[Request | None]) -> Tensor:
        """Sample one decision without interventions, for whoever taps; returns its prefix mask."""
        batch = self._batch(requests)
        initial, noise = self._noise(requests)
        likelihoods.sample(
            self.sampler, self._velocity(batch), initial, noise, self.likelihood_dims
        )
        return sites.prefix_mask(self.loaded.policy, batch)

    def steers(self, requests: Sequence[Request | None]) -> list[Steer]:
        """What acts in this call, and on which rows: equal interventions share their hooks."""
        own = () if self.intervention is None else (self.intervention,)
        asked = [
            () if r is None else own if r.interventions is None else r.interventions
            for r in requests
        ]
        steers = []
        for layer in zip_longest(*asked):  # the rows' first interventions, their second ones, ...
            rows: dict[Intervention, list[int]] = {}
            for row, chosen in enumerate(layer):
                if chosen and chosen.acts_at(requests[row].step, requests[row].decision):
                    rows.setdefault(chosen, []).append(row)
            steers += [self._steer(chosen, requests, steered) for chosen, steered in rows.items()]
        return [steer for steer in steers if steer.rows]

    def _steer(
        self, intervention: Intervention, requests: Sequence[Request | None], rows: list[int]
    ) -> Steer:
        source = self._made_ready(intervention)
        if not isinstance(source, DonorTrace):
            return Steer(intervention, tuple(rows), autoencoder=source)
        given = {row: source.values(requests[row].scene, requests[row].decision) for row in rows}
        given = {row: values for row, values in given.items() if values is not None}
        donated = {
            site: torch.stack([values[site] for values in given.values()])
            for site in (intervention.sites if given else ())
        }
        return Steer(intervention, tuple(given), donated)

    def _made_ready(self, intervention: Intervention) -> DonorTrace | Autoencoder | None:
        """Check an intervention when it is first seen, and open what it takes from elsewhere."""
        if intervention not in self._sources:
            policy = self.loaded.policy
            check(policy, intervention, null_control=intervention.is_null_control)
            _check_window(intervention, self.n_executed)
            source = intervention.donor and DonorTrace(policy, intervention, self.n_executed)
            if intervention.sae:
                source = autoencoder_of(policy, intervention)
            self._sources[intervention] = source
        return self._sources[intervention]

    def _base_log_prob(self, batch: dict[str, Tensor], chain: Tensor) -> Tensor:
        """(B, H) under the unsteered policy, NaN unless asked for."""
        if not self.base_log_prob or self.sampler.deterministic:
            return chain.new_full((len(chain), chain.shape[2]), np.nan, dtype=torch.float64)
        velocity = self._velocity(batch)
        return likelihoods.log_prob(self.sampler, velocity, chain, self.likelihood_dims)

    def _velocity(self, batch: dict[str, Tensor]) -> flow_sde.Velocity:
        """The velocity field on these observations; the prefix is run once."""
        policy = self.loaded.policy
        cache, pad_masks = prefix_cache(policy, batch)
        return lambda x, t: policy.model.denoise_step(
            x_t=x, prefix_pad_masks=pad_masks, past_key_values=cache, timestep=t
        )

    def _batch(self, requests: Sequence[Request | None]) -> dict[str, Tensor]:
        """The preprocessor's output, one row a request, blank where there is none."""
        if not requests or len(requests) % BATCH:
            raise ValueError(f"a policy call has a multiple of {BATCH} rows, got {len(requests)}")
        some = next(r for r in requests if r is not None)
        pixels = {key: np.zeros_like(value) for key, value in some.pixels.items()}
        rows = [r.pixels if r else pixels for r in requests]
        states = [r.state if r else np.zeros_like(some.state) for r in requests]
        return self.loaded.preprocess(
            {
                f"observation.images.{key}": image_batch(np.stack([row[key] for row in rows]))
                for key in pixels
            }
            | {
                "observation.state": torch.from_numpy(np.stack(states)),
                "task": [r.instruction if r else some.instruction for r in requests],
            }
        )

    def _noise(self, requests: Sequence[Request | None]) -> tuple[Tensor, Tensor]:
        """Initial (B, H, Z) and transition (draws, B, H, Z) noise, each row from its own key."""
        shape, steps = self.chunk_shape, self.sampler.draws
        initial = np.zeros((len(requests), *shape), np.float32)
        noise = np.zeros((steps, len(requests), *shape), np.float32)
        for i, r in enumerate(requests):
            if r is not None:
                initial[i] = r.key.initial(r.decision, shape)
                noise[:, i] = r.key.transitions(r.decision, (steps, *shape))
        return torch.from_numpy(initial), torch.from_numpy(noise)


def _check_window(intervention: Intervention, n_executed: int) -> None:
    """Refuse a window of control steps that no decision falls into."""
    start, stop = intervention.step_window or (0, 1)
    decisions = range(-(-start // n_executed), -(-stop // n_executed))
    if not any(intervention.acts_at(d * n_executed, d) for d in decisions):
        raise UserError(
            f"steps {start} to {stop - 1} hold no decision in which {intervention.name!r} would "
            f"act: the policy is asked every {n_executed} steps; widen the window or lower --replan"
        )


def action_statistics(loaded: LoadedPolicy) -> dict[str, list[float]]:
    """Mean and standard deviation that un-normalise actions, (A,) each."""
    step = next(s for s in loaded.postprocess.steps if getattr(s, "stats", None))
    return {name: np.asarray(step.stats["action"][name]).tolist() for name in ("mean", "std")}


def input_hash(request: Request) -> str:
    """SHA-256 of exactly what the policy is given."""
    digest = hashlib.sha256(request.instruction.encode())
    for image in request.pixels.values():
        digest.update(np.ascontiguousarray(image).tobytes())
    digest.update(request.state.tobytes())
    return digest.hexdigest()

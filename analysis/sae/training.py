"""Train a sparse autoencoder: TopK or BatchTopK, dead latents revived, resumable epoch by epoch.

Gao et al. (arXiv:2406.04093) with what DrVLA (arXiv:2603.19183) found for robot policies:

    y = n(x)                     layer_norm; or expected_norm: y = x sqrt(d) / E|x|; or none
    z = keep(relu((y - b_dec) W_enc + b_enc))
    L = |y - y^|^2 / |y - mean(y)|^2 + aux min(1, n_dead / k_aux) |e - e^|^2 / |e|^2

summed over the batch, with e = y - y^ (constant) and e^ its reconstruction by the k_aux largest
pre-activations of dead latents, k_aux = d / 2. Dead is what has not fired for so many optimizer
steps: counted in rows, as for language, the term would never act on robot data. b_dec begins as the
geometric median, W_enc as W_dec transposed; rows of W_dec have length 1, and their gradients no
part along them.

BatchTopK (Bussmann et al., arXiv:2412.06410) keeps the k B largest of a batch; what it writes is a
jumprelu whose threshold is the running mean of the smallest that was kept.

The learning rate is 2e-4 / sqrt(m / 2^14) unless given, as in Gao et al. (their figure 3).
The same seed and rows give the same weights on one machine, whether a run was stopped or not.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from analysis.sae.measures import reconstruction
from analysis.sae.rows import Shuffled, SiteRows
from traces.autoencoder import EPSILON, Autoencoder
from traces.errors import UnknownName, UserError

STATE = "training.safetensors"
ARCHITECTURES = ("topk", "batchtopk")
NORMALISATIONS = ("layer_norm", "expected_norm", "none")
MEDIAN_ROWS = 10_000
SMALL = 512
"""Below this width one thread is as fast as several."""


@dataclass(frozen=True)
class SaeConfig:
    """One autoencoder; defaults that depend on the width are 0 here, see `fitted`."""

    latents: int = 0
    """m; 0: the width of the site"""
    k: int = 0
    """features of a row; 0: an eighth of the width, at most 32"""
    architecture: str = "topk"
    normalisation: str = "layer_norm"
    lr: float = 0.0
    """0: 2e-4 / sqrt(m / 2^14)"""
    batch: int = 1024
    epochs: int = 200
    patience: int = 10
    """evaluations without a better FVU on held-out episodes, after which training stops"""
    dead_steps: int = 500
    """optimizer steps without firing that make a latent dead"""
    aux: float = 1 / 32
    """weight of the loss that revives dead latents"""
    grad_clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, names in (
            ("architecture", self.architecture, ARCHITECTURES),
            ("normalisation", self.normalisation, NORMALISATIONS),
        ):
            if value not in names:
                raise UnknownName(name, value, names)
        for name in ("batch", "epochs", "patience", "dead_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("latents", "k", "lr", "aux", "seed"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} must be at least 0, got {getattr(self, name)}")

    def fitted(self, width: int, rows: int) -> "SaeConfig":
        """The same with what follows from the width of the site and the number of rows.

        Raises:
            UserError: more features a row than latents, or fewer rows than a batch.
        """
        latents = self.latents or width
        k = self.k or max(1, min(32, width // 8))
        if k > latents:
            raise UserError(f"k = {k} of {latents} latents: expected at most as many")
        batch = min(self.batch, max(1, rows // 4))
        if rows < 16:
            raise UserError(
                f"{rows} rows are too few to train on; record more: vla-trace record --episodes 50"
            )
        lr = self.lr or 2e-4 / math.sqrt(latents / 2**14)
        return replace(self, latents=latents, k=k, batch=batch, lr=lr)


@dataclass(frozen=True)
class Evaluation:
    """The state of a training after an epoch."""

    epoch: int
    step: int
    fvu: float
    """fraction of variance unexplained, on held-out episodes"""
    dead: int
    """latents that have not fired for `dead_steps`"""
    best: bool


class Training:
    """Weights while they learn; every array is in the units of the normalised rows.

    Args:
        config: as `SaeConfig.fitted` returns it.
        rows: to train on.
        held_out: to stop by.
        device: of torch.
    """

    def __init__(self, config: SaeConfig, rows: SiteRows, held_out: SiteRows, device: str = "cpu"):
        if rows.width < SMALL:
            torch.set_num_threads(1)
        self.config, self.device, self.rows = config, device, [rows.n, held_out.n]
        self.held_out = list(held_out.in_order()) if held_out.fits else held_out
        self.batches = Shuffled(rows, config.batch, config.seed)
        some = list(islice(self.batches.epoch(0), -(-MEDIAN_ROWS // config.batch)))
        if not some:
            raise UserError(
                f"fewer than {config.batch} of {rows.n} rows are finite and no padding; record "
                "more, or take a smaller --batch"
            )
        sample = torch.from_numpy(np.concatenate(some))
        self.factor = 1.0
        if config.normalisation == "expected_norm":
            self.factor = math.sqrt(rows.width) / float(sample.norm(dim=1).mean())
        start = _start(config, rows.width, geometric_median(self._normalised(sample)))
        self.weights = {k: v.to(device).requires_grad_() for k, v in start.items()}
        self.optimizer = torch.optim.Adam(self.weights.values(), lr=config.lr, foreach=True)
        self.since_fired = torch.zeros(config.latents, device=device)
        self.threshold = torch.zeros((), device=device)
        self.step = self.epoch = self.waited = 0
        self.best_fvu, self.best = math.inf, self._copied()

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or the held-out rows gained nothing for long enough."""
        return self.epoch >= self.config.epochs or self.waited >= self.config.patience

    def run_epoch(self) -> Evaluation:
        """Go through all rows once, then look at those held out."""
        for batch in self.batches.epoch(self.epoch):
            self._learn(torch.from_numpy(batch).to(self.device))
        self.epoch += 1
        fvu = self._held_out_fvu()
        self.waited = 0 if fvu < self.best_fvu else self.waited + 1
        if fvu < self.best_fvu:
            self.best_fvu, self.best = fvu, self._copied()
        dead = int((self.since_fired >= self.config.dead_steps).sum())
        return Evaluation(self.epoch, self.step, fvu, dead, self.waited == 0)

    def result(self, metadata: dict) -> Autoencoder:
        """The best weights so far, as they go to disk; of expected_norm in the units of x."""
        f = self.factor
        best = {k: v.numpy() / (1.0 if k.startswith("W") else f) for k, v in self.best.items()}
        threshold = best.pop("threshold")
        batchtopk = self.config.architecture == "batchtopk"
        return Autoencoder(
            **{k: v.astype(np.float32) for k, v in best.items()},
            architecture="jumprelu" if batchtopk else "topk",
            k=self.config.k,
            threshold=np.full(self.config.latents, threshold, np.float32) if batchtopk else None,
            normalisation="layer_norm" if self.config.normalisation == "layer_norm" else "none",
            metadata=metadata,
        )

    def save(self, folder: Path) -> None:
        """Write all that going on takes, replacing what was there."""
        state = {f"weight.{k}": v.detach() for k, v in self.weights.items()}
        state |= {f"best.{k}": v for k, v in self.best.items()}
        for name, parameter in self.weights.items():
            for moment in ("exp_avg", "exp_avg_sq"):
                if parameter in self.optimizer.state:
                    state[f"{moment}.{name}"] = self.optimizer.state[parameter][moment]
        state |= {"since_fired": self.since_fired, "threshold": self.threshold}
        facts = {name: getattr(self, name) for name in ("step", "epoch", "waited", "best_fvu")}
        facts |= {"config": asdict(self.config), "rows": self.rows}
        part = folder / f"{STATE}.new"
        save_file(
            {k: v.cpu().contiguous() for k, v in state.items()}, part, {"facts": json.dumps(facts)}
        )
        part.replace(folder / STATE)

    def load(self, folder: Path) -> bool:
        """Go on from what `save` wrote; False if there is nothing.

        Raises:
            UserError: it was another training.
        """
        if not (folder / STATE).exists():
            return False
        with safe_open(folder / STATE, "pt", device=self.device) as file:
            facts = json.loads(file.metadata()["facts"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if (facts.pop("config"), facts.pop("rows", None)) != (asdict(self.config), self.rows):
            raise UserError(
                f"{folder} holds a training with other settings or rows; give the same ones to "
                "--resume, or --force to begin again"
            )
        for name, value in facts.items():
            setattr(self, name, value)
        with torch.no_grad():
            for name, parameter in self.weights.items():
                parameter.copy_(state[f"weight.{name}"])
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(self.step)),
                    "exp_avg": state[f"exp_avg.{name}"],
                    "exp_avg_sq": state[f"exp_avg_sq.{name}"],
                }
        best = {k.partition(".")[2]: v.cpu() for k, v in state.items() if k.startswith("best.")}
        self.best = best
        self.since_fired, self.threshold = state["since_fired"], state["threshold"]
        return True

    def _learn(self, x: Tensor) -> None:
        """One optimizer step on rows (batch, d)."""
        y = self._normalised(x)
        before = self._before(y)
        z = self._kept(before)
        error = y - torch.addmm(self.weights["b_dec"], z, self.weights["W_dec"])
        loss = error.square().sum() / (y - y.mean(0)).square().sum().clamp(min=1e-12)
        loss = loss + self.config.aux * self._revival(before, error.detach())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        decoder = self.weights["W_dec"]
        with torch.no_grad():
            decoder.grad -= (decoder.grad * decoder).sum(1, keepdim=True) * decoder
            nn.utils.clip_grad_norm_(self.weights.values(), self.config.grad_clip, foreach=True)
            self.optimizer.step()
            decoder /= decoder.norm(dim=1, keepdim=True).clamp(min=1e-12)
            self.since_fired += 1
            self.since_fired[(z > 0).any(0)] = 0
        self.step += 1

    def _revival(self, before: Tensor, error: Tensor) -> Tensor:
        """How badly dead latents explain what the living left over; 0 if none is dead."""
        dead = self.since_fired >= self.config.dead_steps
        n_dead = int(dead.sum())
        if not n_dead or not self.config.aux:
            return error.new_zeros(())
        k_aux = max(1, error.shape[1] // 2)
        k = min(k_aux, n_dead)
        values, places = torch.where(dead, before, -torch.inf).topk(k, dim=1, sorted=False)
        z = torch.zeros_like(before).scatter(1, places, values.relu())
        left = (z @ self.weights["W_dec"] - error).square().sum()
        return min(1.0, n_dead / k_aux) * left / error.square().sum().clamp(min=1e-12)

    def _before(self, y: Tensor) -> Tensor:
        """Pre-activations (rows, m); b_dec is multiplied once, not once a row, and so back."""
        W = self.weights["W_enc"]
        return torch.addmm(self.weights["b_enc"] - self.weights["b_dec"] @ W, y, W)

    def _kept(self, before: Tensor) -> Tensor:
        """Features (rows, m) of a batch that is learnt from."""
        flat = self.config.architecture == "batchtopk"
        pool = before.reshape(1, -1) if flat else before
        k = self.config.k * (len(before) if flat else 1)
        values, places = pool.topk(k, dim=1, sorted=False)
        values = values.relu()
        if flat:
            positive = values[values > 0]
            if len(positive):
                least = positive.detach().min()
                share = 0.1 if self.step else 1.0
                self.threshold += share * (least - self.threshold)
        return torch.zeros_like(pool).scatter(1, places, values).reshape(before.shape)

    def _normalised(self, x: Tensor) -> Tensor:
        if self.config.normalisation != "layer_norm":
            return x * self.factor
        centred = x - x.mean(1, keepdim=True)
        std = (centred.square().sum(1, keepdim=True) / (x.shape[1] - 1)).sqrt()
        return centred / (std + EPSILON)

    def _copied(self) -> dict[str, Tensor]:
        now = self.weights | {"threshold": self.threshold}
        return {name: value.detach().cpu().clone() for name, value in now.items()}

    def _held_out_fvu(self) -> float:
        """FVU of the present weights, as they would go to disk."""
        kept, self.best = self.best, self._copied()
        try:
            blocks = self.held_out
            rows = blocks if isinstance(blocks, list) else blocks.in_order()
            return reconstruction(self.result({}), rows).fvu
        finally:
            self.best = kept


def geometric_median(rows: Tensor, rounds: int = 20) -> Tensor:
    """(d,) the point with the least sum of distances to rows (n, d); Weiszfeld's iteration."""
    median = rows.mean(0)
    for _ in range(rounds):
        weight = 1 / (rows - median).norm(dim=1, keepdim=True).clamp(min=1e-6)
        median = (rows * weight).sum(0) / weight.sum()
    return median


def _start(config: SaeConfig, width: int, median: Tensor) -> dict[str, Tensor]:
    """Weights before the first step."""
    generator = torch.Generator().manual_seed(config.seed)
    decoder = torch.randn(config.latents, width, generator=generator)
    decoder /= decoder.norm(dim=1, keepdim=True)
    return {
        "W_enc": decoder.T.clone(),
        "b_enc": torch.zeros(config.latents),
        "W_dec": decoder,
        "b_dec": median.clone(),
    }


def device_of(name: str) -> str:
    """`cpu`, `cuda`, or for `auto` the GPU where there is one.

    Raises:
        UserError: another name, or no GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UnknownName("device", name, ("auto", "cpu", "cuda"))
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise UserError("--device cuda: torch finds no GPU here; take --device cpu")
    return "cuda" if there and name != "cpu" else "cpu"

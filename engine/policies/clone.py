"""Behaviour cloning of `smolvla-tabletop`: the command behind `make policy`.

The losses share one prefix pass, the very pass that the policy acts from:

- flow matching, lerobot's target v = noise - action (`modeling_smolvla.VLAFlowMatching.forward`),
  with several (noise, time) draws per prefix, because the prefix costs ten times the expert;
- language: every instruction token predicts a random synonym of the speed asked for, the state
  token a word for the present motion, through `lm_head`, after every layer from the second on
  (deep supervision), so that FFN value vectors of live layers mean something;
- seeing and reading, through throw-away heads (`auxiliary`).

A quarter of the rows are told another colour than the one the expert went for. They have no action
label, but their heads must find the newly named cube: so the word decides, not the scene.

Weights are an exponential moving average. At the end every hidden FFN unit of the VLM is rescaled
to a root mean square of 1 without changing the function (`calibrate`).
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange

from engine import sites
from engine.envs.tabletop import COLOURS
from engine.hooks import tapped
from engine.policies.auxiliary import AuxiliaryHeads
from engine.policies.calibrate import calibrate
from engine.policies.demos import SPEEDS, Demonstrations, load_or_collect
from engine.policies.smolvla import EMBEDDED_FOLDER, image_batch, prefix_cache
from engine.policies.tiny import new_policy, save_vlm_folder
from engine.policies.words import MOTION_WORDS, SPEED_WORDS
from traces.errors import UserError

VERSION = 2  # of the shipped weights; new weights make new traces, so they get a new number
IGNORE = -100  # no language target at this token


@dataclass(frozen=True)
class CloneConfig:
    """Everything that decides the weights."""

    demos: int = 100
    """demonstrations; few, so that reinforcement learning has something to gain (docs/policy.md)"""
    steps: int = 2000
    batch: int = 64
    """frames per step"""
    draws: int = 4
    """(noise, time) pairs per frame"""
    lr: float = 1e-3
    """peak of the one-cycle schedule"""
    weight_decay: float = 1e-4
    language: float = 0.05
    """weight of the language loss"""
    auxiliary: float = 0.5
    """weight of each auxiliary head's loss"""
    retold: float = 0.25
    """share of rows that are told other colours"""
    ema: float = 0.998
    bf16_share: float = 0.8
    """of the steps, the first ones, that multiply matrices in bfloat16 (1.5 times as fast)"""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("demos", "steps", "batch", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.retold <= 1:
            raise ValueError(f"retold must be a share from 0 to 1, got {self.retold}")


class Cloner:
    """The model, its throw-away head, its optimizer and its moving average."""

    def __init__(self, config: CloneConfig, demos: Demonstrations, vlm_folder: Path):
        self.config, self.demos = config, demos
        self.policy = new_policy(vlm_folder, config.seed)
        self.policy.requires_grad_(True).train()  # lerobot freezes lm_head and the last layer
        stats = {
            "observation.state": _mean_std(demos.state),
            "action": _mean_std(demos.action[:, 0]),
        }
        self.processors = make_smolvla_pre_post_processors(self.policy.config, stats)
        self.tokenizer = self.policy.model.vlm_with_expert.processor.tokenizer
        self.heads = AuxiliaryHeads(sites.layers(self.policy, "vlm")[0].hidden_size)
        self.parameters = [*self.policy.parameters(), *self.heads.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.parameters, config.lr, (0.9, 0.95), weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, config.lr, config.steps, pct_start=0.06, final_div_factor=50
        )
        self.average = {k: v.clone() for k, v in self.policy.state_dict().items()}
        self.step = 0
        self.curve: list[dict[str, float]] = []

    def train_step(self) -> dict[str, float]:
        """One optimizer step; which frames, words, noise it sees depends on (seed, step) alone."""
        rng = np.random.default_rng([self.config.seed, self.step])
        torch.manual_seed(int(rng.integers(2**31)))
        rows = np.sort(rng.choice(len(self.demos), self.config.batch, replace=False))
        half = self.step < self.config.bf16_share * self.config.steps
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            losses = self._losses(rows, rng)
        total = sum(losses.values())
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        decay = min(self.config.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for key, value in self.policy.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _losses(self, rows: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        demos = self.demos
        own = [demos.instructions[task] for task in demos.task[rows]]
        told = [
            name_other_colours(text, rng) if rng.random() < self.config.retold else text
            for text in own
        ]
        batch = self._batch(rows, told, rng)
        labelled = (
            demos.valid[rows] & np.array([t == o for t, o in zip(told, own, strict=True)])[:, None]
        )
        with _residuals(self.policy) as residuals:
            flow = flow_matching_loss(
                self.policy, batch, torch.from_numpy(labelled), self.config.draws
            )
        named = np.array([named_now(t, p) for t, p in zip(told, demos.placed[rows], strict=True)])
        places = np.hstack([demos.cubes[rows, named], demos.goal[rows]])
        auxiliary = self.heads.losses(residuals, demos.pixels[rows], named, places)
        return {
            "flow": flow,
            "language": self.config.language * self._language_loss(residuals, batch, rows, rng),
            **{name: self.config.auxiliary * loss for name, loss in auxiliary.items()},
        }

    def _batch(
        self, rows: np.ndarray, told: list[str], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """The preprocessor's output; each instruction gets a synonym of its row's speed."""
        images = self.demos.images[rows]
        speeds = [SPEEDS[i] for i in self.demos.speed[rows]]
        return self.processors[0](
            {
                "observation.images.image": image_batch(images[:, 0]),
                "observation.images.image2": image_batch(images[:, 1]),
                "observation.state": torch.from_numpy(self.demos.state[rows]),
                "action": torch.from_numpy(self.demos.action[rows]),
                "task": [_at_speed(t, s, rng) for t, s in zip(told, speeds, strict=True)],
            }
        )

    def _language_loss(
        self,
        residuals: list[Tensor],
        batch: dict[str, Tensor],
        rows: np.ndarray,
        rng: np.random.Generator,
    ) -> Tensor:
        mask = batch["observation.language.attention_mask"].bool()
        n_language = mask.shape[1]
        targets = np.full((len(rows), n_language + 1), IGNORE)
        for i, row in enumerate(rows):
            speed_words = SPEED_WORDS[SPEEDS[self.demos.speed[row]]]
            motion_words = list(MOTION_WORDS.values())[self.demos.motion[row]]
            targets[i, :n_language] = self._ids(rng.choice(speed_words, n_language))
            targets[i, n_language] = self._ids(rng.choice(motion_words, 1))[0]
        targets = torch.from_numpy(targets)
        targets[:, :n_language][~mask] = IGNORE
        vlm = self.policy.model.vlm_with_expert.vlm
        norm, head = vlm.model.text_model.norm, vlm.lm_head
        per_layer = [
            F.cross_entropy(
                head(norm(hidden[:, -(n_language + 1) :])).flatten(0, 1),
                targets.flatten(),
                ignore_index=IGNORE,
            )
            for hidden in residuals[1:]
        ]
        return torch.stack(per_layer).mean()

    def _ids(self, words: np.ndarray) -> list[int]:
        return self.tokenizer.convert_tokens_to_ids([f"Ġ{word}" for word in words])

    # -- resuming and shipping ---------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Everything needed to go on exactly, written whole or not at all."""
        state = {
            "config": json.dumps(asdict(self.config)),
            "policy": self.policy.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average,
            "step": self.step,
            "curve": json.dumps(self.curve),
        }
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def resume(self, path: Path) -> None:
        """Go on from `path` if there is one.

        Raises:
            UserError: it belongs to another configuration.
        """
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        if json.loads(state["config"]) != asdict(self.config):
            raise UserError(
                f"{str(path)!r} was trained with another configuration; "
                "move it away, or give another --build folder"
            )
        self.policy.load_state_dict(state["policy"])
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.average = state["average"]
        self.step = state["step"]
        self.curve = json.loads(state["curve"])

    def ship(self, folder: Path) -> None:
        """Write the averaged, calibrated weights as a lerobot policy folder."""
        self.policy.load_state_dict(self.average)
        self.policy.eval()
        rng = np.random.default_rng([self.config.seed, 1])
        rows = np.sort(rng.choice(len(self.demos), min(2048, len(self.demos)), replace=False))
        told = [self.demos.instructions[task] for task in self.demos.task]
        calibrate(
            self.policy,
            [self._batch(part, [told[i] for i in part], rng) for part in np.array_split(rows, 16)],
        )
        folder.mkdir(parents=True, exist_ok=True)
        save_vlm_folder(folder / "vlm")
        self.policy.config.vlm_model_name = "vlm"
        self.policy.save_pretrained(folder)
        for step in self.processors[0].steps:
            if hasattr(step, "tokenizer_name"):
                step.tokenizer_name = "vlm"
        for processor in self.processors:
            processor.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        record = {
            "version": VERSION,
            "clone": asdict(self.config),
            "frames": len(self.demos),
            "curve": self.curve,
        }
        (folder / "training.json").write_text(json.dumps(record) + "\n")


def flow_matching_loss(
    policy: SmolVLAPolicy,
    batch: dict[str, Tensor],
    valid: Tensor,
    draws: int,
    noise: Tensor | None = None,
    time: Tensor | None = None,
) -> Tensor:
    """Lerobot's loss, mean |noise - action - v|^2 over valid steps, with `draws` per prefix.

    The prefix keys and values are computed once and shared, as they are when the policy acts;
    with one draw and the same noise and time this equals `SmolVLAPolicy.forward`.

    Args:
        policy: in training mode or not, gradients flow either way.
        batch: the preprocessor's output, B rows.
        valid: (B, H) bool, which steps of the chunk are labels.
        draws: (noise, time) pairs per row.
        noise: (B * draws, H, Z), drawn if absent.
        time: (B * draws,) in (0, 1], drawn from lerobot's Beta(1.5, 1) if absent.
    """
    model = policy.model
    cache, pad_masks = prefix_cache(policy, batch)
    cache.batch_repeat_interleave(draws)
    actions = policy.prepare_action(batch).repeat_interleave(draws, 0)  # (B*draws, H, Z)
    noise = torch.randn_like(actions) if noise is None else noise
    time = model.sample_time(len(actions), actions.device) if time is None else time
    t = time[:, None, None]
    velocity = model.denoise_step(
        pad_masks.repeat_interleave(draws, 0), cache, t * noise + (1 - t) * actions, time
    )
    n_actions = policy.config.action_feature.shape[0]
    error = F.mse_loss(velocity, noise - actions, reduction="none")[..., :n_actions]
    weight = valid.repeat_interleave(draws, 0).unsqueeze(-1)
    return (error * weight).sum() / (weight.sum() * n_actions).clamp_min(1)


@contextmanager
def _residuals(policy: SmolVLAPolicy) -> Iterator[list[Tensor]]:
    """Collect the residual stream after every VLM layer, gradients attached."""
    seen: list[Tensor] = []
    with ExitStack() as stack:
        for layer in range(len(sites.layers(policy, "vlm"))):
            stack.enter_context(tapped(sites.residual_reader(policy, layer)[0], seen.append))
        yield seen


def _mean_std(values: np.ndarray) -> dict[str, np.ndarray]:
    return {"mean": values.mean(0), "std": values.std(0)}


def name_other_colours(text: str, rng: np.random.Generator) -> str:
    """The instruction with its colours replaced by others, the first one surely."""
    old = [word for word in text.split() if word in COLOURS]
    new = list(rng.permutation([c for c in COLOURS if c != old[0]])[:1])
    new += list(rng.permutation([c for c in COLOURS if c != new[0]])[: len(old) - 1])
    fresh = iter(new)
    return " ".join(next(fresh) if word in COLOURS else word for word in text.split())


def named_now(text: str, placed: np.ndarray) -> int:
    """Index of the first colour in the text whose cube is not placed; the last one if all are.

    Args:
        text: an instruction.
        placed: (3,) bool, which cubes lie in the bowl, order COLOURS.
    """
    named = [COLOURS.index(word) for word in text.split() if word in COLOURS]
    waiting = [colour for colour in named if not placed[colour]]
    return waiting[0] if waiting else named[-1]


def _at_speed(text: str, speed: str, rng: np.random.Generator) -> str:
    """The sentence with a synonym of the speed; normal speed mostly goes unsaid."""
    if speed == "normal" and rng.random() < 0.7:
        return text
    return f"{text} {rng.choice(SPEED_WORDS[speed])}"


def train(config: CloneConfig, build: Path, out: Path, threads: int) -> None:
    """Collect, train (resuming what `build` holds) and ship to `out`."""
    torch.set_num_threads(threads)
    demos = load_or_collect(build / "demos", config.demos, config.seed)
    save_vlm_folder(build / "vlm")
    cloner = Cloner(config, demos, build / "vlm")
    checkpoint = build / "clone.pt"
    cloner.resume(checkpoint)
    recent: list[dict[str, float]] = []
    bar = trange(cloner.step, config.steps, initial=cloner.step, total=config.steps, mininterval=5)
    began = time.monotonic()
    for _ in bar:
        recent.append(cloner.train_step())
        if not math.isfinite(sum(recent[-1].values())):
            raise SystemExit(f"error: loss is not finite at step {cloner.step}: {recent[-1]}")
        if cloner.step % 100 == 0:
            mean = {key: float(np.mean([r[key] for r in recent])) for key in recent[0]}
            cloner.curve.append({"step": cloner.step, **mean})
            bar.set_postfix({key: f"{value:.3f}" for key, value in mean.items()})
            recent.clear()
        if cloner.step % 500 == 0:
            cloner.save(checkpoint)
    cloner.ship(out)
    print(f"{out}: {config.steps} steps, {(time.monotonic() - began) / 60:.0f} minutes")  # noqa: T201


def main() -> None:
    """`python -m engine.policies.clone`: rebuild the shipped weights."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    defaults = CloneConfig()
    parser.add_argument("--demos", type=int, default=defaults.demos)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--build", type=Path, default=Path("build/policy"))
    parser.add_argument("--out", type=Path, default=EMBEDDED_FOLDER)
    args = parser.parse_args()
    try:
        config = CloneConfig(demos=args.demos, steps=args.steps, seed=args.seed)
        train(config, args.build, args.out, args.threads)
    except (UserError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
